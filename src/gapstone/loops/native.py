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

from gapstone.regions.places import Boxes, Cells, Place, Windows

# avg_pool2d adds one after another: over 1024 x 1024 in float32 it is off by 2.9e-5, the mean by 1.5e-7
LARGEST_MEAN = 1024

SMALL_GRID = 1 << 16
"""Numbers of a contiguous map below which lists of positions take longer to begin than torch to end."""

Kernels = dict[int, Callable[..., Any]]

MAX_WINDOW: Kernels = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MAX_GRID: Kernels = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
MEAN_WINDOW: Kernels = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MEAN_GRID: Kernels = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def knows(name: str, x: Tensor, place: Place) -> str | None:
    """torch's kernel for this pool over this place, where it has one that is right."""
    if not isinstance(place, Boxes) or not x.is_floating_point():
        return None
    if place.axes is None:
        return "torch's own reduction" if name in ("mean", "sum", "max", "min") else None
    if name not in ("max", "mean") or 0 in x.shape:
        return None
    if x.dim() == 5 and x.dtype.itemsize == 2 and x.device.type == "cpu":
        return None  # torch has no mean of these
    if all(type(axis) is Cells for axis in place.axes):
        return f"torch's adaptive_{name}_pool"
    for axis, length in zip(place.axes, x.shape[2:], strict=True):
        if type(axis) is not Windows or axis.step > 1 or axis.before != axis.after or 2 * axis.before > axis.size:
            return None
        if name == "mean" and x.dim() == 5 and axis.size > length:
            return None  # torch's avg_pool3d refuses a window longer than the map, padded or not
    if name == "max":
        return "torch's max_pool"
    plain = place.divisor in ("positions", "padded")
    return "torch's avg_pool" if plain and prod(axis.most for axis in place.axes) <= LARGEST_MEAN else None


def last_nan(name: str, place: Place, keep: bool) -> bool:
    """torch's max over windows and grids gives the gradient to the last NaN; the contract says the first."""
    return keep and name == "max" and isinstance(place, Boxes) and place.axes is not None


def serves(name: str, x: Tensor, place: Place, keep: bool = False) -> str | None:
    """Why torch's kernel is the one to take; None where it has none, or not the best."""
    known = knows(name, x, place)
    if known is None or x.device.type != "cpu":
        return known
    assert isinstance(place, Boxes)
    if last_nan(name, place, keep):
        return None
    if place.axes is None:
        return f"{known} is at the memory's limit"
    # contiguous maps: the compiled loop is 2.5-12x faster; channels-last: torch is 1-5x, but for means in 3-d (0.2x)
    formats = {4: torch.channels_last} if name == "mean" else {4: torch.channels_last, 5: torch.channels_last_3d}
    by_channels = x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()]) and not x.is_contiguous()
    if all(type(axis) is Cells for axis in place.axes):
        if torch.compiler.is_compiling() or x.dim() != 4 or x.dtype != torch.float32:
            return None
        # ours: 0.2-1.3x torch's by channels, 0.3-0.6x where small, 0.8-8.7x otherwise
        exact = prod(axis.most for axis in place.axes) <= LARGEST_MEAN
        return f"{known}, of channels-last or small maps" if exact and (by_channels or x.numel() < SMALL_GRID) else None
    if not by_channels or not all(type(axis) is Windows for axis in place.axes):
        return None
    return f"{known}, of channels-last maps"


def forward(name: str, x: Tensor, place: Boxes) -> Tensor:
    return prepared(name, place, tuple(x.shape[2:]))(x)


def prepared(name: str, place: Boxes, sizes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """torch's function of maps of these sizes."""
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
    kernel, given = MAX_WINDOW[spatial], (size, stride, padding, 1, more)
    if name == "mean":
        kernel, given = MEAN_WINDOW[spatial], (size, stride, padding, more, place.divisor == "padded")
    if not more:  # torch's own count of windows is ours
        return lambda x: kernel(x, *given)
    return lambda x: kernel(x, *given)[(..., *(slice(n) for n in cells))]
