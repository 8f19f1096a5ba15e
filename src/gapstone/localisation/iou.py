"""Boxes and their intersection over union. Far edges are exclusive: the width of a box is x1 − x0."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Box(NamedTuple):
    """One connected component of a map above a threshold."""

    x0: float
    y0: float
    x1: float
    y1: float
    area: int
    """Number of pixels of the component, not of the box."""
    peak: float
    """The highest value of the map in it, in the unit of the map."""
    share: float
    """Its share of the positive evidence of the map, 0 to 1."""

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)"""
        return self[:4]


def boxes_of(boxes: ArrayLike | Sequence[Box]) -> Floats:
    """Return boxes as an array (G, 4). Raise ValueError if there is none, or one is not finite or has no area."""
    rows = [b.edges if isinstance(b, Box) else b for b in boxes] if isinstance(boxes, list | tuple) else boxes
    array = np.asarray(rows, np.float64)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise ValueError(f"boxes are (G, 4), at least one (x0, y0, x1, y1); these have the shape {array.shape}")
    good = np.isfinite(array).all(1) & (array[:, 2:] > array[:, :2]).all(1)
    if not good.all():
        bad = tuple(array[~good][0].tolist())
        raise ValueError(f"a box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, the far edges exclusive; this is {bad}")
    return array


def iou(a: Box | Sequence[float], b: Box | Sequence[float]) -> float:
    """Return the intersection over union of two boxes.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    return float(ious(boxes_of([a]), boxes_of([b]))[0, 0])


def ious(a: Floats, b: Floats) -> Floats:
    """(A, 4) and (B, 4) boxes → (A, B) IoUs; 0 for boxes without area."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = np.where((sides > 0).all(2), sides.prod(2), 0.0)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    result: Floats = intersection / (sizes[0][:, None] + sizes[1][None, :] - intersection)
    return result
