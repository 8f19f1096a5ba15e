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

Kernels = dict[int, Callable[..., Any]]

MAX_WINDOW: Kernels = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MAX_GRID: Kernels = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
MEAN_WINDOW: Kernels = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MEAN_GRID: Kernels = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def serves(name: str, x: Tensor, place: Place) -> str | None:
    """Why torch's kernel is the one to take; None where it has none, or not the best."""
    if not isinstance(place, Boxes) or not x.is_floating_point():
        return None
    if place.axes is None:
        if name in ("mean", "sum", "max", "min"):
            return "torch's own reduction is at the memory's limit"
        return None
    if name not in ("max", "mean") or 0 in x.shape:
        return None
    if x.device.type == "cpu":
        # contiguous maps: the compiled loop is 2.5-12x faster; channels-last: torch is 1-5x
        by_channels = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if not by_channels or not all(isinstance(axis, Windows) for axis in place.axes):
            return None
    if all(isinstance(axis, Cells) for axis in place.axes):
        return f"torch's adaptive_{name}_pool"
    if not all(isinstance(axis, Windows) for axis in place.axes):
        return None
    for axis in place.axes:
        assert isinstance(axis, Windows)
        if axis.step > 1 or axis.before != axis.after or 2 * axis.before > axis.size:
            return None
    if name == "max":
        return "torch's max_pool (on a CPU: of channels-last maps)"
    plain = place.divisor in ("positions", "padded")
    return (
        "torch's avg_pool (on a CPU: of channels-last maps)"
        if plain and prod(axis.most for axis in place.axes) <= LARGEST_MEAN
        else None
    )


def forward(name: str, x: Tensor, place: Boxes) -> Tensor:
    spatial = x.dim() - 2
    answer: Any
    if place.axes is None:
        flat = x.flatten(2)
        if name in ("mean", "sum"):
            # without flatten: channels-last stays as it is
            dims = tuple(range(2, x.dim()))
            answer = x.mean(dims) if name == "mean" else x.sum(dims)
        else:
            answer = (flat.max(-1) if name == "max" else flat.min(-1)).values
    elif isinstance(place.axes[0], Cells):
        cells = tuple(axis.cells for axis in place.axes)
        answer = (MAX_GRID if name == "max" else MEAN_GRID)[spatial](x, cells)
    else:
        windows = [axis for axis in place.axes if isinstance(axis, Windows)]
        size, stride = tuple(w.size for w in windows), tuple(w.stride for w in windows)
        padding = tuple(w.before for w in windows)
        floor = [(n + 2 * w.before - w.size) // w.stride + 1 for n, w in zip(x.shape[2:], windows, strict=True)]
        more = any(w.cells > f for w, f in zip(windows, floor, strict=True))
        if name == "max":
            answer = MAX_WINDOW[spatial](x, size, stride, padding, ceil_mode=more)
        else:
            answer = MEAN_WINDOW[spatial](
                x, size, stride, padding, ceil_mode=more, count_include_pad=place.divisor == "padded"
            )
        cells = tuple(w.cells for w in windows)
        answer = answer[(..., *(slice(n) for n in cells))]
    assert isinstance(answer, Tensor)
    return answer
