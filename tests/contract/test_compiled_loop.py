"""The compiled CPU loop (loops/compiled.py): against float64 formulas over positions listed by brute force.

Tolerance is a policy: the error against float64 at most twice that of the same formula in plain torch in that dtype,
plus one unit in the last place.
"""

import itertools
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.loops import compiled
from gapstone.pools import POOLS
from gapstone.regions.places import Cells, Intervals, Labels, Place, PositionWeights, Rectangles, Sampled, Windows
from tests.contract.conftest import DERIVED
from tests.loops_by_name import ByName
from tests.marks import slow_but

pytest.importorskip("numba")

loop = ByName(compiled)
SOURCE = str(Path(compiled.__file__).parents[2])


def gem(x: Tensor, p: Tensor) -> Tensor:
    x = x.clamp(min=1e-6)
    top = x.detach().amax(-1, keepdim=True)
    return top[..., 0] * (x / top).pow(p[..., None]).mean(-1).pow(1 / p)


def lp(x: Tensor, p: Tensor) -> Tensor:
    return x.abs().pow(p[..., None]).sum(-1).pow(1 / p)


def softmax(x: Tensor, r: Tensor) -> Tensor:
    return (x * torch.softmax(r[..., None] * x, -1)).sum(-1)


def logsumexp(x: Tensor, r: Tensor) -> Tensor:
    return (torch.logsumexp(r[..., None] * x, -1) - math.log(x.shape[-1])) / r


FORMULAS = {
    "mean": lambda x, p: x.mean(-1),
    "sum": lambda x, p: x.sum(-1),
    "max": lambda x, p: x.max(-1).values,  # the gradient to one of equals, as ours
    "min": lambda x, p: x.min(-1).values,
    "gem": gem,
    "l2": lambda x, p: x.square().sum(-1).sqrt(),
    "lp": lp,
    "logsumexp": logsumexp,
    "softmax": softmax,
    "variance": lambda x, p: x.var(-1, correction=0),
    "std": lambda x, p: x.std(-1, correction=0),
}
PARAMETER = {"gem": 2.7, "lp": 3.0, "logsumexp": 4.0, "softmax": 1.5, "variance": 0.0, "std": 0.0}
OVER_NOTHING = {"mean": math.nan, "sum": 0.0, "max": -math.inf, "min": math.inf, "gem": math.nan, "l2": 0.0, "lp": 0.0,
                "logsumexp": math.nan, "softmax": math.nan, "variance": math.nan, "std": math.nan}  # fmt: skip


def lists(place: Place, shape: tuple[int, ...]) -> list[tuple[int, list[list[int]]]]:
    """Per row of the answer its image, and per cell the numbers of its positions."""
    spatial = shape[2:]

    def products(ranges: list[list[range]]) -> list[list[int]]:
        found = []
        for cell in itertools.product(*ranges):
            places = itertools.product(*cell)
            found.append([sum(i * math.prod(spatial[k + 1 :]) for k, i in enumerate(at)) for at in places])
        return found

    if isinstance(place, Intervals) and place.axes is None:
        return [(image, [list(range(math.prod(spatial)))]) for image in range(shape[0])]
    if isinstance(place, Intervals):
        ranges = [
            [range(a, b, axis.step) for a, b in zip(*axis.bounds(n), strict=True)]
            for axis, n in zip(place.axes or (), spatial, strict=True)
        ]
        return [(image, products(ranges)) for image in range(shape[0])]
    if isinstance(place, Rectangles):
        rows = []
        for row, image in enumerate(place.images.tolist()):
            edges = zip(place.starts, place.stops, strict=True)
            ranges = [[range(a, b) for a, b in zip(s[row].tolist(), t[row].tolist(), strict=True)] for s, t in edges]
            rows.append((image, products(ranges)))
        return rows
    if isinstance(place, PositionWeights):
        labels, count = torch.where(place.weights != 0, 0, -1), 1
    else:
        assert isinstance(place, Labels)
        labels, count = place.labels, place.count
    flat = labels.expand(shape[0], *spatial).flatten(1).tolist()
    return [(n, [[i for i, k in enumerate(flat[n]) if k == c] for c in range(count)]) for n in range(shape[0])]


def reference(name: str, x: Tensor, place: Place, p: Tensor) -> Tensor:
    """The formula over each answer's positions, (rows, C, cells)."""
    flat, rows = x.flatten(2), []
    for image, cells in lists(place, tuple(x.shape)):
        answers = []
        for cell in cells:
            if cell:
                answers.append(FORMULAS[name](flat[image][:, cell], p[image]))
            else:
                answers.append(torch.full_like(flat[image][:, 0], OVER_NOTHING[name]))
        rows.append(torch.stack(answers, -1))
    return torch.stack(rows)


def last(x: Tensor) -> Tensor:
    """Channels last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def close(ours: Tensor, exact: Tensor, plain: Tensor, dtype: torch.dtype, ulps: int = 1) -> None:
    ours, plain = ours.double(), plain.double()
    assert torch.equal(ours.isnan(), exact.isnan())
    finite = exact.isfinite()
    assert torch.equal(ours[~finite].nan_to_num(), exact[~finite].nan_to_num())
    if finite.any():
        error, theirs = (ours - exact)[finite].abs().max(), (plain - exact)[finite].abs().max()
        if not theirs.isfinite():
            theirs = torch.tensor(0.0, dtype=torch.float64)
        ulps = 8 if dtype == torch.float64 else ulps  # the formula itself is no more exact
        assert error <= 2 * theirs + ulps * torch.finfo(dtype).eps * exact[finite].abs().max(), (error, theirs)


def check(
    name: str,
    x: Tensor,
    place: Place,
    parameter: float | Tensor | None = None,
    learned: bool = True,
    again: bool = True,
) -> None:
    """Forward and backward, against the formula in float64 and in x's own type; `again`: the same without what the
    backward needs, which takes one more kernel."""
    dtype, images, channels = x.dtype, x.shape[0], x.shape[1]
    value = PARAMETER.get(name) if parameter is None else parameter
    given = () if value is None else (value,)
    wide = torch.as_tensor(0.0 if value is None else value).expand(images, channels)
    place64 = place
    answers, grads, slopes = [], [], []
    g = None
    learned = learned and POOLS[name].slope is not None
    for kind in (torch.float64, dtype):
        y = x.detach().to(kind).clone().contiguous().requires_grad_()
        p = wide.to(kind).clone().requires_grad_()
        out = reference(name, y, place64, p)
        if g is None:
            g = torch.randn(out.shape, dtype=torch.float64).to(dtype)
            g[~out.isfinite()] = 0
        safe = torch.where(out.isfinite(), out, torch.zeros_like(out)) + 0 * (y.sum() + p.sum())
        found = torch.autograd.grad(safe, (y, p), g.to(kind), allow_unused=True, materialize_grads=True)
        answers.append(out.detach())
        grads.append(found[0])
        slopes.append(found[1])
    assert loop.refuses(name, dtype, place) is None
    out, kept = loop.forward(name, x, place, given, True)
    if again:
        alone, nothing = loop.forward(name, x, place, given, False)
        assert nothing == []
        assert torch.equal(out.nan_to_num(), alone.nan_to_num())
    assert out.dtype == dtype
    assert [k.dtype for k in kept] == loop.saved_types(name, dtype, place)
    assert all(k.shape == out.shape for k in kept)
    close(out.flatten(2) if out.dim() > 2 else out[..., None], answers[0], answers[1], dtype)
    assert g is not None
    looked = {n for f in (POOLS[name].share, POOLS[name].slope) if f for n in f.__code__.co_varnames[:3]}
    dx, dp = loop.backward(
        name, g.reshape(out.shape), x if "x" in looked else None, out if "out" in looked else None, kept, x.shape,
        place, given, learned, channels_last=not x.is_contiguous(),
    )  # fmt: skip
    assert dx is not None
    assert dx.dtype == dtype
    assert dx.stride() == x.stride() or x.numel() == 0
    # softmax's share looks at the rounded answer: x - out has lost what they have in common
    close(dx, grads[0], grads[1], dtype, 4 if name == "softmax" else 1)
    if learned:
        assert dp is not None
        assert dp.shape == (images, channels)
        # logarithms that nearly cancel, of a sum that was rounded once
        close(dp, slopes[0], slopes[1], torch.float64 if dtype == torch.float64 else torch.float32, 4)


def window(n: int, size: int, stride: int, padding: int = 0, step: int = 1, overhang: bool = False) -> Windows:
    span = (size - 1) * step + 1
    room = n + 2 * padding - span
    cells = (-(-room // stride) if overhang else room // stride) + 1
    if overhang and (cells - 1) * stride >= n + padding:
        cells -= 1
    return Windows(cells, size, stride, padding, padding, step)


def over(shape: tuple[int, ...], *rule: int, overhang: bool = False) -> Intervals:
    return Intervals(tuple(window(n, *rule, overhang=overhang) for n in shape[2:]))


def places(shape: tuple[int, ...]) -> list[Place]:
    random = torch.Generator().manual_seed(1)
    images, spatial = shape[0], shape[2:]
    found: list[Place] = [Intervals(None), over(shape, 1, 1), Intervals(tuple(Cells(3, n) for n in spatial))]
    found += [Intervals(tuple(Cells(2 * n, n) for n in spatial))] if math.prod(spatial) < 100 else []
    if min(spatial) >= 5:
        found += [
            over(shape, 3, 2, 1),
            over(shape, 2, 2),
            over(shape, 3, 1, 1),
            over(shape, 3, 3),
            over(shape, 5, 2, 2),
        ]
        found += [over(shape, 3, 2, 1, 2), over(shape, 2, 3, 1, 3), over(shape, 3, 2, 0, 1, overhang=True)]
        found += [over(shape, 3, 2, 1, overhang=True)]
    labels = torch.randint(-1, 4, (images, *spatial), generator=random)
    found += [Labels(labels, 5), Labels(labels[:1], 4), Labels(labels.clamp(max=0), 1, whole=True)]
    weights = torch.rand((images, *spatial), generator=random)
    starts, stops = [], []
    for n in spatial:
        first = torch.randint(0, n, (4, 2), generator=random)
        starts.append(first)
        stops.append((first + torch.randint(0, 5, (4, 2), generator=random)).clamp(max=n))
    found.append(Rectangles(torch.tensor([0, images - 1, 0, 0]), tuple(starts), tuple(stops)))
    return [*found, PositionWeights(torch.where(weights > 0.5, 1.0, 0.0))]


SHAPES = [(2, 3, 63), (1, 40, 7), (2, 5, 13, 11), (1, 33, 7, 9), (2, 3, 1, 1), (1, 2, 3, 5, 6)]
POSITIVE = {"lp", "l2", "gem"}


LAYOUTS = ["contiguous", pytest.param("channels_last", marks=pytest.mark.slow)]


# All templates are tried with the maximum, which has the longest state. test_pools.py tries formulas of other kinds;
# all pools in all templates: make test-slow.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", slow_but(FORMULAS, *DERIVED))
@pytest.mark.parametrize("learned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_pool_over_every_place(name, shape, layout, learned):
    """Learned: the same with the parameter's slope, of which test_parameters_per_channel_and_image has a quick look."""
    if learned and POOLS[name].slope is None:
        pytest.skip("nothing to learn")
    torch.manual_seed(0)
    for place in places(shape):
        if isinstance(place, PositionWeights) and not POOLS[name].weighted:
            continue
        alone = math.prod(shape[2:]) < 60 or any(len(c) == 1 for _, cells in lists(place, shape) for c in cells)
        if name in ("variance", "std") and alone:
            continue  # one position alone: the formula's gradient is NaN, ours 0
        x = torch.rand(shape) + 0.1 if name in POSITIVE else torch.randn(shape)
        check(name, last(x) if layout == "channels_last" else x, place, learned=learned)


@pytest.mark.slow  # Grid: test_pools.py
def test_windows_against_a_reference():
    """The branch of the template that pools with a reference take: variance's is the mean."""
    x = torch.randn((1, 33, 7, 9), generator=torch.Generator().manual_seed(0))
    check("variance", x, over((1, 33, 7, 9), 3, 2, 1))


def test_everyone_is_here():
    refused = {name for name in POOLS if loop.refuses(name, torch.float32, Intervals(None))}
    assert refused == {"topk", "attention"}
    assert set(FORMULAS) == set(POOLS) - refused


@pytest.mark.slow  # test_pools.py tries this loop in other types too
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["mean", "max"])
def test_types(name, dtype, layout):
    torch.manual_seed(0)
    if loop.refuses(name, dtype, Intervals(None)):
        assert (name, dtype) == ("gem", torch.float64)
        return
    for shape in ((2, 37, 9, 13), (1, 3, 33, 40)):
        x = (torch.rand(shape) + 0.1).to(dtype)
        for place in (
            Intervals(None),
            over(shape, 3, 2, 1),
            over(shape, 2, 2),
            Intervals((Cells(2, shape[2]), Cells(3, shape[3]))),
        ):
            check(name, last(x) if layout == "channels_last" else x, place)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        *(pytest.param(t, marks=pytest.mark.slow) for t in (torch.int8, torch.int16, torch.int32, torch.int64)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", slow_but(["max", "min", "sum"], *DERIVED))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_integers(dtype, name, layout, some):
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    x = torch.randint(max(low, -(2**40)), min(high, 2**40), (2, 19, 9, 11)).to(dtype)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = low, high
    x = last(x) if layout == "channels_last" else x
    formula: Any = {"max": torch.amax, "min": torch.amin, "sum": torch.sum}[name]
    for place in some([Intervals(None), over(tuple(x.shape), 3, 2, 1)], 1):
        out, _ = loop.forward(name, x, place)
        rows = lists(place, tuple(x.shape))
        flat = x.flatten(2)
        exact = torch.stack([torch.stack([formula(flat[n][:, c], -1) for c in cells], -1) for n, cells in rows])
        assert out.dtype == (torch.int64 if name == "sum" else dtype)
        assert torch.equal(out.flatten(2) if out.dim() > 2 else out[..., None], exact)
    nothing, _ = loop.forward(name, x, Labels(torch.full((1, 9, 11), -1), 1, whole=True))
    assert (nothing == {"max": low, "min": high, "sum": 0}[name]).all()


@pytest.mark.slow  # quick: test_limits.py
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 7, 63, 1000, 1024, 1025, 5000])
@pytest.mark.parametrize("name", slow_but(["mean", "max", "gem", "logsumexp", "std"], *DERIVED))
def test_long_maps(name, size, layout, pytestconfig):
    if name == "std" and size == 1:
        return
    torch.manual_seed(0)
    x = torch.rand(2, 3, size) + 0.1
    every = pytestconfig.getoption("--all-kernels")
    check(name, last(x) if layout == "channels_last" else x, Intervals(None), again=every)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", slow_but(["mean", "sum", "variance"]))
def test_a_million_positions(name, layout):
    torch.manual_seed(0)
    x = torch.rand(1, 2, 1024, 1024)
    exact = FORMULAS[name](x.double().flatten(2), None)
    plain = FORMULAS[name](x.flatten(2), None).double()
    given = (0.0,) if name == "variance" else ()
    ours = loop.forward(name, last(x) if layout == "channels_last" else x, Intervals(None), given)[0].double()
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + 2**-23 * exact.max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (7, 3, 3)])
@pytest.mark.parametrize("shape", [(2, 3, 17, 40), (2, 65, 14, 14), (1, 1, 7, 7), (1, 2, 130, 131)], ids=str)
def test_ties_nan_and_infinity(shape, rule, layout):
    torch.manual_seed(0)
    x = torch.randint(0, 3, shape).float()
    x[torch.rand(shape) < 0.05] = -math.inf
    x[torch.rand(shape) < 0.02] = math.inf
    x[0, 0, 2:5] = -math.inf
    x = last(x) if layout == "channels_last" else x
    place = over(shape, *rule)
    out, kept = loop.forward("max", x, place, (), True)
    y = x.clone().contiguous().requires_grad_()
    exact = F.max_pool2d(y, *rule)
    g = torch.randn(out.shape)
    exact.backward(g)
    assert torch.equal(out, exact)
    dx, _ = loop.backward("max", g, None, None, kept, x.shape, place)
    assert dx is not None
    torch.testing.assert_close(dx, y.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", slow_but(["max", "min", "mean", "gem", "softmax", "logsumexp", "l2"], *DERIVED))
def test_nan_wins_in_windows(name, layout):
    torch.manual_seed(0)
    for rule in ((3, 2, 1), (2, 2, 0), (3, 1, 1), (7, 3, 3)):
        for shape in ((2, 3, 17, 40), (2, 65, 14, 14), (1, 1, 7, 7), (1, 2, 130, 131)):
            x = torch.randint(0, 3, shape).float()
            x[0, 0, 3, 3] = math.nan
            x = last(x) if layout == "channels_last" else x
            given = () if name not in PARAMETER else (PARAMETER[name],)
            out, _ = loop.forward(name, x, over(shape, *rule), given)
            met = F.max_pool2d((x.isnan()).float().contiguous(), *rule) > 0
            assert torch.equal(out.isnan(), met)


@pytest.mark.parametrize("name", slow_but(["softmax", "logsumexp", "gem"]))
def test_infinite_values(name):
    x = torch.tensor([[[1.0, math.inf, 2.0, 3.0], [-math.inf, -math.inf, 1.0, 0.0], [-math.inf] * 4]])
    for y in (x, last(x), x.repeat(1, 20, 1)):
        out, _ = loop.forward(name, y, Intervals(None), ({"softmax": 1.0, "logsumexp": 2.0, "gem": 3.0}[name],))
        assert out[0, 0] == math.inf
        if name == "softmax":
            assert out[0, 1] == pytest.approx(math.e / (1 + math.e))
        if name == "logsumexp":
            assert out[0, 2] == -math.inf


@pytest.mark.parametrize("layout", LAYOUTS)
def test_divisors(layout):
    x = torch.randn(2, 9, 12, 15)
    x = last(x) if layout == "channels_last" else x
    for ceil in (False, True):
        axes = tuple(window(n, 3, 2, 1, overhang=ceil) for n in (12, 15))
        for divisor, counted, number in (("padded", True, None), ("positions", False, None), (7, True, 7)):
            out, kept = loop.forward("mean", x, Intervals(axes, divisor), (), True)
            y = x.clone().requires_grad_()
            exact = F.avg_pool2d(y, 3, 2, 1, ceil_mode=ceil, count_include_pad=counted, divisor_override=number)
            torch.testing.assert_close(out, exact)
            exact.sum().backward()
            dx, _ = loop.backward("mean", torch.ones_like(out), None, None, kept, x.shape, Intervals(axes, divisor))
            torch.testing.assert_close(dx, y.grad)
        out, _ = loop.forward("mean", x, Intervals(axes, "window"))
        full = F.avg_pool2d(x, 3, 2, 1, ceil_mode=ceil, divisor_override=9)
        torch.testing.assert_close(out, full)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", slow_but(name for name in FORMULAS if POOLS[name].weighted))
def test_weights(name, layout):
    torch.manual_seed(0)
    x = torch.rand(2, 35, 6, 9, dtype=torch.float64) + 0.1
    w = torch.rand(2, 6, 9)
    w[0, :3] = 0
    x[0, :, 0] = math.nan  # is not looked at
    p = PARAMETER.get(name)

    def formula(x: Tensor) -> Tensor:
        v = torch.where(w[:, None] > 0, x, 1.0).flatten(2)
        u = w.double().flatten(1)[:, None]
        n = u.sum(-1)
        if name in ("mean", "sum"):
            return (u * v).sum(-1) / (n if name == "mean" else 1)
        if name == "gem":
            return ((u * v**p).sum(-1) / n) ** (1 / p)
        if name in ("l2", "lp"):
            return (u * v ** (p or 2)).sum(-1) ** (1 / (p or 2))
        if name == "logsumexp":
            return ((u * (p * v).exp()).sum(-1) / n).log() / p
        if name == "softmax":
            e = u * (p * v).exp()
            return (v * e).sum(-1) / e.sum(-1)
        mean = (u * v).sum(-1, keepdim=True) / n[..., None]
        spread = (u * (v - mean) ** 2).sum(-1) / n
        return spread.sqrt() if name == "std" else spread

    y = x.clone().requires_grad_()
    exact = formula(y)
    g = torch.randn(2, 35)
    (wanted,) = torch.autograd.grad(exact, y, g.double())
    given = () if p is None else (p,)
    z = x.float()
    z = last(z) if layout == "channels_last" else z
    out, kept = loop.forward(name, z, PositionWeights(w), given, True)
    torch.testing.assert_close(out.double(), exact.detach(), rtol=2e-6, atol=1e-6)
    dx, _ = loop.backward(name, g, z, out, kept, z.shape, PositionWeights(w), given)
    assert dx is not None
    torch.testing.assert_close(dx.double(), wanted, rtol=1e-5, atol=1e-6)


GRID = Intervals((Cells(2, 6), Cells(3, 7)))


@pytest.mark.slow  # quick: tuned/test_whole.py
@pytest.mark.parametrize(
    ("place", "learned"),
    [
        (GRID, False),
        *(pytest.param(p, True, marks=pytest.mark.slow) for p in (Intervals(None), over((3, 37, 6, 7), 3, 2, 1), GRID)),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_per_channel_and_image(layout, place, learned, pytestconfig):
    torch.manual_seed(0)
    x = torch.rand(3, 37, 6, 7) + 0.1
    x = last(x) if layout == "channels_last" else x
    for p in (torch.tensor(2.2), torch.rand(37) + 1, torch.rand(3, 37) + 1, torch.rand(1, 37) + 1):
        check("gem", x, place, p, learned, again=pytestconfig.getoption("--all-kernels"))


@pytest.mark.parametrize("name", slow_but(["max", "gem"], *DERIVED))
def test_nothing(name):
    given, learned = ((3.0,), True) if name == "gem" else ((), False)
    for shape in ((0, 3, 5, 5), (2, 0, 5, 5)):
        for place in (Intervals(None), over(shape, 3, 2, 1)):
            out, kept = loop.forward(name, torch.rand(shape), place, given, True)
            assert out.numel() == 0
            dx, dp = loop.backward(name, out, torch.rand(shape), out, kept, shape, place, given, learned)
            assert dx.shape == shape
            assert (dp is None) if not learned else (dp.shape == shape[:2])


def test_no_rectangles():
    none = torch.zeros(0, 2, dtype=torch.long)
    x, place = torch.rand(2, 3, 5, 5), Rectangles(torch.zeros(0, dtype=torch.long), (none, none), (none, none))
    out, kept = loop.forward("max", x, place, (), True)
    assert out.shape == (0, 3, 2, 2)
    dx, _ = loop.backward("max", out, None, None, kept, x.shape, place)
    assert dx is not None
    assert not dx.any()


def test_strides_of_its_own():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 10, 12)
    for view in (
        x[:, ::2],
        x[..., ::3],
        x.transpose(2, 3),
        x[:, 1:4].contiguous(memory_format=torch.channels_last)[..., 1:],
    ):
        out, _ = loop.forward("max", view, over(tuple(view.shape), 3, 2, 1))
        assert torch.equal(out, F.max_pool2d(view, 3, 2, 1))
        assert torch.allclose(loop.forward("mean", view, Intervals(None))[0], view.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("name", slow_but(["max", "gem"], *DERIVED))
def test_any_number_of_threads_gives_the_same(name):
    torch.manual_seed(0)
    before = torch.get_num_threads()
    found = []
    x = torch.rand(8, 70, 28, 28)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            one = []
            for y in (x, last(x)):
                for place in (Intervals(None), over(tuple(x.shape), 3, 2, 1), Intervals((Cells(5, 28), Cells(5, 28)))):
                    given, learned = ((3.3,), True) if name == "gem" else ((), False)
                    out, kept = loop.forward(name, y, place, given, True)
                    one += [out, *loop.backward(name, out, y, out, kept, x.shape, place, given, learned)]
            found.append(one)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(a is b or torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_several_python_threads_at_once():
    torch.manual_seed(0)
    x = torch.rand(4, 64, 28, 28)
    place = over(tuple(x.shape), 3, 1, 1)
    wanted = {name: loop.forward(name, x, place)[0] for name in ("max",)}
    wrong = []

    def work(name: str) -> None:
        for _ in range(30):
            if not torch.equal(loop.forward(name, x, place)[0], wanted[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in wanted for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


CODE = """
import sys, torch
from gapstone.loops import compiled
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals
assert 'numba' not in sys.modules
x = torch.arange(60.).reshape(1, 3, 4, 5) / 60
from gapstone.loops import kernels
emit, emitted = kernels.emit, []
kernels.emit = lambda function, name: emitted.append(name) or emit(function, name)
for name, given in (('gem', (2.5,)), ('mean', ()), ('max', ())):
    print(compiled.forward(PoolCall.of(POOLS[name], x, Intervals(None), given), x)[0].tolist())
print(len(emitted))
"""


def run(code: str, **environment: str) -> str:
    known = {**os.environ, "PYTHONPATH": SOURCE, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=known).stdout


@pytest.mark.slow  # test_kernel_cache.py looks at tuned ones
def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    first = run(CODE, GAPSTONE_CACHE=str(tmp_path)).splitlines()
    second = run(CODE, GAPSTONE_CACHE=str(tmp_path)).splitlines()
    assert first[:3] == second[:3]
    assert len(set(first[:3])) == 3
    assert (first[3], second[3]) == ("3", "0")


MIXED = """
import sys, torch, gapstone as gs
x = torch.arange(600.).reshape(2, 3, 10, 10).sin() + 2
for call in sys.argv[1].split(","):
    name, dtype = call.split()
    print(call, gs.pool(x.to(getattr(torch, dtype)), name, gs.Window(3, 1, 1)).double().sum().item())
"""


@pytest.mark.slow
def test_kernels_of_several_processes_in_one(tmp_path):
    """Each compiled in a process of its own, then all loaded into one: their helpers' symbols must not be mixed up.

    Before every helper carried its kernel's hash in its name, a max was computed by a mean's code here.
    """
    calls = [f"{name} {dtype}" for name in ("mean", "max") for dtype in ("float32", "float64")]

    def ask(*some: str) -> list[str]:
        return run(
            f"import sys; sys.argv = ['', {','.join(some)!r}]\n{MIXED}", GAPSTONE_CACHE=str(tmp_path)
        ).splitlines()

    alone = [ask(call)[0] for call in calls]
    x = torch.arange(600.0).reshape(2, 3, 10, 10).sin() + 2
    for answer, call in zip(alone, calls, strict=True):
        theirs = F.max_pool2d(x, 3, 1, 1) if "max" in call else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        assert float(answer.split()[-1]) == pytest.approx(theirs.double().sum().item(), rel=1e-6)
    assert ask(*calls) == alone
    assert ask(*reversed(calls)) == alone[::-1]


FORK = """
import torch
from gapstone.loops import compiled
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals
from torch.utils.data import DataLoader, Dataset
x = torch.rand(4, 64, 56, 56)
class Maps(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return largest(x[i:i + 1])[0]
def largest(x): return compiled.forward(PoolCall.of(POOLS['max'], x, Intervals(None)), x)[0]
wanted = largest(x)
found = torch.cat(list(DataLoader(Maps(), 2, num_workers=2, multiprocessing_context='fork')))
assert torch.equal(found, wanted)
print('fine')
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_in_forked_workers():
    assert run(FORK).strip() == "fine"


def test_what_is_refused_says_why():
    assert "float64" in (loop.refuses("gem", torch.float64, Intervals(None)) or "")
    assert "list" in (loop.refuses("topk", torch.float32, Intervals(None)) or "")
    assert loop.refuses("mean", torch.complex64, Intervals(None))
    assert loop.refuses("mean", torch.int32, Intervals(None))
    assert loop.refuses("max", torch.float32, PositionWeights(torch.ones(1, 2)))
    assert loop.refuses("max", torch.float32, Sampled(torch.zeros(1), (), Intervals(None)))
