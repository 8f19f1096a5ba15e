"""The pointing game (where the maximum of a map lies) and the energy in boxes (where its positive evidence lies)."""

import numpy as np
from numpy.typing import NDArray

from gapstone.localisation.iou import Floats

Mask = NDArray[np.bool_]


def covered(box: Floats, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a picture (H, W) whose pixel centres lie in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = np.ceil(box - 0.5).astype(int).tolist()  # the centre of pixel c is at c + 0.5
    return slice(max(0, y0), max(0, min(size[0], y1))), slice(max(0, x0), max(0, min(size[1], x1)))


def inside(size: tuple[int, ...], boxes: Floats) -> Mask:
    """Return the mask (H, W) of the pixels whose centre lies in any of the boxes."""
    region = np.zeros(size, np.bool_)
    for box in boxes:
        region[covered(box, size)] = True
    return region


def pointing(fractions: Floats, boxes: Floats, tolerance: float) -> float:
    """Return 1 if the maximum lies in a box, or within `tolerance` pixels of one, else 0 (arXiv 1608.00507).

    If several pixels share the maximum (a map drawn in blocks, a constant map), return the share of them that hit: the
    average of a random choice. A map without evidence scores 0. `fractions` (H, W) are as `cam_boxes.scaled` returns
    them, `boxes` (G, 4).
    """
    peak = fractions.max()
    if peak == 0:
        return 0.0
    y, x = np.nonzero(fractions == peak)
    hit = np.zeros(len(y), np.bool_)
    for box in boxes:
        rows, columns = covered(box, fractions.shape)
        if rows.start < rows.stop and columns.start < columns.stop:
            down = np.maximum(0, np.maximum(rows.start - y, y - (rows.stop - 1)))
            right = np.maximum(0, np.maximum(columns.start - x, x - (columns.stop - 1)))
            hit |= down**2 + right**2 <= tolerance**2
    return float(hit.mean())


def energy_inside(fractions: Floats, region: Mask) -> float:
    """Return the share of the positive evidence that lies in a region; 0 if there is none."""
    total = float(fractions.sum())
    return float(fractions[region].sum()) / total if total else 0.0
