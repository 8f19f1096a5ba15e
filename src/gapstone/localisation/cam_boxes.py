"""The CAM paper's box (arXiv 1512.04150): keep what is above 20 % of the map's maximum, box the largest component.

Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 the far edges: the box of the one pixel in row 2, column 5 is
(5, 2, 6, 3), its width 6 − 5.

Maps are signed, and evidence *for* a class is what is above zero: 0 stays 0 and the maximum becomes 1. Stretching from
minimum to maximum instead, as public evaluators do, moves zero to wherever the strongest evidence *against* the class
puts it: the same positive region then gets another box because something elsewhere speaks louder against, and a map
without any evidence gets a box all the same. `reference.py` does that, to reproduce published numbers.
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
    """A map as fractions of its maximum, (H, W) in [0, 1] with negative values at 0, and that maximum.

    Maximum and fractions are 0 where nothing is positive. Raises ValueError for what is no finite (H, W) map.
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
        # v / peak > t, never v > t · peak: that product can round up to the maximum itself where values are subnormal
        values /= peak
    return values, peak


def box(
    map: ArrayLike,
    threshold: float | Literal["otsu"] = PAPER,
    which: Literal["largest", "all"] = "largest",
    connectivity: Literal[4, 8] = 8,
) -> list[Box]:
    """The largest connected component above a threshold, or all of them, largest first.

        >>> box([[0.0, 0.1, 0.0], [0.0, 0.9, 1.0], [-3.0, 0.0, 0.0]])
        [Box(x0=1.0, y0=1.0, x1=3.0, y1=2.0, area=2, peak=1.0, share=0.95)]

    Args:
        map: (H, W), signed, any size; what is above zero is evidence.
        threshold: a fraction of the maximum, 0 ≤ threshold < 1; what is *above* it is kept, so 0 keeps all evidence.
            "otsu": the cut that separates the positive values best, without bins.
        which: "largest" gives one box, "all" one for each component.
        connectivity: 8 joins pixels that touch at a corner, 4 does not.

    Returns an empty list for a map with no positive value. Among components of the same number of pixels, the one with
    the higher peak comes first, then the one whose box begins higher up, further left, ends higher up, further left.

    Raises ValueError for NaN, infinities, no (H, W) map, or a threshold outside [0, 1).
    """
    if which not in ("largest", "all"):
        raise ValueError(f'which={which!r}: "largest" or "all"')
    neighbours = _neighbours(connectivity)
    fractions, peak = scaled(map)
    cut = None if threshold == "otsu" else float(_thresholds([threshold])[0])
    if peak == 0:
        return []
    labels, count = ndimage.label(fractions > (otsu(fractions) if cut is None else cut), structure=neighbours)
    kept = np.flatnonzero(labels)
    owners, values = labels.ravel()[kept], fractions.ravel()[kept]
    areas, sums = np.bincount(owners), np.bincount(owners, values)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, owners, values)
    everything = fractions.sum()
    found = [
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
    found.sort(key=lambda b: (-b.area, -b.peak, b.y0, b.x0, b.y1, b.x1))
    return found[:1] if which == "largest" else found


def otsu(fractions: Floats) -> float:
    """The value to be above so that the positive values fall into the two groups of the largest variance between them.

    Otsu 1979, over every cut between two different values: no histogram. 0 where all positive values are the same, and
    the lowest of cuts that are equally good.
    """
    values = np.sort(fractions[fractions > 0])
    ends = np.flatnonzero(values[1:] > values[:-1])  # the last of each run of equal values, but for the highest
    if not len(ends):
        return 0.0
    sums = np.cumsum(values)
    below, all_ = (ends + 1).astype(np.float64), float(len(values))
    means_apart = sums[ends] / below - (sums[-1] - sums[ends]) / (all_ - below)
    return float(values[ends[np.argmax(below * (all_ - below) * means_apart**2)]])


@dataclass(frozen=True)
class Sweep:
    """What a map gives at each of T thresholds."""

    thresholds: Floats
    """(T,), in the order given"""
    boxes: Floats
    """(T, 4): (x0, y0, x1, y1) of the largest component; zeros where the map has no positive value."""
    areas: NDArray[np.int64]
    """(T,): pixels of the largest component; 0 where there is none."""
    components: NDArray[np.int64]
    """(T,): how many components there are."""
    best: Floats
    """(T,): the highest IoU of any component's box with any of the boxes in `against`; zeros without `against`."""


def sweep(
    map: ArrayLike,
    thresholds: Sequence[float] | Floats,
    against: ArrayLike | None = None,
    connectivity: Literal[4, 8] = 8,
) -> Sweep:
    """What `box` finds at every one of many thresholds, in one pass over the map.

        >>> sweep(map, np.arange(100) / 100).boxes                       # (100, 4)
        >>> sweep(map, np.arange(100) / 100, against=[(10, 20, 60, 90)]).best.max()

    Pixels join in the order of their values, and components only ever grow together (union–find), so a hundred
    thresholds cost little more than one. The first call compiles for a few seconds; later processes load it from disk.

    Args: as for `box`; thresholds (T,), each 0 ≤ t < 1, in any order; against (G, 4) boxes.
    Ties are decided as in `box`. Raises ValueError for what `box` refuses, and for boxes without width or height.
    """
    _neighbours(connectivity)
    asked = _thresholds(thresholds)
    truths = np.zeros((0, 4)) if against is None else boxes_of(against)
    fractions, peak = scaled(map)
    boxes, areas = np.zeros((len(asked), 4)), np.zeros(len(asked), np.int64)
    components, best = np.zeros(len(asked), np.int64), np.zeros(len(asked))
    if peak > 0:
        from gapstone.localisation.components import grow  # Numba: only who sweeps waits for it

        order = np.argsort(asked, kind="stable")
        boxes[order], areas[order], components[order], best[order] = grow(
            fractions, asked[order], connectivity == 8, truths
        )
    return Sweep(asked, boxes, areas, components, best)


def _thresholds(thresholds: Sequence[float] | Floats) -> Floats:
    asked = np.asarray(thresholds, np.float64)
    if asked.ndim != 1 or not len(asked) or not ((asked >= 0) & (asked < 1)).all():
        raise ValueError(f"a threshold is a fraction of the map's maximum, 0 ≤ threshold < 1; given {thresholds!r}")
    return asked


def _neighbours(connectivity: int) -> NDArray[np.bool_]:
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity={connectivity!r}: 4 or 8 neighbours")
    across = connectivity == 8
    return np.array([[across, True, across], [True, True, True], [across, True, across]])
