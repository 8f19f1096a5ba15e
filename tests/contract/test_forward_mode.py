"""Forward derivatives, of x and of every tensor parameter: the tangent is what finite differences say."""

import pytest
import torch
from torch.autograd import forward_ad

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY
from tests.contract.test_devices import has
from tests.contract.truth import ONE_OF_EACH
from tests.contract.truth import given as needed
from tests.marks import slow_but

SHAPE = 2, 3, 6, 7
EPS = 1e-6
# torch scripts some of its own derivatives
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


def rand(*shape, seed=0):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


REGIONS = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, 2, 1, ceil_mode=True),
    "Grid": gs.Grid(3),
    "Pyramid": gs.Pyramid((1, 2)),
    "Mask": gs.Mask(rand(6, 7) > 0.4),
    "Weights": gs.Mask(rand(2, 6, 7)),
    "Segments": gs.Segments(torch.arange(42).reshape(6, 7) % 5 - 1, 4),
    "Boxes": gs.Boxes(torch.tensor([[0.0, 1, 1, 5, 4], [1, 0, 0, 3, 3]]), 2),
    "Sampled": gs.Boxes(torch.tensor([[0.0, 1, 1, 5, 4], [1, 0, 0, 3, 3]], dtype=torch.float64), 2, sampling=2),
}
EVERY = [*POOLS, *WHOLE_ONLY, *COMPOSITIONS, ("std", "max")]


def check(function, at, seed=5):
    """The tangent along one direction against a central difference."""
    along = rand(*at.shape, seed=seed) - 0.5
    with forward_ad.dual_level():
        out, tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(at, along)))
    assert tangent is not None
    torch.testing.assert_close(out, function(at))
    right = (function(at + EPS * along) - function(at - EPS * along)) / (2 * EPS)
    torch.testing.assert_close(tangent, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("name", slow_but(EVERY, *ONE_OF_EACH), ids=str)
def test_of_x(name, kind):
    if not has(name, kind):
        pytest.skip(f"there is no {name} over {kind}")
    parameters = needed(name, 3) if isinstance(name, str) else {}
    check(lambda x: gs.pool(x, name, REGIONS[kind], **parameters), rand(*SHAPE) + 0.1)


@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize(
    ("name", "key"), [("gem", "p"), ("lp", "p"), ("logsumexp", "r"), ("softmax", "r"), ("attention", "query")]
)
def test_of_a_parameter(name, key, kind):
    if not has(name, kind):
        pytest.skip(f"there is no {name} over {kind}")
    x = rand(*SHAPE) + 0.1
    for size in ((3,), (2, 3)) if key == "query" else ((), (3,), (2, 3)):
        check(lambda value: gs.pool(x, name, REGIONS[kind], **{key: value}), rand(*size, seed=1) + 1.5)
    if key != "query":
        layer = gs.Pool(name, REGIONS["Whole"], **{key: torch.full((3,), 2.0, dtype=torch.float64)}, learn=True)
        check(lambda value: torch.func.functional_call(layer, {key: value}, (x,)), rand(3, seed=1) + 1.5)


@pytest.mark.parametrize("name", [name for name in POOLS if POOLS[name].weighted])
def test_of_the_weights_of_a_mask(name):
    x = rand(*SHAPE) + 0.1
    check(lambda w: gs.pool(x, name, gs.Mask(w), **needed(name, 3)), rand(2, 6, 7, seed=3) + 0.2)


def test_after_a_call_like_one_before():
    """Calls that are remembered are not taken for one with a tangent; without one everything is as ever."""
    x = torch.rand(2, 3, 16, 16)
    before = gs.pool(x, "mean", gs.Window(3))
    with forward_ad.dual_level():
        out = gs.pool(forward_ad.make_dual(x, torch.ones_like(x)), "mean", gs.Window(3))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, torch.ones_like(before))
    assert torch.equal(gs.pool(x, "mean", gs.Window(3)), before)


def test_a_head():
    head = gs.Head("gem:p=learned", 3, 4).double()
    check(head, rand(*SHAPE) + 0.1)
