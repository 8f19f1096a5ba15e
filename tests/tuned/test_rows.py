"""The tuned kernels of contiguous windows: against torch's pools, bit for bit where nothing is rounded."""

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gapstone as gs
from gapstone.loops.tuned import dispatch as tuned
from gapstone.loops.tuned import launch_rows
from gapstone.regions.places import Intervals
from tests.guarded import guarded
from tests.loops_by_name import ByName
from tests.marks import slow_but

dispatch = ByName(tuned)

# kernel, stride, padding: what networks run, then the odd ones
RUN = [(3, 2, 1), (2, 2, 0), (3, 1, 1)]
ODD = [((3, 2), (1, 2), (1, 0)), (5, 1, 2)]
MORE = [((2, 3), (2, 1), (0, 1)), (3, 2, 0), (1, 2, 0), (9, 1, 4), (13, 1, 6)]
SIZES = [(28, 28), (7, 7), (14, 15), (40, 33), (65, 19), (3, 3), (17, 70), (1, 40)]
MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def pairs(value, axes=2):
    return value if isinstance(value, tuple) else (value,) * axes


def place_of(shape, k, s, p, ceil_mode=False, divisor="positions") -> Intervals:
    axes = len(shape) - 2
    sides = tuple((n, n) for n in pairs(p, axes))
    return gs.Window(pairs(k, axes), pairs(s, axes), sides, 1, ceil_mode, divisor).place(shape)


def fits(size, k, p):
    return all(n + 2 * b >= a for n, a, b in zip(size, pairs(k), pairs(p), strict=True))


def cases(rules, sizes=SIZES):
    for (k, s, p), size, ceil_mode in itertools.product(rules, sizes, (False, True)):
        if fits(size, k, p):
            yield (2, 3, *size), k, s, p, ceil_mode


def map_of(shape, seed=0) -> Tensor:
    """Ties, infinities, and a plane of −∞ alone."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    x[0, -1] = -math.inf
    x[-1, 0].view(-1)[::5] = -math.inf
    x[-1, 0].view(-1)[2::7] = math.inf
    return x


def with_nan(x: Tensor, k, s, p) -> tuple[Tensor, Tensor]:
    """torch's maxima, and their positions: of several NaN in a window the first, where torch has the last."""
    pooled = MAXIMA[x.dim() - 2]
    right, at = pooled(x, k, s, p, return_indices=True)
    met, first = pooled(x.isnan().float(), k, s, p, return_indices=True)
    return right, torch.where(met > 0, first, at)


def decoded(place: Intervals, kept: Tensor, shape) -> Tensor:
    return dispatch.positions(shape, place, kept, "max")


@pytest.mark.parametrize("rule", slow_but([*RUN, *ODD, *MORE], RUN[0], ODD[0]), ids=str)
def test_maxima_positions_and_gradients_are_torchs(rule, tried):
    for shape, k, s, p, ceil_mode in cases([rule]):
        x = map_of(shape).requires_grad_()
        place = place_of(shape, k, s, p, ceil_mode)
        right, at = F.max_pool2d(x, k, s, p, 1, ceil_mode, True)
        value, nothing = launch_rows.forward("max", x.detach(), place)
        out, (kept,) = launch_rows.forward("max", x.detach(), place, True)
        assert nothing == []
        assert torch.equal(value, right)
        assert torch.equal(out, right)
        assert kept.dtype == torch.uint8
        assert torch.equal(decoded(place, kept, shape), at)
        g = torch.randn(right.shape)
        (dx,) = torch.autograd.grad(right, x, g)
        torch.testing.assert_close(launch_rows.backward("max", g, kept, shape, place), dx, rtol=1e-5, atol=1e-5)
        tried["tuned windows agree with torch's"] += 1


@pytest.mark.parametrize("rule", slow_but([*RUN, ODD[0], *MORE], RUN[0]), ids=str)
def test_means_and_gradients(rule, tried):
    for shape, k, s, p, ceil_mode in cases([rule]):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for divisor in ("positions", "padded", 7):
            other = divisor if divisor == 7 else None
            place = place_of(shape, k, s, p, ceil_mode, divisor)
            exact = x.double()
            right = F.avg_pool2d(exact, k, s, p, ceil_mode, divisor == "padded", other)
            theirs = F.avg_pool2d(x, k, s, p, ceil_mode, divisor == "padded", other)
            out, kept = dispatch.forward("mean", x.detach(), place, keep=True)
            assert kept == []  # the gradient needs nothing
            assert torch.equal(out, dispatch.forward("mean", x.detach(), place)[0])
            ulp = torch.finfo(torch.float32).eps
            off, allowed = (out - right).abs().max(), 2 * (theirs - right).abs().max() + ulp * right.abs().max()
            assert off <= allowed
            g = torch.randn(right.shape)
            (dx,) = torch.autograd.grad(right, x, g.double())
            found = launch_rows.backward("mean", g, None, shape, place)
            torch.testing.assert_close(found, dx, rtol=1e-5, atol=1e-6)
            tried["tuned windows agree with torch's"] += 1


@pytest.mark.parametrize("rule", slow_but(RUN, RUN[0]), ids=str)
@pytest.mark.parametrize("seen", ["first", "last", "everywhere"])
def test_nan_wins_and_takes_the_gradient_first(rule, seen):
    for size in ((28, 28), (7, 7), (40, 33)):
        shape = (2, 3, *size)
        x = map_of(shape, 2)
        if seen == "everywhere":
            x[torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.1] = math.nan
        else:
            x.view(-1)[0 if seen == "first" else -1] = math.nan
        place = place_of(shape, *rule)
        right, first = with_nan(x, *rule)
        out, (kept,) = launch_rows.forward("max", x, place, True)
        value, _ = launch_rows.forward("max", x, place)
        for found in (out, value):
            assert torch.equal(found.isnan(), right.isnan())
            assert torch.equal(found.nan_to_num(), right.nan_to_num())
        assert torch.equal(decoded(place, kept, shape), first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
def test_halves(dtype, some):
    for (k, s, p), size in itertools.product(some(RUN, 1), some([(28, 28), (7, 7)], 1)):
        shape = (2, 3, *size)
        x = map_of(shape).to(dtype).requires_grad_()
        place = place_of(shape, k, s, p)
        right = F.max_pool2d(x, k, s, p)
        out, (kept,) = launch_rows.forward("max", x.detach(), place, True)
        assert out.dtype == dtype
        assert torch.equal(out, right)
        assert torch.equal(launch_rows.forward("max", x.detach(), place)[0], right)
        g = torch.randn(right.shape).to(dtype)
        exact = x.detach().float().requires_grad_()
        (dx,) = torch.autograd.grad(F.max_pool2d(exact, k, s, p), exact, g.float())
        # sums in float32, rounded once
        assert torch.equal(launch_rows.backward("max", g, kept, shape, place), dx.to(dtype))
        y = torch.randn(shape).to(dtype)
        mean, _ = launch_rows.forward("mean", y, place)
        torch.testing.assert_close(
            mean.float(),
            F.avg_pool2d(y.float(), k, s, p, count_include_pad=False),
            rtol=torch.finfo(dtype).eps,
            atol=1e-6,
        )


@pytest.mark.slow  # quick: test_pixels.py
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
def test_bytes(dtype):
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    for (k, s, p), size in itertools.product(RUN, ((28, 28), (7, 150))):
        x = torch.randint(low, high + 1, (2, 3, *size)).to(dtype)
        x[0, 0] = low
        out, _ = launch_rows.forward("max", x, place_of(x.shape, k, s, p))
        assert out.dtype == dtype
        assert torch.equal(out.int(), F.max_pool2d(x.float(), k, s, p).int())


OTHER_AXES = [((2, 3, 100), 3, 1, 1), ((1, 2, 4, 16, 18), 2, 2, 0), ((3, 2, 17), 2, 2, 0), ((2, 3, 9, 11, 13), 3, 2, 1)]


@pytest.mark.slow  # quick: test_pixels.py
def test_one_and_three_dimensions():
    for shape, k, s, p in OTHER_AXES:
        x = torch.randn(shape).requires_grad_()
        axes = len(shape) - 2
        place = place_of(shape, k, s, p)
        g = torch.randn(MAXIMA[axes](x, k, s, p).shape)
        for values in (x, x.detach().round().requires_grad_(), map_of(shape).requires_grad_()):  # ties, −∞
            right, at = MAXIMA[axes](values, k, s, p, return_indices=True)
            assert torch.equal(launch_rows.forward("max", values.detach(), place)[0], right)
            out, (kept,) = launch_rows.forward("max", values.detach(), place, True)
            assert torch.equal(out, right)
            assert torch.equal(decoded(place, kept, shape), at)
            (dx,) = torch.autograd.grad(right, values, g)
            torch.testing.assert_close(launch_rows.backward("max", g, kept, shape, place), dx)
        nan = x.detach().clone()
        nan.view(-1)[::11] = math.nan
        kept = launch_rows.forward("max", nan, place, True)[1][0]
        assert torch.equal(decoded(place, kept, shape), with_nan(nan, k, s, p)[1])


@pytest.mark.slow
def test_means_in_one_and_three_dimensions():
    for shape, k, s, p in OTHER_AXES:
        x, place = torch.randn(shape).requires_grad_(), place_of(shape, k, s, p)
        mean = MEANS[len(shape) - 2](x, k, s, p, count_include_pad=False)
        torch.testing.assert_close(launch_rows.forward("mean", x.detach(), place)[0], mean, rtol=1e-5, atol=1e-6)
        g = torch.randn(mean.shape)
        (dx,) = torch.autograd.grad(mean, x, g)
        torch.testing.assert_close(launch_rows.backward("mean", g, None, shape, place), dx, rtol=1e-5, atol=1e-6)


def test_threads_and_bands_change_nothing(some):
    """Maps large enough to be cut into bands of rows, and an odd number of planes that share registers."""
    before = torch.get_num_threads()
    try:
        for shape in ((3, 5, 130, 131), (3, 5, 7, 7), (1, 1, 200, 300)):
            x = map_of(shape)
            for rule in some(RUN, 1):
                place = place_of(shape, *rule)
                torch.set_num_threads(1)
                one, (at,) = launch_rows.forward("max", x, place, True)
                g = torch.randn(one.shape)
                dx = launch_rows.backward("max", g, at, shape, place)
                leaf = x.clone().requires_grad_()
                right = F.max_pool2d(leaf, *rule)
                assert torch.equal(one, right)
                torch.testing.assert_close(dx, torch.autograd.grad(right, leaf, g)[0], rtol=1e-5, atol=1e-5)
                torch.set_num_threads(2)
                two, (at2,) = launch_rows.forward("max", x, place, True)
                assert torch.equal(one, two)
                assert torch.equal(at, at2)
                assert torch.equal(dx, launch_rows.backward("max", g, at, shape, place))
    finally:
        torch.set_num_threads(before)


def test_into_an_existing_tensor():
    x = torch.randn(2, 3, 28, 28)
    place = place_of(x.shape, 3, 2, 1)
    out = torch.full((2, 3, 14, 14), math.nan)
    found, _ = dispatch.forward("max", x, place, out=out)
    assert found is out
    assert torch.equal(out, F.max_pool2d(x, 3, 2, 1))
    for wrong in (torch.empty(2, 3, 14, 13), torch.empty(2, 3, 14, 14).double(), torch.empty(2, 3, 28, 14)[:, :, ::2]):
        with pytest.raises(ValueError, match="out"):
            dispatch.forward("max", x, place, out=wrong)


def look(dtype: torch.dtype, rules: list[Any]) -> None:
    """Nothing outside the map is read, nothing outside the answer written: pages beside them may not be touched."""
    for (k, s, p), size, at_end in itertools.product(rules, [(7, 7), (5, 16), (28, 28), (3, 33)], (True, False)):
        x, kept_alive = guarded(torch.randn(1, 3, *size).to(dtype), at_end)
        place = place_of(x.shape, k, s, p)
        right = F.max_pool2d(x.float(), k, s, p).to(dtype)
        out, more_alive = guarded(torch.empty_like(right), at_end)
        launch_rows.forward("max", x, place, out=out)
        assert torch.equal(out, right)
        launch_rows.forward("mean", x, place, out=out)
        _, (at,) = launch_rows.forward("max", x, place, True)
        at, alive = guarded(at, at_end)
        g, alive_too = guarded(torch.randn(right.shape).to(dtype), at_end)
        launch_rows.backward("max", g, at, tuple(x.shape), place)
        launch_rows.backward("mean", g, None, tuple(x.shape), place)
        del kept_alive, more_alive, alive, alive_too


@pytest.mark.parametrize("dtype", slow_but([torch.float32, torch.bfloat16], torch.float32), ids=str)
def test_nothing_outside_is_touched(dtype, some):
    rules = some([RUN[0], ODD[0], *RUN[1:]], 1)
    code = f"import torch; from tests.tuned import test_rows; test_rows.look({dtype}, {rules}); print('looked')"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout == "looked\n", run.stderr[-2000:]
