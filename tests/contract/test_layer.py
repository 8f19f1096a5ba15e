"""The front door: the layer, states that add up, errors that say what to do."""

import copy
import io
import math
import pickle

import pytest
import torch

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY

from .test_pools import values
from .truth import given as needed

LAYERS = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, (2, 1), "same", dilation=(1, 2)),
    "Grid": gs.Grid((2, 3)),
    "Pyramid": gs.Pyramid((1, 2)),
}
NAMES = {"torch": torch, **{name: getattr(gs, name) for name in ("Pool", "Whole", "Window", "Grid", "Pyramid")}}


@pytest.mark.parametrize("name", [*POOLS, *WHOLE_ONLY, *COMPOSITIONS, ("gem", "max")], ids=str)
def test_the_layer_is_the_function_and_its_repr_makes_it_again(name):
    x = values(2, 3, 6, 6, dtype=torch.float32)
    parameters = needed(name, 3, torch.float32)
    for region in LAYERS.values():
        layer = gs.Pool(name, over=region, **parameters)
        right = gs.pool(x, name, region, **parameters)
        again = eval(repr(layer), NAMES)
        for copied in (layer, again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(copied(x).nan_to_num(), right.nan_to_num())
        assert repr(again) == repr(layer)


def test_what_is_learned_is_saved_and_loaded():
    for name, key, start in (("gem", "p", 3.0), ("lp", "p", 2.0), ("logsumexp", "r", 5.0), ("softmax", "r", 1.0)):
        layer = gs.Pool(name, learn=True)
        assert [k for k, _ in layer.named_parameters()] == [key]
        assert layer.state_dict()[key].item() == start
        assert repr(layer) == f"Pool({name!r}, learn=True, {key}={start})"
        wide = gs.Pool(name, learn=True, **{key: torch.full((3,), start)})
        assert getattr(wide, key).shape == (3,)
        file = io.BytesIO()
        with torch.no_grad():
            getattr(layer, key).fill_(4.0)
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = gs.Pool(name, learn=True)
        other.load_state_dict(torch.load(file))
        x = values(2, 3, 6, 6, dtype=torch.float32)
        assert torch.equal(other(x), gs.pool(x, name, **{key: 4.0}))
    query = gs.Pool("attention", query=torch.zeros(3), learn=True)
    assert [k for k, _ in query.named_parameters()] == ["query"]
    fixed = gs.Pool("attention", query=torch.ones(3))
    assert not list(fixed.parameters())
    assert list(fixed.state_dict()) == ["query"]


def test_a_learned_value_that_leaves_its_range_counts_as_its_end_and_comes_back():
    layer = gs.Pool("gem", p=0.5, learn=True)
    with torch.no_grad():
        layer.p.fill_(-2.0)
    x = values(2, 3, 6, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(x), gs.pool(x, "gem", p=0.1))
    layer(x).sum().backward()
    assert layer.p.grad.item() != 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
    for _ in range(50):
        optimizer.zero_grad()
        (-layer(x).mean()).backward()  # a larger p is a larger answer
        optimizer.step()
    assert layer.p.item() > 0.1


def test_states_say_what_they_are_and_add_up():
    x = values(2, 3, 8, 8)
    a, b = gs.partial(x[..., :3], "gem", p=2.0), gs.partial(x[..., 3:], "gem", p=2.0)
    torch.testing.assert_close((a + b).finish(), gs.pool(x, "gem", p=2.0))
    assert repr(a) == "<partial 'gem', p=2.0 of shape (2, 3, 1, 1)>"
    ones = torch.ones(1, 1, 20, 20, dtype=torch.uint8)
    assert gs.partial(ones, "sum").finish().item() == 400
    halves = [gs.partial(part, "mean").finish() for part in x.half().split(4, 2)]
    assert halves[0].dtype == torch.float16


RAISES = [
    (lambda: gs.pool(torch.rand(1, 2, 3), "avg"), "avg.*mean"),
    (lambda: gs.pool(torch.rand(1, 2, 3), ("mean", "avgmax")), "composition itself"),
    (lambda: gs.pool(torch.rand(1, 2, 3), ()), "not known"),
    (lambda: gs.pool(torch.rand(2, 3), "mean"), r"\(N, C, \*spatial\)"),
    (lambda: gs.pool(torch.rand(1, 2, 0, 3), "max"), "no position"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", q=3), "takes p"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "mean", p=3), "takes no parameters"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=-1), "from 0.01 to inf"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=math.nan), "from 0.01 to inf"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p="3"), "must be a number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=torch.ones(3)), "one per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk"), "needs k=…"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=0), "from 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=1.5), "whole number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=torch.tensor(2)), "one number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "quantile", q=1.1), "from 0 to 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention"), "needs query=…"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention", query=torch.ones(3)), "per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention", query=1.0), "per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window(5)), "does not fit"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window((2, 2, 2))), "spatial axes"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window(2, padding=((0, 1),))), "spatial axes"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", 3), "region"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Window), "region"),
    (lambda: gs.Window(0), "at least 1"),
    (lambda: gs.Window(3, padding=3), "less than"),
    (lambda: gs.Window(3, padding=((3, 0),)), "less than"),
    (lambda: gs.Window(3, padding="valid"), "same"),
    (lambda: gs.Window(3, padding=((1, 2, 3),)), "pair"),
    (lambda: gs.Window(3, padding=-1), "at least 0"),
    (lambda: gs.Window(3, dilation=0), "at least 1"),
    (lambda: gs.Window(2.5), "whole number"),
    (lambda: gs.Window(2, ceil_mode=1), "True or False"),
    (lambda: gs.Window(2, divisor="all"), "'positions', 'padded', 'window'"),
    (lambda: gs.Window(2, divisor=0), "other than 0"),
    (lambda: gs.Window((2, 2), (1, 1, 1)), "different numbers of axes"),
    (lambda: gs.Grid(()), "whole number"),
    (lambda: gs.Pyramid(3), "tuple"),
    (lambda: gs.Pyramid((0,)), "at least 1"),
    (lambda: gs.Mask([1, 0]), "tensor"),
    (lambda: gs.Mask(torch.ones(3, dtype=torch.int64)), r"mask\.bool"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "mean", gs.Mask(torch.ones(4, dtype=torch.bool))), "one value per position"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Mask(torch.ones(3))), "in part"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "median", gs.Mask(torch.ones(3))), "in part"),
    (lambda: gs.Segments(torch.rand(3)), "whole numbers"),
    (lambda: gs.Segments(torch.ones(3, dtype=torch.int64), 0), "at least 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Segments(torch.tensor([0, 1, 2]), 2)), "a label is 2"),
    (lambda: gs.Boxes([], 2), "tensor"),
    (lambda: gs.Boxes(torch.zeros(1, 5), 2, scale=0), "positive"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes(torch.zeros(1, 4), 2)), r"needs \(R, 5\)"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes(torch.ones(1, 5), 2)), "there are 1 images"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes([torch.ones(1, 4)] * 2, 2)), "one per image"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "median"), "all positions at once"),
    (lambda: gs.partial(torch.rand(1, 2, 4), "mean", gs.Window(2, divisor=3)), "divisor='positions'"),
    (lambda: gs.partial(torch.rand(1, 2, 4), "mean", gs.Pyramid((1, 2))), "per cell"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "gem", p=2) + gs.partial(torch.rand(1, 2, 3), "gem"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "max") + gs.partial(torch.rand(1, 3, 3), "max"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "max") + gs.partial(torch.rand(1, 2, 3), "min"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "avgmax") + gs.partial(torch.rand(1, 2, 3), "catavgmax"), "add up"),
    (lambda: gs.Pool("mean", learn=True), "nothing to learn"),
    (lambda: gs.Pool("max", over=gs.Mask(torch.ones(3, dtype=torch.bool))), r"layer\(x, over=gs\.Mask"),
    (lambda: gs.Pool("gem", p=0), "from 0.01"),
]


@pytest.mark.parametrize(("call", "says"), RAISES)
def test_errors_restate_the_call_and_the_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int32])
def test_types_without_a_meaning_are_refused(dtype):
    with pytest.raises(TypeError, match="convert"):
        gs.pool(torch.ones(1, 2, 3).to(dtype), "mean")
    with pytest.raises(TypeError, match="over a Mask of weights"):
        gs.pool(torch.ones(1, 2, 3, dtype=torch.int32), "sum", gs.Mask(torch.ones(3)))


def test_a_region_of_a_batch_goes_with_it():
    x = values(2, 3, 4, 4)
    mask = torch.rand(2, 4, 4) > 0.3
    torch.testing.assert_close(gs.Pool("mean")(x, over=gs.Mask(mask)), gs.pool(x, "mean", gs.Mask(mask)))
