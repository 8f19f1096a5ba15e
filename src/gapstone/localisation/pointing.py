"""Where a map's highest point lies (pointing game) and where its positive evidence lies (energy in box)."""

import numpy as np
from numpy.typing import NDArray

from gapstone.localisation.iou import Floats

Mask = NDArray[np.bool_]


def covered(box: Floats, size: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a picture (H, W) whose pixels have their centre in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = np.ceil(box - 0.5).astype(int).tolist()  # the centre of pixel c is at c + 0.5
    return slice(max(0, y0), max(0, min(size[0], y1))), slice(max(0, x0), max(0, min(size[1], x1)))


def inside(size: tuple[int, ...], boxes: Floats) -> Mask:
    """(H, W): the pixels whose centre lies in any of the boxes."""
    region = np.zeros(size, np.bool_)
    for box in boxes:
        region[covered(box, size)] = True
    return region


def pointing(fractions: Floats, boxes: Floats, tolerance: float) -> float:
    """1 if the highest point lies in a box, or at most `tolerance` pixels from a pixel of one; else 0.

    fractions: as `boxes.scaled` returns. Where several pixels share the maximum (a map drawn in blocks, a constant
    map), the answer is the share of them that hit: what a random pick gives on average, and no corner is preferred.
    A map with no evidence points nowhere: 0. Source: arXiv 1608.00507.
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
    """Positive evidence in a region over all positive evidence; 0 where there is none at all."""
    everything = float(fractions.sum())
    return float(fractions[region].sum()) / everything if everything else 0.0
