"""Localisation scores over a set of pictures: boxes, pixels, pointing game and energy.

Pictures of any size count at their own size, with exact maps and thresholds: nothing is resized to 224 × 224, quantised
to 256 steps or shifted by a pixel. tests/localisation/wsol_evaluator.py does all that to reproduce published numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapstone.localisation.box_baselines import centre_box, whole_image
from gapstone.localisation.cam_boxes import PAPER, scaled, sweep
from gapstone.localisation.iou import Box, Floats, boxes_of, iou, ious
from gapstone.localisation.pointing import energy_inside, inside, pointing
from gapstone.localisation.pxap import PixelCounts, pxap

__all__ = ["At", "Best", "Localisation", "Scores", "centre_box", "iou", "pxap", "whole_image"]

Integers = NDArray[np.int64]
HUNDRED = tuple(i / 100 for i in range(100))
MIDDLE = 0.5
"""The IoU of MaxBoxAcc, the CAM paper and the localisation task of ILSVRC."""


@dataclass(frozen=True)
class At:
    """Shares of pictures at one threshold of the maps, by the box of the largest component."""

    threshold: float
    known: dict[float, float]
    """GT-known: for each IoU, pictures whose box reaches it, whatever the prediction."""
    top1: float | None
    """Pictures whose box reaches an IoU of 0.5 *and* whose class is predicted first; None without ranks."""
    top5: float | None
    """The same, with the class among the first five."""


@dataclass(frozen=True)
class Best:
    """An accuracy at its best threshold, which is chosen on the same pictures and therefore optimistic."""

    accuracy: float
    threshold: float
    """The lowest of equally good thresholds."""
    curve: Floats
    """(T,): the accuracy at every threshold."""


@dataclass(frozen=True)
class Scores:
    """The scores of a set of pictures, as shares from 0 to 1.

    `max_box_acc` and `max_box_acc_v2` are optimistic: their thresholds are chosen on the same pictures. Not optimistic
    are `paper`, `pxap`, `pointing`, `energy`, and `Localisation.fixed` with a threshold from other pictures.
    """

    pictures: int
    without_evidence: int
    """Pictures whose map has no positive value; they are misses in every score."""
    thresholds: Floats
    max_box_acc: Best
    """IoU 0.5, one threshold for the whole set, box of the largest component (arXiv 2001.07437)."""
    max_box_acc_v2: float
    """Mean of `by_iou` (arXiv 2007.04178)."""
    by_iou: dict[float, Best]
    """For each IoU, with its own threshold: the box of any component reaches it."""
    paper: At
    """At the fixed 20 % of the CAM paper, without tuning."""
    pxap: float | None
    """Pixel average precision over the pictures with a mask; None without masks."""
    pointing: dict[float, float]
    """For each tolerance in pixels: how often the maximum of the map lies in a box, or within the tolerance of one."""
    energy: float
    """Mean share of the positive evidence that lies inside the boxes (arXiv 1910.01279)."""


class Localisation:
    """Collects the scores of pictures one by one; partial sets can be added exactly.

        >>> scores = Localisation()
        >>> for map, boxes in pictures:                  # a map (H, W) of a picture, and its boxes (G, 4)
        ...     scores.add(map, boxes)
        >>> scores.result().paper.known[0.5]             # without tuning
        >>> chosen = validation.result().max_box_acc.threshold
        >>> test.fixed(chosen).known[0.5]                # tuned on other pictures
        >>> (part + other_part).result()                 # the same as with all pictures in one

    Args:
        thresholds: Thresholds as fractions of the maximum, in [0, 1). The 20 % of the CAM paper are always included.
        overlaps: The IoUs to count; they include 0.5.
        tolerances: Of the pointing game, in pixels. The paper (arXiv 1608.00507) allows 15 in photos of about 500
            pixels; in small pictures that accepts nearly everything, so 0 is also counted.
        connectivity: As for `box`.
    """

    def __init__(
        self,
        thresholds: Sequence[float] | Floats = HUNDRED,
        overlaps: Sequence[float] = (0.3, 0.5, 0.7),
        tolerances: Sequence[float] = (0.0, 15.0),
        connectivity: Literal[4, 8] = 8,
    ) -> None:
        self.thresholds = np.unique(np.append(np.asarray(thresholds, np.float64), PAPER))
        if not ((self.thresholds >= 0) & (self.thresholds < 1)).all():
            raise ValueError(f"thresholds are fractions of the map's maximum, 0 ≤ t < 1; given {thresholds!r}")
        self.overlaps = tuple(sorted({float(v) for v in overlaps}))
        if MIDDLE not in self.overlaps or not all(0 < v <= 1 for v in self.overlaps):
            raise ValueError(f"IoUs lie in (0, 1] and 0.5 is one of them; given {overlaps!r}")
        self.tolerances = tuple(sorted({float(v) for v in tolerances}))
        if not all(0 <= v < np.inf for v in self.tolerances):
            raise ValueError(f"a tolerance is a number of pixels, 0 or more; given {tolerances!r}")
        if connectivity not in (4, 8):
            raise ValueError(f"connectivity={connectivity!r}: 4 or 8 neighbours")
        self.connectivity = connectivity
        shape = (len(self.overlaps), len(self.thresholds))
        self._largest, self._any = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.top_counts = {1: np.zeros(len(self.thresholds), np.int64), 5: np.zeros(len(self.thresholds), np.int64)}
        self._pixels = PixelCounts()
        # one number per picture, summed with fsum: the sums of partial sets are then exact
        self.pointing_hits: dict[float, list[float]] = {t: [] for t in self.tolerances}
        self._energy: list[float] = []
        self._ranked, self._empty = 0, 0

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return len(self._energy)

    def add(
        self,
        map: ArrayLike,
        boxes: ArrayLike | Sequence[Box],
        mask: ArrayLike | None = None,
        ignore: ArrayLike | None = None,
        rank: int | None = None,
    ) -> None:
        """Count one picture; finding any of its boxes is a hit.

        Args:
            map: (H, W), signed, of the true class.
            boxes: (G, 4) boxes of the objects of that class, in pixels of the map.
            mask: (H, W) bool, the pixels of the objects.
            ignore: (H, W) bool, pixels that do not count; pixels that are also in the mask count.
            rank: The rank of the true class in the prediction, from 1; for every picture or for none.

        Raises:
            ValueError: If an argument is invalid; the picture is then not counted.
        """
        truths = boxes_of(boxes)
        if rank is not None and rank < 1:
            raise ValueError(f"rank={rank}: the place of the true class among the answers, 1 for the first")
        if self.pictures and (rank is not None) != bool(self._ranked):
            raise ValueError("a rank for some pictures and not for others: top-1 and top-5 need it for every one")
        fractions, peak = scaled(map)
        if mask is not None:
            self._pixels.add(fractions, mask, ignore)
        elif ignore is not None:
            raise ValueError("pixels to ignore belong to a mask, and there is none: give mask, too")
        components = sweep(fractions, self.thresholds, truths, self.connectivity)
        reached = np.array(self.overlaps)[:, None]
        largest = ious(components.boxes, truths).max(1) >= reached
        self._largest += largest
        self._any += components.best >= reached
        if rank is not None:
            self._ranked += 1
            for k, counts in self.top_counts.items():
                if rank <= k:
                    counts += largest[self.overlaps.index(MIDDLE)]
        region = inside(fractions.shape, truths)
        for tolerance, hits in self.pointing_hits.items():
            hits.append(pointing(fractions, truths, tolerance))
        self._energy.append(energy_inside(fractions, region))
        self._empty += peak == 0

    def __add__(self, other: "Localisation") -> "Localisation":
        if self._settings() != other._settings():
            raise ValueError(
                f"parts that were asked different things do not add up: {self._settings()}, {other._settings()}"
            )
        if self.pictures and other.pictures and bool(self._ranked) != bool(other._ranked):
            raise ValueError("one part has ranks and the other has none: top-1 and top-5 need them for every picture")
        total = Localisation(self.thresholds, self.overlaps, self.tolerances, self.connectivity)
        total._largest, total._any = self._largest + other._largest, self._any + other._any
        total.top_counts = {k: self.top_counts[k] + other.top_counts[k] for k in self.top_counts}
        total._pixels = self._pixels + other._pixels
        total.pointing_hits = {t: self.pointing_hits[t] + other.pointing_hits[t] for t in self.tolerances}
        total._energy = self._energy + other._energy
        total._ranked, total._empty = self._ranked + other._ranked, self._empty + other._empty
        return total

    def fixed(self, threshold: float) -> At:
        """Return the shares at one of the thresholds, for a threshold that was chosen on other pictures."""
        self._not_empty()
        (at,) = np.nonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-9))
        if not len(at):
            raise ValueError(f"threshold {threshold} was not counted; name it in Localisation(thresholds=…)")
        t, n = int(at[0]), self.pictures
        top = {k: float(counts[t]) / n if self._ranked else None for k, counts in self.top_counts.items()}
        known = {v: float(self._largest[i, t]) / n for i, v in enumerate(self.overlaps)}
        return At(float(self.thresholds[t]), known, top[1], top[5])

    def result(self) -> Scores:
        """Return the scores.

        Raises:
            ValueError: If no picture was added.
        """
        self._not_empty()
        by_iou = {v: self._best(self._any[i]) for i, v in enumerate(self.overlaps)}
        return Scores(
            pictures=self.pictures,
            without_evidence=self._empty,
            thresholds=self.thresholds,
            max_box_acc=self._best(self._largest[self.overlaps.index(MIDDLE)]),
            max_box_acc_v2=_mean([best.accuracy for best in by_iou.values()]),
            by_iou=by_iou,
            paper=self.fixed(PAPER),
            pxap=self._pixels.result() if self._pixels.masks else None,
            pointing={t: _mean(hits) for t, hits in self.pointing_hits.items()},
            energy=_mean(self._energy),
        )

    def _best(self, counts: Integers) -> Best:
        t = int(counts.argmax())
        return Best(float(counts[t]) / self.pictures, float(self.thresholds[t]), counts / self.pictures)

    def _settings(self) -> tuple[object, ...]:
        return (tuple(self.thresholds.tolist()), self.overlaps, self.tolerances, self.connectivity)

    def _not_empty(self) -> None:
        if not self.pictures:
            raise ValueError("no picture was added, so there is nothing to score: call add(map, boxes) first")


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
