"""Which dimensions of a tensor are positions: one notion, for the map that is found and for the one that is named.

As they were followed from the image, where that could be done. Elsewhere by where the channels are: the layers that
made the tensor say it (a convolution: second; a linear layer, a layer norm: last), and calls that keep or permute
dimensions keep or permute it. Tokens stand in one dimension; their grid was seen when the map became a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.tracing.geometry import RESHAPES, Field

PREFIX = 16
"""Tokens at most that stand before those of the image: class, distillation, registers."""
SECOND = (
    "conv",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "adaptive_",
    "avg_pool",
    "max_pool",
    "interpolate",
    "pixel_",
)
LAST = frozenset(["layer_norm", "rms_norm"])
PRODUCTS = frozenset(["matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum", "tensordot", "cdist"])
TURNS = frozenset(["permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis"])


@dataclass(frozen=True)
class Layout:
    axes: tuple[int, ...]
    """Dimensions that are positions, in the order of the image's."""
    grid: tuple[int, ...] | None = None
    """Of tokens, which stand in one dimension: their cells."""
    prefix: int = 0
    """Tokens that stand before those of the grid and belong to no position."""


def channel_axis(
    func: Any, name: str, args: Any, kwargs: Any, inputs: Sequence[Tensor], axes: Any, y: Tensor
) -> int | None:
    """Which dimension of y holds channels; axes: that of each tensor before. None where nothing says so."""
    n = y.dim()
    if n < 3:
        return None
    x = inputs[0]
    known: int | None = axes.get(x)
    # what acts on the last dimension: channels, unless these are known to be elsewhere (an MLP over positions)
    if name == "linear" or (name in LAST and _of_one_axis(args, kwargs)):
        return n - 1 if known in (None, x.dim() - 1) else known
    if name == "pool" or name.startswith(SECOND):
        return 1
    if name in PRODUCTS:  # by a weight, as a linear layer; of two tensors of the image, it may be either's
        alone = len(inputs) == 1 and name.endswith(("matmul", "matmul__")) and args[0] is x
        return n - 1 if alone and known in (None, x.dim() - 1) else None
    if name == "__get__" and y.stride() != x.stride():  # x.mT
        return None
    if name in TURNS and known is not None:
        sizes = torch.empty([d + 2 for d in range(x.dim())], device="meta")  # each its own
        return list(func(sizes, *args[1:], **kwargs).shape).index(known + 2)
    if name in RESHAPES:
        if known == x.dim() - 1 and y.shape[-1] == x.shape[-1]:
            return n - 1
        return 1 if known == 1 and y.shape[:2] == x.shape[:2] else None
    for one in inputs:
        if one.dim() == n and axes.get(one) is not None:
            found: int = axes[one]
            return found
    return None


def _of_one_axis(args: Any, kwargs: Any) -> bool:
    """Whether a norm is over the last dimension alone."""
    shape = args[1] if len(args) > 1 else kwargs.get("normalized_shape")
    return not isinstance(shape, Sequence) or len(shape) == 1


def layout(x: Tensor, field: Field | None, channels: int | None, size: Sequence[int], grids: dict[int, tuple[int, ...]],
           rows: dict[int, tuple[int, ...]]) -> Layout | None:  # fmt: skip
    """Of a tensor (N, …) made of images of `size`; None where its positions are not known.

    field: as it was followed; channels: its dimension of channels; grids: tokens that were a map, rows: and those that
    become one later, by their number.
    """
    if field is not None and len(field.axes) == x.dim() - 2 == len(size):
        return Layout(field.axes)
    if x.dim() == len(size) + 2:
        first, last = tuple(range(2, x.dim())), tuple(range(1, x.dim() - 1))
        if channels in (1, x.dim() - 1):
            return Layout(first if channels == 1 else last)
        # nothing says it: in the picture's proportions one way, and not the other
        return Layout(last if _alike(x, last, size) and not _alike(x, first, size) else first)
    if x.dim() != 3 or len(size) < 2:
        return None
    for axis in (1, 2) if channels is None else (3 - channels,):
        if grid := (grids | rows).get(x.shape[axis]):
            return Layout((axis,), grid)
    before = {x.shape[1] - n: grid for n, grid in grids.items() if 0 < x.shape[1] - n <= PREFIX}
    if before and channels in (None, 2):
        return Layout((1,), before[min(before)], min(before))
    return None


def _alike(x: Tensor, axes: Sequence[int], size: Sequence[int]) -> bool:
    """Whether there are cells of the picture's proportions, to one cell."""
    stride = size[0] / x.shape[axes[0]]
    return all(abs(x.shape[axis] - n / stride) < 1 for axis, n in zip(axes, size, strict=True)) and prod(
        x.shape[axis] for axis in axes
    ) <= prod(size)


__all__ = ["PREFIX", "Layout", "channel_axis", "layout"]
