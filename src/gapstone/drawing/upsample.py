"""Upsamples a map to its picture: `rows @ map @ columns`, with two small matrices of interpolation weights.

The value of a cell lies at the true centre of the cell (`Placement`), not at that of an equal part of the picture.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gapstone.tracing.placement import Placement

How = Literal["smooth", "cells"]


def upsample(map: NDArray[Any], placement: Placement, size: Sequence[int], how: How = "smooth") -> NDArray[np.float32]:
    """Return the value of the map at each pixel of the picture.

    ```python
    placed = upsample(evidence.map, evidence.placement, evidence.size)  # (480, 640), in logits per cell
    placed = upsample(maps, evidence.placement, evidence.size)  # (K, 7, 7) to (K, 480, 640): K maps at once
    ```

    Args:
        map: (…, h, w) finite numbers.
        placement: Where the cells lie in the picture.
        size: (H, W) of the picture.
        how: "smooth" is bilinear between the centres of cells and constant beyond the outer ones; "cells" gives each
            cell its rectangle (`Placement.edges`) without interpolation.

    Returns:
        (…, H, W) in the unit of the map: a pixel at the centre of a cell has the value of the cell. Pixels whose centre
        lies outside the region that the network saw are 0.

    Raises:
        ValueError: If an argument is invalid, or the map has NaN or infinity.
    """
    values = np.asarray(map)
    height, width = _check(values, placement, size, how)
    values = values.astype(np.float32, copy=False)
    if how == "cells":
        rows, seen_rows = _nearest(placement, 0, values.shape[-2], height)
        columns, seen_columns = _nearest(placement, 1, values.shape[-1], width)
        wide = values[..., columns] * seen_columns.astype(np.float32)
        placed: NDArray[np.float32] = wide[..., rows, :]
        placed[..., ~seen_rows, :] = 0
        return placed
    # along x first: (h, W) is small, so that only the second product writes a whole picture
    wide = values @ _weights(placement, 1, values.shape[-1], width).T
    smooth: NDArray[np.float32] = np.matmul(_weights(placement, 0, values.shape[-2], height), wide)
    return smooth


def _weights(placement: Placement, axis: int, cells: int, pixels: int) -> NDArray[np.float32]:
    """Return the (pixels, cells) interpolation weights of one axis; rows of 0 outside the seen region."""
    position = ((np.arange(pixels) - placement.start[axis]) / placement.stride[axis]).clip(0, cells - 1)
    before = np.floor(position).astype(np.int64).clip(0, max(cells - 2, 0))
    matrix = np.zeros((pixels, cells))
    pixel = np.arange(pixels)
    matrix[pixel, before] = 1 - (position - before)
    if cells > 1:
        matrix[pixel, before + 1] = position - before
    matrix[~_seen(placement, axis, pixels)] = 0
    return matrix.astype(np.float32)


def _nearest(placement: Placement, axis: int, cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the cell that contains the centre of each pixel, and whether the network saw that pixel."""
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
