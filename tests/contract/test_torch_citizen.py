"""Good neighbours: opcheck, compiled graphs, export with dynamic sizes, vmap, worker processes, threads."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import gapstone as gs
from gapstone.loops import compiled
from gapstone.loops.place_encoding import encode
from gapstone.loops.tuned import dispatch as tuned
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals
from tests.loops_by_name import call_of
from tests.marks import slow_but

REGIONS = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, 2, 1, ceil_mode=True),
    "Grid": gs.Grid(3),
    "Mask": gs.Mask(torch.rand(6, 7, generator=torch.Generator().manual_seed(0)) > 0.4),
    "Weights": gs.Mask(torch.rand(6, 7, generator=torch.Generator().manual_seed(0))),
    "Segments": gs.Segments(torch.arange(42).reshape(6, 7) % 5 - 1, 4),
    "Boxes": gs.Boxes(torch.tensor([[0.0, 1, 1, 5, 4], [1, 0, 0, 3, 3]]), 2),
}
SOME = ["mean", "max", "gem", "logsumexp", "topk", "std"]


def x32(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) + 0.1


@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("name", slow_but(["max", "gem", "attention"], "max", "gem"))
@pytest.mark.parametrize("loop", ["reference", "compiled", "tuned"])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck looks at it itself
def test_opcheck(name, kind, loop, some):
    if kind == "Weights" and not POOLS[name].weighted:
        pytest.skip(f"a {name} cannot count in part")
    x = x32(2, 3, 6, 7)
    place = REGIONS[kind].place(x.shape)
    if loop == "compiled" and compiled.refuses(call_of(name, x, place)) is not None:
        pytest.skip(f"the compiled loop has no {name} over {kind}")
    numbers, places = encode(place)
    constants, tensors = [], []
    if name == "gem":
        constants, tensors = [float("nan")], [torch.full((3,), 2.5, requires_grad=True)]
    elif name == "attention":
        constants, tensors = [float("nan")], [x.mean(1, keepdim=True).detach().requires_grad_()]
    checked = 0
    for laid in some([x, x.contiguous(memory_format=torch.channels_last)], 1):
        if loop == "tuned" and tuned.serves(call_of(name, laid, place, tuple(tensors), True)) is None:
            continue
        args = laid.detach().requires_grad_(), name, loop, numbers, places, constants, tensors, True
        torch.library.opcheck(torch.ops.gapstone.pool.default, args)
        checked += 1
    if not checked:
        pytest.skip(f"the tuned loop has no {name} over {kind}")


@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("name", slow_but(["max", "gem", "topk"], "max"))
def test_one_graph_under_compile(name, kind):
    if kind == "Weights" and not POOLS[name].weighted:
        pytest.skip(f"a {name} cannot count in part")
    parameters = {"k": 3} if name == "topk" else {}

    def step(x):
        return gs.pool(x * 2, name, REGIONS[kind], **parameters).relu()

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for images in (2, 3) if kind not in ("Boxes",) else (2,):
        x = x32(images, 3, 6, 7).requires_grad_()
        out = compiled(x)
        torch.testing.assert_close(out, step(x))
        (dx,) = torch.autograd.grad(out.sum(), x)
        (right,) = torch.autograd.grad(step(x).sum(), x)
        torch.testing.assert_close(dx, right)


class Net(torch.nn.Module):
    def __init__(self, name, region, **parameters):
        super().__init__()
        self.body = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.pool = gs.Pool(name, over=region, **parameters)

    def forward(self, x):
        return self.pool(self.body(x)).flatten(1)


DYNAMIC = [
    gs.Whole(),
    gs.Window(3, 2, 1),
    gs.Window(2, 2, ceil_mode=True),
    gs.Window(3, 2, "same"),
    gs.Grid(3),
    gs.Pyramid((1, 2)),
]


@pytest.mark.parametrize("region", slow_but(DYNAMIC, DYNAMIC[2]), ids=str)
@pytest.mark.parametrize("name", slow_but(["gem", "topk", "catavgmax"], "catavgmax"))
def test_export_with_dynamic_batch_height_and_width(name, region):
    """test_written_down.py has other pools."""
    net = Net(name, region, **({"k": 3} if name == "topk" else {})).eval()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(net, (x32(2, 3, 16, 20),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    for shape in ((2, 3, 16, 20), (5, 3, 31, 17), (3, 3, 9, 64)):
        torch.testing.assert_close(program.module()(x32(*shape)), net(x32(*shape)))


@pytest.mark.parametrize("name", SOME)
def test_vmap_is_a_batch_of_batches(name):
    parameters = {"k": 3} if name == "topk" else {}
    x = x32(5, 2, 3, 6, 7)
    for region in (gs.Whole(), gs.Window(3, 2, 1), gs.Grid(2)):
        mapped = torch.vmap(lambda t, r=region: gs.pool(t, name, r, **parameters))(x)
        right = torch.stack([gs.pool(t, name, region, **parameters) for t in x])
        torch.testing.assert_close(mapped, right)
    inner = torch.vmap(lambda t: gs.pool(t, name, gs.Window(2), **parameters), in_dims=3)(x32(2, 3, 6, 5, 7))
    assert inner.shape == (5, 2, 3, 3, 3)


def test_transforms_of_calls_like_one_before():
    """A call outside is remembered; inside a transform the same shape is another thing."""
    x, region = x32(5, 2, 3, 16, 16), gs.Window(3, 2, 1)
    for name in ("max", "mean", "avgmax"):
        over = gs.Whole() if name == "avgmax" else region
        right = torch.stack([gs.pool(t, name, over) for t in x])
        torch.testing.assert_close(torch.vmap(lambda t, n=name, o=over: gs.pool(t, n, o))(x), right)
        leaf = x[0].clone().requires_grad_()
        gs.pool(leaf, name, over).sum().backward()
        found = torch.func.grad(lambda t, n=name, o=over: gs.pool(t, n, o).sum())(x[0])
        torch.testing.assert_close(found, leaf.grad)


def test_names_and_tensors_that_cannot_be_remembered():
    x = x32(2, 3, 16, 16)
    with pytest.raises(ValueError, match="is not known"):
        gs.pool(x, ["mean", "stud"])
    with pytest.raises(TypeError, match="sparse"):
        gs.pool(x.to_sparse(), "max", gs.Window(2))


def test_vmap_over_parameters():
    x = x32(2, 3, 6, 7)
    found = torch.vmap(lambda p: gs.pool(x, "gem", gs.Window(2), p=p))(torch.tensor([1.0, 2.0]))
    right = torch.stack([gs.pool(x, "gem", gs.Window(2), p=p) for p in (1.0, 2.0)])
    torch.testing.assert_close(found, right)


def test_functional_gradients():
    x = x32(2, 3, 6, 7)
    for name in ("gem", "max", "logsumexp"):
        found = torch.func.grad(lambda t, n=name: gs.pool(t, n, gs.Window(2)).square().sum())(x)
        leaf = x.clone().requires_grad_()
        gs.pool(leaf, name, gs.Window(2)).square().sum().backward()
        torch.testing.assert_close(found, leaf.grad)


class Pooled(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        x = torch.full((1, 4, 40, 40), float(i + 1))
        return torch.cat([gs.pool(x, n, gs.Window(3, 2, 1)).mean()[None] for n in ("max", "gem", "logsumexp")])


# spawn: torch is imported twice; test_background.py and tests/comparing start fresh processes, too
@pytest.mark.parametrize("start", slow_but(["fork", "spawn"], "fork"))
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_dataloader_workers(start):
    before = gs.pool(x32(2, 8, 64, 64), "gem", gs.Window(3))  # the kernels are in use when the workers are made
    right = torch.stack([Pooled()[i] for i in range(8)])
    loader = DataLoader(
        Pooled(), batch_size=4, num_workers=2, multiprocessing_context=multiprocessing.get_context(start)
    )
    torch.testing.assert_close(torch.cat(list(loader)), right)
    torch.testing.assert_close(gs.pool(x32(2, 8, 64, 64), "gem", gs.Window(3)), before)


@pytest.mark.slow  # the loops by name: test_compiled_loop.py and tests/tuned; torch's own sums differ by threads
@pytest.mark.kernels
def test_from_several_threads_with_any_number_of_torchs_own():
    x = x32(4, 32, 64, 64)
    asked = [(n, r) for n in ("max", "mean", "gem", "logsumexp") for r in (gs.Window(3, 2, 1), gs.Grid(5), gs.Whole())]
    right = [gs.pool(x, n, r) for n, r in asked]
    threads = torch.get_num_threads()
    try:
        for many in (1, 2, 3):
            torch.set_num_threads(many)
            with ThreadPoolExecutor(4) as pool:
                for _ in range(5):
                    found = list(pool.map(lambda a: gs.pool(x, *a), asked))
                    # bit for bit, except for torch's own reductions
                    assert all(
                        torch.equal(a, b)
                        for (n, r), a, b in zip(asked, found, right, strict=True)
                        if (n, r) != ("mean", gs.Whole())
                    )
    finally:
        torch.set_num_threads(threads)


def test_whole_place_encodes_to_one_number():
    assert encode(Intervals(None)) == ([0], [])
