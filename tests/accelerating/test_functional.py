"""Every function against torch's: values, gradients, types, layouts, and torch's own errors."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gapstone.accelerating import functional as ours
from gapstone.accelerating import namespaces

SHAPES = {1: (3, 8, 1501), 2: (2, 64, 29, 31), 3: (2, 32, 9, 11, 13)}
TYPES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture
def served(monkeypatch):
    """How often gapstone answered."""
    counts = []
    runner_of = ours.runner_of

    def counted(name, x, place):
        run = runner_of(name, x, place)
        counts.extend([name] if run is not None else [])
        return run

    monkeypatch.setattr(ours, "runner_of", counted)
    return counts


def made(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def agree(name, x, served, *args, at_all=True, **kwargs):
    """Both on the same map, with gradients where it wants one."""
    answers = []
    before = len(served)
    for function in (getattr(F, name), getattr(ours, name)):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad)
        out = function(leaf, *args, **kwargs)
        if x.requires_grad:
            out.backward(made(out.shape, out.dtype, 1))
        answers.append((out.detach(), leaf.grad))
    assert (len(served) > before) == at_all, f"served by {'torch' if at_all else 'gapstone'}"
    (want, slope), (got, own) = answers
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.stride() == want.stride()
    if "max" in name:
        assert torch.equal(got.nan_to_num(), want.nan_to_num())
    else:
        torch.testing.assert_close(got, want, rtol=TYPES[x.dtype], atol=TYPES[x.dtype])
    if slope is not None:
        torch.testing.assert_close(own, slope, rtol=2 * TYPES[x.dtype], atol=2 * TYPES[x.dtype])


WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 5, "stride": 1, "padding": 2},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": [3], "stride": (), "padding": (1,)},
]
PER_AXIS = {
    1: [{"kernel_size": (4,), "stride": [2]}],
    2: [{"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}, {"kernel_size": [1, 5], "ceil_mode": True}],
    3: [{"kernel_size": (3, 2, 1), "stride": (2, 1, 2), "padding": (1, 1, 0), "ceil_mode": True}],
}


def windows(axes):
    return WINDOWS + PER_AXIS[axes]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_windows(axes, gradient, served):
    for given, dilation in itertools.product(windows(axes), (1, 2)):
        x = made(SHAPES[axes]).requires_grad_(gradient)
        agree(f"max_pool{axes}d", x, served, **given, dilation=dilation)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_mean_windows(axes, gradient, served):
    for given, padded, divisor in itertools.product(windows(axes), (True, False), (None, 7, -2)):
        if axes == 1 and divisor is not None:
            continue
        more = {} if axes == 1 else {"divisor_override": divisor}
        x = made(SHAPES[axes]).requires_grad_(gradient)
        agree(f"avg_pool{axes}d", x, served, **given, count_include_pad=padded, **more)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", ["adaptive_max_pool", "adaptive_avg_pool"])
def test_grids(name, axes, served):
    shape = {1: (4, 64, 1001), 2: (2, 128, 29, 31), 3: (4, 64, 9, 11, 13)}[axes]
    sizes = [2, 7, (3,) * axes, [5] * axes, (8,) * axes] + ([(None, *(3,) * (axes - 1))] if axes > 1 else [])
    for size in sizes:
        agree(f"{name}{axes}d", made(shape), served, size)
    agree(f"{name}{axes}d", made(shape), served, 1, at_all="max" in name)
    agree(f"{name}{axes}d", made(shape).requires_grad_(), served, 3, at_all=False)


@pytest.mark.parametrize(
    "dtype", [pytest.param(t, marks=[pytest.mark.slow] * (t in (torch.float64, torch.float16))) for t in TYPES], ids=str
)
@pytest.mark.parametrize("name", ["max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d"])
def test_types(name, dtype, served):
    for gradient in (False, True):
        agree(name, made(SHAPES[int(name[-2])], dtype).requires_grad_(gradient), served, 3, 2, 1)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_max_pool2d"])
def test_layouts(name, served):
    given = (3, 2, 1) if not name.startswith("adaptive") else (3,)
    x = made((2, 64, 32, 40)).to(memory_format=torch.channels_last)
    answers = [getattr(module, name)(x, *given) for module in (F, ours)]
    torch.testing.assert_close(answers[1], answers[0])
    assert answers[1].is_contiguous(memory_format=torch.channels_last)
    y = x.contiguous()
    for view in (y[:, :, ::2], y[:, ::2], y.transpose(2, 3), y[:1].expand(4, -1, -1, -1)):
        torch.testing.assert_close(getattr(ours, name)(view, *given), getattr(F, name)(view, *given))


def test_infinities_and_nans(served):
    x = made(SHAPES[2])
    x[0, 0, 3, 3], x[0, 1, 5, 5], x[1, 2] = torch.nan, -torch.inf, -torch.inf
    for name in ("max_pool2d", "avg_pool2d"):
        want, got = getattr(F, name)(x, 3, 2, 1), getattr(ours, name)(x, 3, 2, 1)
        torch.testing.assert_close(got, want, equal_nan=True)
    assert served == ["max", "mean"]


BAD = [
    ("max_pool2d", (0,), {}),
    ("max_pool2d", (3, 0), {}),
    ("max_pool2d", (3, 2, 2), {}),
    ("max_pool2d", (3, 2, -1), {}),
    ("max_pool2d", (3, 2, 1, 0), {}),
    ("max_pool2d", ((3, 3, 3),), {}),
    ("max_pool2d", (3.0,), {}),
    ("max_pool2d", ("3",), {}),
    ("max_pool2d", (50,), {}),
    ("max_pool2d", (), {}),
    ("max_pool2d", (3,), {"steps": 1}),
    ("max_pool2d", (3, 2, 1, 1, False, False, 1), {}),
    ("max_pool2d", (3,), {"ceil_mode": "yes"}),
    ("avg_pool2d", (3,), {"divisor_override": 0}),
    ("avg_pool2d", (3,), {"divisor_override": 1.5}),
    ("avg_pool2d", (3,), {"dilation": 2}),
    ("avg_pool2d", (3, 2, 2), {}),
    ("avg_pool1d", (3,), {"divisor_override": 3}),
    ("adaptive_max_pool2d", (-1,), {}),
    ("adaptive_avg_pool2d", ((1, 2, 3),), {}),
    ("adaptive_avg_pool2d", ("two",), {}),
    ("adaptive_avg_pool1d", (None,), {}),
    ("adaptive_avg_pool2d", (), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), BAD)
def test_errors_are_torchs(name, args, kwargs):
    x = made((2, 64, 40, 40) if "2d" in name else (2, 64, 1600))
    raised = []
    for module in (F, ours):
        with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
            getattr(module, name)(x, *args, **kwargs)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("x", [torch.ones(2, 64, 40, 40, dtype=torch.bool), "a map", None])
def test_errors_about_the_map_are_torchs(x):
    raised = []
    for module in (F, ours):
        with pytest.raises((RuntimeError, TypeError, AttributeError)) as caught:
            module.avg_pool2d(x, 3)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(RuntimeError, match="not implemented"):
            ours.avg_pool3d(made(SHAPES[3], dtype), 3)


class Seen(torch.Tensor):
    names: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.names.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.func loads decompositions through torch.jit
def test_what_goes_to_torch(served):
    x = made(SHAPES[2])
    plain = partial(ours.max_pool2d, kernel_size=3)
    for y in (x[0], x[:1, :1], x.to(torch.int32), x.to("meta"), x.to(memory_format=torch.channels_last)):
        plain(y)
    out, indices = ours.max_pool2d(x, 3, return_indices=True)
    assert indices.dtype == torch.int64
    assert torch.equal(out, F.max_pool2d(x, 3))
    plain(x.as_subclass(Seen))
    assert "max_pool2d" in Seen.names
    with Ops() as ops:
        plain(x)
    assert any("max_pool2d" in name for name in ops.names)
    torch.vmap(plain)(torch.stack([x, x]))
    torch.func.grad(lambda x: plain(x).sum())(x)
    torch.func.jvp(plain, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        assert torch.autograd.forward_ad.unpack_dual(plain(dual)).tangent is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours.max_pool3d(made(SHAPES[3], torch.bfloat16), 3).dtype == torch.float32
    exported = torch.export.export(torch.nn.Sequential(torch.nn.Conv2d(64, 8, 1), Module(plain)), (x,))
    assert "aten.max_pool2d" in str(exported.graph)
    assert served == []
    plain(x)
    assert served == ["max"]


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_traces_hold_torchs_own():
    traced = torch.jit.trace(Module(partial(ours.max_pool2d, kernel_size=3)), (made(SHAPES[2]),))
    assert "aten::max_pool2d" in str(traced.graph)
    graph = torch.fx.symbolic_trace(Module(partial(ours.max_pool2d, kernel_size=3))).graph
    assert any(node.target is F.max_pool2d for node in graph.nodes)


def test_every_pool_of_torch_is_here():
    assert len(namespaces.POOLS) == 15
    for name in namespaces.NAMES:
        assert getattr(ours, name).__name__ == name
        assert getattr(ours, name).__module__ == ours.__name__
        assert namespaces.POOLS[getattr(F, name)] is getattr(ours, name)
    x = made(SHAPES[2])
    assert torch.equal(ours.torch_max_pool2d(x, 3), torch.max_pool2d(x, 3))
    with pytest.raises(TypeError):
        ours.torch_max_pool2d(x, 3, return_indices=True)


def test_gradient_of_the_gradient(served):
    x = made((1, 4, 50, 50), torch.float64).requires_grad_()
    for name in ("max_pool2d", "avg_pool2d"):
        slopes = []
        for module in (F, ours):
            (first,) = torch.autograd.grad(getattr(module, name)(x, 3, 2).square().sum(), x, create_graph=True)
            slopes.append(torch.autograd.grad(first.square().sum(), x)[0])
        torch.testing.assert_close(slopes[1], slopes[0])
    assert served == ["max", "mean"]
