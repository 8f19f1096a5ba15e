"""The box of the CAM paper (arXiv 1512.04150): the largest component above 20 % of the maximum of the map.

Boxes are (x0, y0, x1, y1) in pixels, with exclusive far edges x1 and y1: the box of the one pixel in row 2, column 5 is
(5, 2, 6, 3), its width 6 − 5.

Maps are signed, and values above zero are evidence *for* a class: 0 stays 0 and the maximum becomes 1. Public
evaluators scale from the minimum to the maximum instead. Then zero depends on the strongest evidence *against* the
class: the box of a positive region changes with evidence elsewhere, and a map without evidence gets a box.
tests/localisation/wsol_evaluator.py does that to reproduce published numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gapstone.localisation.iou import Box, Floats, boxes_of

__all__ = ["PAPER", "Box", "Sweep", "box", "otsu", "scaled", "sweep"]

PAPER = 0.2
"""The CAM paper's threshold: "above 20 % of the max value"."""


def scaled(map: ArrayLike) -> tuple[Floats, float]:
    """Return a map as fractions of its maximum, (H, W) in [0, 1] with negative values at 0, and that maximum.

    Without positive values, maximum and fractions are 0.

    Raises:
        ValueError: If the map is not (H, W) or not finite.
    """
    array = np.asarray(map)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a map placed in its picture is (H, W), with at least one pixel; this has {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a map holds real numbers; this one holds {array.dtype}")
    values = np.array(array, np.float64, order="C")  # a copy: it is changed below
    if not np.isfinite(values).all():
        raise ValueError(f"{np.sum(~np.isfinite(values))} of the map's {values.size} values are NaN or infinite")
    peak = max(0.0, float(values.max()))
    np.maximum(values, 0.0, out=values)
    if peak > 0:
        # v / peak > t instead of v > t · peak: with subnormal values the product can round up to the maximum
        values /= peak
    return values, peak


def box(
    map: ArrayLike,
    threshold: float | Literal["otsu"] = PAPER,
    which: Literal["largest", "all"] = "largest",
    connectivity: Literal[4, 8] = 8,
) -> list[Box]:
    """Return the box of the largest connected component above a threshold, or of all, largest first.

        >>> box([[0.0, 0.1, 0.0], [0.0, 0.9, 1.0], [-3.0, 0.0, 0.0]])
        [Box(x0=1.0, y0=1.0, x1=3.0, y1=2.0, area=2, peak=1.0, share=0.95)]

    Args:
        map: (H, W), signed; values above zero are evidence.
        threshold: A fraction of the maximum, 0 ≤ threshold < 1; components consist of values *above* it, so 0 takes
            all evidence. "otsu": the threshold that separates the positive values best, without bins.
        which: "largest": one box; "all": one for each component.
        connectivity: 8 joins pixels that touch at a corner, 4 does not.

    Returns:
        The boxes; none for a map without positive values. Among components of equally many pixels, the one with the
        higher peak comes first, then the one whose box starts further up, further left, ends further up, further left.

    Raises:
        ValueError: If the map is not (H, W) or not finite, or the threshold is outside [0, 1).
    """
    if which not in ("largest", "all"):
        raise ValueError(f'which={which!r}: "largest" or "all"')
    neighbours = _neighbours(connectivity)
    fractions, peak = scaled(map)
    cut = None if threshold == "otsu" else float(_thresholds([threshold])[0])
    if peak == 0:
        return []
    labels, count = ndimage.label(fractions > (otsu(fractions) if cut is None else cut), structure=neighbours)
    above = np.flatnonzero(labels)
    owners, values = labels.ravel()[above], fractions.ravel()[above]
    areas, sums = np.bincount(owners), np.bincount(owners, values)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, owners, values)
    everything = fractions.sum()
    boxes = [
        Box(
            float(columns.start),
            float(rows.start),
            float(columns.stop),
            float(rows.stop),
            int(areas[k]),
            float(peaks[k]) * peak,
            float(sums[k] / everything),
        )
        for k, (rows, columns) in enumerate(ndimage.find_objects(labels), 1)
    ]
    boxes.sort(key=lambda b: (-b.area, -b.peak, b.y0, b.x0, b.y1, b.x1))
    return boxes[:1] if which == "largest" else boxes


def otsu(fractions: Floats) -> float:
    """Return the threshold that maximises the variance between the positive values above and below it (Otsu 1979).

    All thresholds between different values are compared, without a histogram. Returns 0 if all positive values are
    equal, and the lowest of equally good thresholds.
    """
    values = np.sort(fractions[fractions > 0])
    ends = np.flatnonzero(values[1:] > values[:-1])  # the last index of each run of equal values but the highest
    if not len(ends):
        return 0.0
    sums = np.cumsum(values)
    below, all_ = (ends + 1).astype(np.float64), float(len(values))
    means_apart = sums[ends] / below - (sums[-1] - sums[ends]) / (all_ - below)
    return float(values[ends[np.argmax(below * (all_ - below) * means_apart**2)]])


@dataclass(frozen=True)
class Sweep:
    """The components of a map at each of T thresholds."""

    thresholds: Floats
    """(T,), in the order of the argument."""
    boxes: Floats
    """(T, 4): (x0, y0, x1, y1) of the largest component; zeros without positive values."""
    areas: NDArray[np.int64]
    """(T,): pixels of the largest component; 0 if there is none."""
    components: NDArray[np.int64]
    """(T,): number of components."""
    best: Floats
    """(T,): the highest IoU of any component's box with any of the boxes in `against`; zeros without `against`."""


def sweep(
    map: ArrayLike,
    thresholds: Sequence[float] | Floats,
    against: ArrayLike | None = None,
    connectivity: Literal[4, 8] = 8,
) -> Sweep:
    """Return what `box` finds at each of many thresholds, in one pass over the map.

        >>> sweep(map, np.arange(100) / 100).boxes                       # (100, 4)
        >>> sweep(map, np.arange(100) / 100, against=[(10, 20, 60, 90)]).best.max()

    Pixels are added in the order of their values, and components only merge (union–find), so a hundred thresholds cost
    little more than one. The first call compiles for a few seconds; later processes load the code from disk.

    Args:
        map: As for `box`.
        thresholds: (T,), each 0 ≤ t < 1, in any order.
        against: (G, 4) boxes to compare with.
        connectivity: As for `box`.

    Returns:
        Boxes, areas and counts per threshold; ties are resolved as in `box`.

    Raises:
        ValueError: If `box` would raise it, or a box has no width or height.
    """
    _neighbours(connectivity)
    cuts = _thresholds(thresholds)
    truths = np.zeros((0, 4)) if against is None else boxes_of(against)
    fractions, peak = scaled(map)
    boxes, areas = np.zeros((len(cuts), 4)), np.zeros(len(cuts), np.int64)
    components, best = np.zeros(len(cuts), np.int64), np.zeros(len(cuts))
    if peak > 0:
        from gapstone.localisation.components import grow  # imports Numba: only needed here

        order = np.argsort(cuts, kind="stable")
        boxes[order], areas[order], components[order], best[order] = grow(
            fractions, cuts[order], connectivity == 8, truths
        )
    return Sweep(cuts, boxes, areas, components, best)


def _thresholds(thresholds: Sequence[float] | Floats) -> Floats:
    array = np.asarray(thresholds, np.float64)
    if array.ndim != 1 or not len(array) or not ((array >= 0) & (array < 1)).all():
        raise ValueError(f"a threshold is a fraction of the map's maximum, 0 ≤ threshold < 1; given {thresholds!r}")
    return array


def _neighbours(connectivity: int) -> NDArray[np.bool_]:
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity={connectivity!r}: 4 or 8 neighbours")
    across = connectivity == 8
    return np.array([[across, True, across], [True, True, True], [across, True, across]])
