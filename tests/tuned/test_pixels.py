"""The tuned kernels of channels-last windows: against torch's pools, bit for bit where nothing is rounded."""

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
from gapstone.loops.tuned import launch_pixels
from gapstone.loops.tuned.window_support import MASKED_BYTES
from tests.guarded import guarded
from tests.loops_by_name import ByName
from tests.marks import slow_but
from tests.tuned.test_rows import MAXIMA, MEANS, decoded, fits, map_of, place_of, with_nan

dispatch = ByName(tuned)

# kernel, stride, padding: what networks run, then the odd ones
RUN = [(3, 2, 1), (2, 2, 0), (3, 1, 1)]
MORE = [((3, 2), (1, 2), (1, 0)), (5, 1, 2), ((2, 3), (2, 1), (0, 1)), (3, 2, 0), (1, 2, 0), (2, 3, 0), (7, 1, 3)]
SIZES = [(7, 7), (14, 14), (65, 19), (1, 40), (2, 3)]
CHANNELS = [1, 3, 5, 16, 17, 33, 64]


def last(x: Tensor) -> Tensor:
    """The same map, channels last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def near(found: Tensor, exact: Tensor, plain: Tensor) -> None:
    """Off by at most twice what torch is in that type, and a unit in the last place."""
    off, theirs = (found - exact).abs().max(), (plain - exact).abs().max()
    assert off <= 2 * theirs + torch.finfo(found.dtype).eps * exact.abs().max(), (off, theirs)


def cases(rule, channels, sizes=SIZES):
    for count, size, ceil_mode in itertools.product(channels, sizes, (False, True)):
        if fits(size, rule[0], rule[2]):
            yield (2, count, *size), ceil_mode


def check_max(shape, k, s, p, ceil_mode=False, dtype=torch.float32) -> None:
    """Values, positions, gradients are torch's."""
    x = map_of(shape).to(dtype)
    place = place_of(shape, k, s, p, ceil_mode)
    exact = x.float().requires_grad_()
    right, at = F.max_pool2d(exact, k, s, p, 1, ceil_mode, True)
    value, nothing = launch_pixels.forward("max", last(x), place)
    out, (kept,) = launch_pixels.forward("max", last(x), place, True)
    assert nothing == []
    for found in (value, out):
        assert found.dtype == dtype
        assert launch_pixels.by_channels(found)
        assert torch.equal(found.float(), right)
    assert kept.dtype == torch.uint8
    assert launch_pixels.by_channels(kept)
    assert torch.equal(decoded(place, kept, shape), at)
    g = torch.randn(right.shape).to(dtype)
    (theirs,) = torch.autograd.grad(right, exact, g.float())
    exact = exact.detach().double().requires_grad_()
    (dx,) = torch.autograd.grad(F.max_pool2d(exact, k, s, p, 1, ceil_mode), exact, g.double())
    found = launch_pixels.backward("max", g, [kept], shape, place, dtype)
    assert launch_pixels.by_channels(found)
    near(found, dx, theirs.to(dtype))  # sums in float32, rounded once


def check_mean(x, k, s, p, ceil_mode=False, divisor="positions") -> None:
    shape, dtype, other = tuple(x.shape), x.dtype, divisor if isinstance(divisor, int) else None
    place = place_of(shape, k, s, p, ceil_mode, divisor)
    exact, plain = x.double().requires_grad_(), x.clone().requires_grad_()
    right, theirs = (F.avg_pool2d(y, k, s, p, ceil_mode, divisor == "padded", other) for y in (exact, plain))
    out, kept = launch_pixels.forward("mean", last(x), place)
    assert kept == []
    near(out, right, theirs)
    g = torch.randn(right.shape).to(dtype)
    (dx,), (their_dx,) = (torch.autograd.grad(y, z, g.to(y.dtype)) for y, z in ((right, exact), (theirs, plain)))
    near(launch_pixels.backward("mean", g, [], shape, place, dtype), dx, their_dx)


@pytest.mark.parametrize("rule", slow_but([*RUN, *MORE], RUN[0]), ids=str)
def test_maxima_positions_and_gradients_are_torchs(rule, tried):
    channels, sizes = ([17, 64] if rule in RUN[:2] else CHANNELS), (SIZES[:3] if rule in RUN else SIZES)
    for shape, ceil_mode in cases(rule, channels, sizes):
        check_max(shape, *rule, ceil_mode)
        tried["tuned channels-last windows agree with torch's"] += 1


@pytest.mark.slow
@pytest.mark.parametrize("rule", RUN, ids=str)
def test_all_channels_and_sizes(rule):
    for shape, ceil_mode in cases(rule, CHANNELS):
        check_max(shape, *rule, ceil_mode)


@pytest.mark.parametrize("rule", slow_but([RUN[0], RUN[2], *MORE], RUN[0]), ids=str)
def test_means_and_gradients(rule, tried):
    for (shape, ceil_mode), divisor in itertools.product(cases(rule, [17, 64], SIZES[:3]), ("positions", "padded", 7)):
        check_mean(torch.randn(shape), *rule, ceil_mode, divisor)
        tried["tuned channels-last windows agree with torch's"] += 1


@pytest.mark.slow
@pytest.mark.parametrize("k", [9, 13])
def test_large_windows(k):
    for shape in ((2, 32, 20, 20), (1, 20, 13, 5)):
        check_max(shape, k, 1, k // 2)


@pytest.mark.slow  # quick: contract/test_compiled_loop.py
@pytest.mark.parametrize(
    ("k", "padding", "dilation"),
    [
        (2, ((0, 1), (0, 1)), 1),
        pytest.param(3, 1, 2, marks=pytest.mark.slow),
        pytest.param((3, 2), ((2, 0), (0, 1)), 1, marks=pytest.mark.slow),
    ],
)
def test_dilation_and_uneven_padding(k, padding, dilation):
    """torch has no uneven padding: its pool of the padded map."""
    (top, bottom), (left, right) = padding if isinstance(padding, tuple) else ((padding,) * 2,) * 2
    for size in ((14, 15), (7, 9)):
        x = torch.randn(2, 17, *size).round(decimals=1).requires_grad_()  # ties
        place = gs.Window(k, 1, padding, dilation).place(x.shape)
        padded = F.pad(x, (left, right, top, bottom), value=-math.inf)
        wanted, at = F.max_pool2d(padded, k, 1, 0, dilation, return_indices=True)
        at = (at // padded.shape[3] - top) * size[1] + at % padded.shape[3] - left
        out, (kept,) = launch_pixels.forward("max", last(x.detach()), place, True)
        assert torch.equal(out, wanted)
        assert torch.equal(decoded(place, kept, x.shape), at)
        assert torch.equal(launch_pixels.forward("max", last(x.detach()), place)[0], wanted)
        g = torch.randint(-9, 9, out.shape).float()  # sums without rounding
        found = launch_pixels.backward("max", g, [kept], tuple(x.shape), place, torch.float32)
        assert torch.equal(found, torch.autograd.grad(wanted, x, g)[0])


@pytest.mark.parametrize("seen", ["first", "last", "everywhere"])
def test_nan_wins_and_takes_the_gradient_first(seen):
    for shape in ((2, 17, 14, 14), (2, 17, 7, 7), (1, 17, 40, 33)):
        x = map_of(shape)
        if seen == "everywhere":
            x[torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.1] = math.nan
        else:
            x.view(-1)[0 if seen == "first" else -1] = math.nan
        place = place_of(shape, *RUN[2])
        right, first = with_nan(x, *RUN[2])
        out, (kept,) = launch_pixels.forward("max", last(x), place, True)
        value, _ = launch_pixels.forward("max", last(x), place)
        for found in (out, value):
            assert torch.equal(found.isnan(), right.isnan())
            assert torch.equal(found.nan_to_num(), right.nan_to_num())
        assert torch.equal(decoded(place, kept, shape), first)


def test_every_place_is_looked_at_for_nan():
    """A NaN anywhere reaches the answers, in blocks inside the map and at its edges."""
    for rule in (RUN[0], RUN[2]):
        place = place_of((1, 16, 9, 11), *rule)
        for y, u in itertools.product(range(9), range(11)):
            x = torch.zeros(1, 16, 9, 11)
            x[0, 3, y, u] = math.nan
            out, _ = launch_pixels.forward("max", last(x), place)
            assert torch.equal(out.isnan(), F.max_pool2d(x, *rule).isnan())


@pytest.mark.slow  # quick: test_rows.py
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves(dtype):
    for shape in ((2, 17, 14, 14), (2, 33, 65, 19)):
        check_max(shape, *RUN[2], dtype=dtype)
        check_mean(torch.randn(shape).to(dtype), *RUN[2])


@pytest.mark.slow  # quick: contract/test_compiled_loop.py
@pytest.mark.parametrize("dtype", [torch.uint8, pytest.param(torch.int8, marks=pytest.mark.slow)], ids=str)
def test_bytes(dtype):
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    masked = (3,) * (MASKED_BYTES or dtype == torch.int8)  # without AVX-512 a kernel that takes 20 s to compile
    for channels, rule in itertools.product((*masked, 70), (RUN[0],)):
        x = torch.randint(low, high + 1, (2, channels, 15, 28)).to(dtype)
        x[0, 0] = low
        out, _ = launch_pixels.forward("max", last(x), place_of(x.shape, *rule))
        assert out.dtype == dtype
        assert torch.equal(out.int(), F.max_pool2d(x.float(), *rule).int())


OTHER_AXES = [((2, 20, 40), (3, 1, 1)), pytest.param((2, 20, 5, 7, 9), (3, 2, 1), marks=pytest.mark.slow)]


@pytest.mark.slow  # quick: contract/test_compiled_loop.py
@pytest.mark.parametrize(("shape", "rule"), OTHER_AXES)
def test_one_and_three_dimensions(shape, rule):
    axes, place = len(shape) - 2, place_of(shape, *rule)
    for values in (torch.randn(shape), map_of(shape)):
        x = values.requires_grad_()
        right, at = MAXIMA[axes](x, *rule, return_indices=True)
        g = torch.randint(-9, 9, right.shape).float()
        out, (kept,) = launch_pixels.forward("max", last(x.detach()), place, True)
        assert torch.equal(out, right)
        assert torch.equal(decoded(place, kept, shape), at)
        (dx,) = torch.autograd.grad(right, x, g)
        found = launch_pixels.backward("max", g, [kept], shape, place, torch.float32)
        assert torch.equal(found, dx)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "rule"), OTHER_AXES)
def test_means_in_one_and_three_dimensions(shape, rule):
    place = place_of(shape, *rule)
    x = torch.randn(shape).requires_grad_()
    mean = MEANS[len(shape) - 2](x, *rule, count_include_pad=False)
    assert torch.equal(launch_pixels.forward("max", last(x.detach()), place)[0], MAXIMA[len(shape) - 2](x, *rule))
    torch.testing.assert_close(launch_pixels.forward("mean", last(x.detach()), place)[0], mean)
    g = torch.randn(mean.shape)
    (dx,) = torch.autograd.grad(mean, x, g)
    torch.testing.assert_close(launch_pixels.backward("mean", g, [], shape, place, torch.float32), dx)


def test_threads_and_bands_change_nothing(some):
    """Maps large enough to be cut into bands of rows."""
    before = torch.get_num_threads()
    try:
        for shape in ((1, 64, 130, 67), (3, 17, 14, 14)):
            x = last(map_of(shape))
            for rule in some(RUN, 1):
                place, found = place_of(shape, *rule), []
                leaf = x.clone().requires_grad_()
                right = F.max_pool2d(leaf, *rule)
                g = torch.randn(right.shape)
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    out, (kept,) = launch_pixels.forward("max", x, place, True)
                    dx = launch_pixels.backward("max", g, [kept], shape, place, x.dtype)
                    found.append((out, kept, dx))
                assert torch.equal(found[0][0], right)
                (dx,) = torch.autograd.grad(right, leaf, g)
                torch.testing.assert_close(found[0][2], dx, rtol=1e-5, atol=1e-5)
                assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    finally:
        torch.set_num_threads(before)


def test_into_an_existing_tensor():
    x = last(torch.randn(2, 17, 14, 14))
    place = place_of(x.shape, *RUN[2])
    out = torch.full_like(x, math.nan)
    found, _ = launch_pixels.forward("max", x, place, out=out)
    assert found is out
    assert torch.equal(out, F.max_pool2d(x, *RUN[2]))
    for wrong in (torch.empty_like(x)[:, :16], torch.empty_like(x).double(), torch.empty(2, 17, 14, 14)):
        with pytest.raises(ValueError, match="out"):
            launch_pixels.forward("max", x, place, out=wrong)
    with pytest.raises(ValueError, match="channels-last"):
        launch_pixels.forward("max", x.contiguous(), place)
    with pytest.raises(ValueError, match="shape"):
        launch_pixels.backward("max", out[..., 1:], [torch.zeros_like(out, dtype=torch.uint8)], x.shape, place, x.dtype)


def test_what_it_serves():
    x = last(torch.randn(2, 64, 28, 28))
    assert dispatch.serves("max", x, place_of(x.shape, 3, 2, 1))
    assert dispatch.serves("mean", x, place_of(x.shape, 3, 2, 1))
    assert dispatch.serves("max", x.byte(), place_of(x.shape, 3, 2, 1))
    assert bool(dispatch.serves("max", x[:, :3].byte(), place_of((2, 3, 28, 28), 3, 2, 1))) == MASKED_BYTES
    assert not dispatch.serves("max", x.double(), place_of(x.shape, 3, 2, 1))
    assert not dispatch.serves("max", x, place_of(x.shape, 17, 1, 8))
    assert not dispatch.serves("max", x, gs.Grid(7).place(x.shape))
    assert not dispatch.serves("mean", x[:1, :2], place_of((1, 2, 28, 28), 2, 2, 0))  # torch is done sooner


def look(rules: list[Any]) -> None:
    """Nothing outside the map is read, nothing outside the answer written: pages beside them may not be touched."""
    sizes = [(7, 7), (28, 28), (5, 16)]
    for (k, s, p), size, channels, at_end in itertools.product(rules, sizes, (17, 64), (True, False)):
        x, alive = guarded(last(torch.randn(1, channels, *size)), at_end)
        place = place_of(x.shape, k, s, p)
        right = F.max_pool2d(x, k, s, p)
        out, more_alive = guarded(torch.empty_like(right), at_end)
        launch_pixels.forward("max", x, place, out=out)
        assert torch.equal(out, right)
        if (k, s) != (2, 2):
            launch_pixels.forward("mean", x, place, out=out)
            launch_pixels.backward("mean", out, [], tuple(x.shape), place, x.dtype)
        _, (kept,) = launch_pixels.forward("max", x, place, True)
        kept, kept_alive = guarded(kept, at_end)
        launch_pixels.backward("max", out, [kept], tuple(x.shape), place, x.dtype)
        del alive, more_alive, kept_alive
    for channels, at_end in itertools.product((3, 5), (True, False)):
        x, alive = guarded(last(torch.randn(1, channels, 14, 14)), at_end)
        out, _ = launch_pixels.forward("max", x, place_of(x.shape, *rules[0]))
        assert torch.equal(out, F.max_pool2d(x, *rules[0]))
        del alive


def test_nothing_outside_is_touched(some):
    code = f"from tests.tuned import test_pixels; test_pixels.look({some(RUN, 1)}); print('looked')"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout == "looked\n", run.stderr[-2000:]
