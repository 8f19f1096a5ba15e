"""torch's own kernels for the places they know, where they are right and fast.

They take no notice of `lift` and `combine`; the contract tests hold them to the derived loops. Everything else, and
every state asked for by `partial`, is derived.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.loops.pool_call import PoolCall
from gapstone.regions.places import Cells, Intervals, Windows

# avg_pool2d adds one after another: over 1024 x 1024 in float32 it is off by 2.9e-5, the mean by 1.5e-7
LARGEST_MEAN = 1024

SMALL_GRID = 1 << 16
"""Numbers of a contiguous map below which lists of positions take longer to begin than torch to end."""

Kernels = dict[int, Callable[..., Any]]

MAX_WINDOW: Kernels = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MAX_GRID: Kernels = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
MEAN_WINDOW: Kernels = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MEAN_GRID: Kernels = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def knows(call: PoolCall) -> str | None:
    """torch's kernel for this pool over this place, where it has one that is right."""
    name, place, axes = call.name, call.place, len(call.shape) - 2
    if not isinstance(place, Intervals) or not call.is_floating_point:
        return None
    if place.axes is None:
        return "torch's own reduction" if name in ("mean", "sum", "max", "min") else None
    if name not in ("max", "mean") or 0 in call.shape:
        return None
    if axes == 3 and call.dtype.itemsize == 2 and call.device == "cpu":
        return None  # torch has no mean of these
    if all(type(axis) is Cells for axis in place.axes):
        return f"torch's adaptive_{name}_pool"
    for axis, length in zip(place.axes, call.spatial, strict=True):
        if type(axis) is not Windows or axis.step > 1 or axis.before != axis.after or 2 * axis.before > axis.size:
            return None
        if name == "mean" and axes == 3 and axis.size > length:
            return None  # torch's avg_pool3d refuses a window longer than the map, padded or not
    if name == "max":
        return "torch's max_pool"
    plain = place.divisor in ("positions", "padded")
    return "torch's avg_pool" if plain and prod(axis.most for axis in place.axes) <= LARGEST_MEAN else None


def last_nan(call: PoolCall) -> bool:
    """torch's max over windows and grids gives the gradient to the last NaN; the contract says the first."""
    place = call.place
    return call.requires_grad and call.name == "max" and isinstance(place, Intervals) and place.axes is not None


def serves(call: PoolCall) -> str | None:
    """Why torch's kernel is the one to take; None where it has none, or not the best."""
    known, name, place, axes = knows(call), call.name, call.place, len(call.shape) - 2
    if known is None or call.device != "cpu":
        return known
    assert isinstance(place, Intervals)
    if last_nan(call):
        return None
    if place.axes is None:
        return f"{known} is at the memory's limit"
    # contiguous maps: the compiled loop is 2.5-12x faster; channels-last: torch is 1-5x, but for means in 3-d (0.2x)
    by_channels = call.channels_last and (axes == 2 or (axes == 3 and name != "mean"))
    if all(type(axis) is Cells for axis in place.axes):
        if torch.compiler.is_compiling() or axes != 2 or call.dtype != torch.float32:
            return None
        # ours: 0.2-1.3x torch's by channels, 0.3-0.6x where small, 0.8-8.7x otherwise
        exact = prod(axis.most for axis in place.axes) <= LARGEST_MEAN
        return (
            f"{known}, of channels-last or small maps" if exact and (by_channels or call.numel < SMALL_GRID) else None
        )
    if not by_channels or not all(type(axis) is Windows for axis in place.axes):
        return None
    return f"{known}, of channels-last maps"


def forward(call: PoolCall, x: Tensor) -> Tensor:
    """The answers by torch's kernel."""
    return kernel(call)(x)


def kernel(call: PoolCall) -> Callable[[Tensor], Tensor]:
    """torch's function for a call that `knows` has a kernel for."""
    name, place, sizes = call.name, call.place, call.spatial
    assert isinstance(place, Intervals)
    dims, spatial = tuple(range(2, 2 + len(sizes))), len(sizes)
    if place.axes is None:
        # without flatten: channels-last stays as it is
        whole: dict[str, Callable[[Tensor], Tensor]] = {
            "mean": lambda x: x.mean(dims),
            "sum": lambda x: x.sum(dims),
            "max": lambda x: x.flatten(2).max(-1).values,
            "min": lambda x: x.flatten(2).min(-1).values,
        }
        return whole[name]
    cells = tuple(axis.cells for axis in place.axes)
    if isinstance(place.axes[0], Cells):
        adaptive = (MAX_GRID if name == "max" else MEAN_GRID)[spatial]
        return lambda x: adaptive(x, cells)
    windows = [axis for axis in place.axes if isinstance(axis, Windows)]
    size, stride = tuple(w.size for w in windows), tuple(w.stride for w in windows)
    padding = tuple(w.before for w in windows)
    floor = [(n + 2 * w.before - w.size) // w.stride + 1 for n, w in zip(sizes, windows, strict=True)]
    more = any(w.cells > f for w, f in zip(windows, floor, strict=True))
    pool, given = MAX_WINDOW[spatial], (size, stride, padding, 1, more)
    if name == "mean":
        pool, given = MEAN_WINDOW[spatial], (size, stride, padding, more, place.divisor == "padded")
    if not more:  # torch's own count of windows is ours
        return lambda x: pool(x, *given)
    return lambda x: pool(x, *given)[(..., *(slice(n) for n in cells))]
