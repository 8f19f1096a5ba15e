"""Which dimensions of a tensor are positions: one notion, for the map that is found and for the one that is named.

As they were followed from the image, where that could be done. Elsewhere by where the channels are: the layers that
made the tensor say it (a convolution: second; a linear layer, a layer norm: last), and calls that keep or permute
dimensions keep or permute it. Tokens stand in one dimension; their grid was seen when the map became a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from gapstone.tracing import operations as ops
from gapstone.tracing.geometry import Geometry

PREFIX = 16
"""Tokens at most that stand before those of the image: class, distillation, registers."""
SECOND = (
    ops.Convolution, ops.BatchNorm, ops.GroupNorm, ops.InstanceNorm, ops.AdaptivePool, ops.WindowPool, ops.RegionPool,
    ops.Resize, ops.PixelUnshuffle,
)  # fmt: skip
"""Calls whose channels are the second dimension."""


@dataclass(frozen=True)
class PositionAxes:
    axes: tuple[int, ...]
    """Dimensions that are positions, in the order of the image's."""
    grid: tuple[int, ...] | None = None
    """Of tokens, which stand in one dimension: their cells."""
    prefix: int = 0
    """Tokens that stand before those of the grid and belong to no position."""


def channel_axis(op: ops.Operation, inputs: Sequence[Tensor], axes: Any, y: Tensor) -> int | None:
    """Which dimension of y holds channels; axes: that of each tensor before. None where nothing says so."""
    n = y.dim()
    if n < 3:
        return None
    x = inputs[0]
    known: int | None = axes.get(x)
    # what acts on the last dimension: channels, unless these are known to be elsewhere (an MLP over positions)
    if isinstance(op, ops.LinearLayer) or (isinstance(op, ops.LayerNorm) and op.dims == 1):
        return n - 1 if known in (None, x.dim() - 1) else known
    if isinstance(op, SECOND):
        return 1
    if isinstance(
        op, ops.MatrixProduct
    ):  # by a weight, as a linear layer; of two tensors of the image, it may be either's
        alone = len(inputs) == 1 and op.function.endswith("matmul") and op.input is x
        return n - 1 if alone and known in (None, x.dim() - 1) else None
    if isinstance(op, ops.Query) and y.stride() != x.stride():  # x.mT
        return None
    if isinstance(op, ops.Permute) and known is not None:
        return op.order.index(known)
    if isinstance(op, ops.Reshape):
        if known == x.dim() - 1 and y.shape[-1] == x.shape[-1]:
            return n - 1
        return 1 if known == 1 and y.shape[:2] == x.shape[:2] else None
    same_rank: list[int] = [axes[other] for other in inputs if other.dim() == n and axes.get(other) is not None]
    return same_rank[0] if same_rank else None


def position_axes(
    x: Tensor,
    geometry: Geometry | None,
    channels: int | None,
    size: Sequence[int],
    grids: dict[int, tuple[int, ...]],
    rows: dict[int, tuple[int, ...]],
) -> PositionAxes | None:
    """Of a tensor (N, …) made of images of `size`; None where its positions are not known.

    geometry: as it was followed; channels: its dimension of channels; grids: tokens that were a map, rows: and those
    that become one later, by their number.
    """
    if geometry is not None and len(geometry.axes) == x.dim() - 2 == len(size):
        return PositionAxes(geometry.axes)
    if x.dim() == len(size) + 2:
        first, last = tuple(range(2, x.dim())), tuple(range(1, x.dim() - 1))
        if channels in (1, x.dim() - 1):
            return PositionAxes(first if channels == 1 else last)
        # nothing says it: in the picture's proportions one way, and not the other
        return PositionAxes(last if _alike(x, last, size) and not _alike(x, first, size) else first)
    if x.dim() != 3 or len(size) < 2:
        return None
    for axis in (1, 2) if channels is None else (3 - channels,):
        if grid := (grids | rows).get(x.shape[axis]):
            return PositionAxes((axis,), grid)
    for seen in (grids, rows) if channels in (None, 2) else ():
        before = {x.shape[1] - n: grid for n, grid in seen.items() if 0 < x.shape[1] - n <= PREFIX}
        if before:
            return PositionAxes((1,), before[min(before)], min(before))
    return None


def _alike(x: Tensor, axes: Sequence[int], size: Sequence[int]) -> bool:
    """Whether there are cells of the picture's proportions, to one cell."""
    stride = size[0] / x.shape[axes[0]]
    return all(abs(x.shape[axis] - n / stride) < 1 for axis, n in zip(axes, size, strict=True)) and prod(
        x.shape[axis] for axis in axes
    ) <= prod(size)
