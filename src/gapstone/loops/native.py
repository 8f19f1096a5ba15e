"""torch's own kernels for the boxes they know, where they are right: max and mean over windows and grids.

They take no notice of `lift` and `combine`; the contract tests hold them to the derived loop. Everything else,
and every state asked for by `partial`, is derived.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gapstone.regions.boxes import Axis

# avg_pool2d adds one after another: over 1024 x 1024 in float32 it is off by 2.9e-5, the mean by 1.5e-7
LARGEST_MEAN = 1024

Kernels = dict[int, Callable[..., Any]]

MAX_WINDOW: Kernels = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MAX_GRID: Kernels = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
MEAN_WINDOW: Kernels = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MEAN_GRID: Kernels = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def native(name: str, x: Tensor, axes: tuple[Axis, ...] | None) -> Tensor | None:
    """The answer over these boxes, or None where torch has no kernel for them that is right."""
    if axes is None or name not in ("max", "mean") or not x.is_floating_point() or 0 in x.shape:
        return None
    rules = [axis.even for axis in axes]
    spatial = len(axes)
    if all(rule and rule[0] == "grid" for rule in rules):
        cells = tuple(len(axis.starts) for axis in axes)
        return _tensor((MAX_GRID if name == "max" else MEAN_GRID)[spatial](x, cells))
    if all(rule and rule[0] == "window" for rule in rules):
        size, stride, padding = zip(*(rule[1:] for rule in rules if rule and rule[0] == "window"), strict=True)
        cells_per_window = 1
        for n in size:
            cells_per_window *= n
        if any(2 * p > n for n, p in zip(size, padding, strict=True)):  # torch refuses such padding
            return None
        if name == "max":
            return _tensor(MAX_WINDOW[spatial](x, size, stride, padding))
        if cells_per_window <= LARGEST_MEAN:
            return _tensor(MEAN_WINDOW[spatial](x, size, stride, padding, count_include_pad=False))
    return None


def _tensor(answer: Any) -> Tensor:
    assert isinstance(answer, Tensor)
    return answer
