"""A map in its picture: `rows @ map @ columns`, two small matrices that say which cells each pixel lies between.

Cells have their value at their true centre (`Placement`), not where an equal share of the picture would put them.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gapstone.tracing.placement import Placement

How = Literal["smooth", "cells"]


def upsample(map: NDArray[Any], placement: Placement, size: Sequence[int], how: How = "smooth") -> NDArray[np.float32]:
    """Each pixel's value, in a picture of `size` (H, W).

    ```python
    placed = place(evidence.map, evidence.placement, evidence.size)  # (480, 640), in logits per cell
    placed = place(maps, evidence.placement, evidence.size)  # (K, 7, 7) to (K, 480, 640): K maps of one picture at once
    ```

    map: (…, h, w), finite. how: "smooth" is bilinear between the cells' centres and constant beyond the outer ones;
    "cells" gives every cell its own rectangle (`Placement.edges`) and interpolates nothing.

    Values are the cells' own, not shared out over their pixels: at a centre that falls on a pixel, exactly the cell's.
    0 where the centre of a pixel lies outside what the network saw.
    """
    values = np.asarray(map)
    height, width = _check(values, placement, size, how)
    values = values.astype(np.float32, copy=False)
    if how == "cells":
        rows, seen_rows = _cells(placement, 0, values.shape[-2], height)
        columns, seen_columns = _cells(placement, 1, values.shape[-1], width)
        wide = values[..., columns] * seen_columns.astype(np.float32)
        placed: NDArray[np.float32] = wide[..., rows, :]
        placed[..., ~seen_rows, :] = 0
        return placed
    # across first: (h, W) is small, so that only the second product writes as much as the picture holds
    wide = values @ _between(placement, 1, values.shape[-1], width).T
    smooth: NDArray[np.float32] = np.matmul(_between(placement, 0, values.shape[-2], height), wide)
    return smooth


def _between(placement: Placement, axis: int, cells: int, pixels: int) -> NDArray[np.float32]:
    """(pixels, cells): how much of each cell a pixel holds; rows of 0 where nothing was seen."""
    at = ((np.arange(pixels) - placement.start[axis]) / placement.stride[axis]).clip(0, cells - 1)
    before = np.floor(at).astype(np.int64).clip(0, max(cells - 2, 0))
    matrix = np.zeros((pixels, cells))
    pixel = np.arange(pixels)
    matrix[pixel, before] = 1 - (at - before)
    if cells > 1:
        matrix[pixel, before + 1] = at - before
    matrix[~_seen(placement, axis, pixels)] = 0
    return matrix.astype(np.float32)


def _cells(placement: Placement, axis: int, cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The cell that each pixel's centre lies in, and whether the network saw it."""
    inner = placement.edges(cells, axis)[1:-1]
    return np.searchsorted(inner, np.arange(pixels) + 0.5, side="right"), _seen(placement, axis, pixels)


def _seen(placement: Placement, axis: int, pixels: int) -> NDArray[np.bool_]:
    low, high = placement.seen[axis]
    middle = np.arange(pixels) + 0.5
    return (middle >= low) & (middle <= high)


def _check(values: NDArray[Any], placement: Placement, size: Sequence[int], how: str) -> tuple[int, int]:
    if values.ndim < 2 or not all(values.shape[-2:]) or values.dtype.kind not in "fiu":
        raise ValueError(f"place(map {values.dtype} {values.shape}): a map is (…, h, w) numbers, at least 1×1")
    if len(placement.stride) != 2 or min(placement.stride) <= 0:
        raise ValueError(f"place(stride={placement.stride}): two axes (y, x), and strides above 0")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"place(size={tuple(size)}): (H, W) of the picture, in pixels")
    if how not in get_args(How):
        raise ValueError(f"place(how={how!r}): one of {', '.join(get_args(How))}")
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinity: an error of the model, which overflows on this picture")
    return int(size[0]), int(size[1])
