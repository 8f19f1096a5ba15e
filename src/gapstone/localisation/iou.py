"""A box, and how much two boxes share. Far edges are exclusive: a box is as wide as x1 − x0."""

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
    """Pixels of the component (not of the box)."""
    peak: float
    """The map's highest value in it, in the map's units."""
    share: float
    """Of all the map's positive evidence, the part that lies in it: 0 to 1."""

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)"""
        return self[:4]


def boxes_of(boxes: ArrayLike | Sequence[Box]) -> Floats:
    """(G, 4) boxes as an array. Raises ValueError where there is none, or one has no width, no height or no number."""
    given = [b.edges if isinstance(b, Box) else b for b in boxes] if isinstance(boxes, list | tuple) else boxes
    array = np.asarray(given, np.float64)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise ValueError(f"boxes are (G, 4), at least one (x0, y0, x1, y1); these have the shape {array.shape}")
    good = np.isfinite(array).all(1) & (array[:, 2:] > array[:, :2]).all(1)
    if not good.all():
        bad = tuple(array[~good][0].tolist())
        raise ValueError(f"a box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, the far edges exclusive; this is {bad}")
    return array


def iou(a: Box | Sequence[float], b: Box | Sequence[float]) -> float:
    """Intersection over union of two boxes.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    return float(ious(boxes_of([a]), boxes_of([b]))[0, 0])


def ious(a: Floats, b: Floats) -> Floats:
    """(A, 4) and (B, 4) → (A, B). A box without any size overlaps nothing."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = np.where((sides > 0).all(2), sides.prod(2), 0.0)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    together: Floats = both / (sizes[0][:, None] + sizes[1][None, :] - both)
    return together
