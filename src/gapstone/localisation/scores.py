"""How well a class's map finds its object: boxes, pixels, the highest point and the energy, over a set of pictures.

In the picture's own size, for any size and shape, with maps and thresholds as they are: nothing is resized to 224 ×
224, squeezed into 256 steps or shifted by a pixel. `reference.py` does all that, to reproduce published numbers.
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
"""The IoU of MaxBoxAcc, of the CAM paper and of ILSVRC's localisation task."""


@dataclass(frozen=True)
class At:
    """Shares of pictures at one threshold of the map, by the box of the largest component."""

    threshold: float
    known: dict[float, float]
    """GT-known: for each IoU, pictures whose box reaches it, whatever the model answered."""
    top1: float | None
    """Pictures whose box reaches an IoU of 0.5 *and* whose class came first; None where no ranks were given."""
    top5: float | None
    """… was among the first five."""


@dataclass(frozen=True)
class Best:
    """An accuracy at the threshold that is best for it, chosen on these same pictures: optimistic."""

    accuracy: float
    threshold: float
    """The lowest of the equally good."""
    curve: Floats
    """(T,): the accuracy at every threshold."""


@dataclass(frozen=True)
class Scores:
    """Shares are 0 to 1. Optimistic, their threshold being chosen on the pictures they are counted on: `max_box_acc`
    and `max_box_acc_v2`. Not optimistic: `paper`, `Localisation.fixed` with a threshold from other pictures, `pxap`,
    `pointing`, `energy`.
    """

    pictures: int
    without_evidence: int
    """Pictures whose map has no positive value: misses in every score."""
    thresholds: Floats
    max_box_acc: Best
    """IoU 0.5, one threshold for the whole set, box of the largest component (arXiv 2001.07437)."""
    max_box_acc_v2: float
    """Mean of `by_iou` (arXiv 2007.04178)."""
    by_iou: dict[float, Best]
    """For each IoU, with its own threshold: some component's box reaches it."""
    paper: At
    """The CAM paper's fixed 20 %: nothing tuned."""
    pxap: float | None
    """Pixel average precision over the pictures that came with a mask; None where none did."""
    pointing: dict[float, float]
    """For each tolerance in pixels: how often the highest point of the map lies in a box, or that near to one."""
    energy: float
    """Mean over pictures of the positive evidence inside the boxes, over all positive evidence (arXiv 1910.01279)."""


class Localisation:
    """Scores of a set of pictures, gathered one by one; parts of the set add up, exactly.

        >>> scores = Localisation()
        >>> for map, boxes in pictures:                  # each class's map in its picture, (H, W), and its boxes (G, 4)
        ...     scores.add(map, boxes)
        >>> scores.result().paper.known[0.5]             # nothing tuned
        >>> chosen = validation.result().max_box_acc.threshold
        >>> test.fixed(chosen).known[0.5]                # tuned, but not on the pictures it is counted on
        >>> (part + other_part).result()                 # the same as one that was given all pictures

    Args:
        thresholds: of the map, fractions of its maximum in [0, 1). The CAM paper's 20 % is always among them.
        overlaps: which IoUs count as found; 0.5 must be one.
        tolerances: of the pointing game, in pixels of the pictures given. The paper (arXiv 1608.00507) allows 15, in
            photos of about 500 pixels: in small pictures that forgives nearly everything, so 0 is beside it.
        connectivity: as for `box`.
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
        # one number per picture, and summed with fsum: sums of parts are then those of the whole, to the last bit
        self.pointing_hits: dict[float, list[float]] = {t: [] for t in self.tolerances}
        self._energy: list[float] = []
        self._ranked, self._empty = 0, 0

    @property
    def pictures(self) -> int:
        return len(self._energy)

    def add(
        self,
        map: ArrayLike,
        boxes: ArrayLike | Sequence[Box],
        mask: ArrayLike | None = None,
        ignore: ArrayLike | None = None,
        rank: int | None = None,
    ) -> None:
        """One picture: the map of its true class and the boxes of that class's objects; any of them may be found.

        Args: map (H, W) signed; boxes (G, 4) in the same pixels; mask (H, W) bool, the object's pixels; ignore (H, W)
        bool, pixels that count neither way (the mask wins where both are set); rank: the true class's place among the
        model's answers, 1 for the first. Give ranks for every picture or for none. Nothing is counted if it raises.
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
        swept = sweep(fractions, self.thresholds, truths, self.connectivity)
        reached = np.array(self.overlaps)[:, None]
        largest = ious(swept.boxes, truths).max(1) >= reached
        self._largest += largest
        self._any += swept.best >= reached
        if rank is not None:
            self._ranked += 1
            for places, counts in self.top_counts.items():
                if rank <= places:
                    counts += largest[self.overlaps.index(MIDDLE)]
        region = inside(fractions.shape, truths)
        for tolerance, hits in self.pointing_hits.items():
            hits.append(pointing(fractions, truths, tolerance))
        self._energy.append(energy_inside(fractions, region))
        self._empty += peak == 0

    def __add__(self, other: "Localisation") -> "Localisation":
        if self._asked() != other._asked():
            raise ValueError(f"parts that were asked different things do not add up: {self._asked()}, {other._asked()}")
        if self.pictures and other.pictures and bool(self._ranked) != bool(other._ranked):
            raise ValueError("one part has ranks and the other has none: top-1 and top-5 need them for every picture")
        both = Localisation(self.thresholds, self.overlaps, self.tolerances, self.connectivity)
        both._largest, both._any = self._largest + other._largest, self._any + other._any
        both.top_counts = {k: self.top_counts[k] + other.top_counts[k] for k in self.top_counts}
        both._pixels = self._pixels + other._pixels
        both.pointing_hits = {t: self.pointing_hits[t] + other.pointing_hits[t] for t in self.tolerances}
        both._energy = self._energy + other._energy
        both._ranked, both._empty = self._ranked + other._ranked, self._empty + other._empty
        return both

    def fixed(self, threshold: float) -> At:
        """At one of the thresholds, without choosing among them: for a threshold that other pictures chose."""
        self._not_empty()
        (at,) = np.nonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-9))
        if not len(at):
            raise ValueError(f"threshold {threshold} was not counted; name it in Localisation(thresholds=…)")
        t, n = int(at[0]), self.pictures
        top = {k: float(counts[t]) / n if self._ranked else None for k, counts in self.top_counts.items()}
        known = {v: float(self._largest[i, t]) / n for i, v in enumerate(self.overlaps)}
        return At(float(self.thresholds[t]), known, top[1], top[5])

    def result(self) -> Scores:
        """Raises ValueError where no picture was added."""
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

    def _asked(self) -> tuple[object, ...]:
        return (tuple(self.thresholds.tolist()), self.overlaps, self.tolerances, self.connectivity)

    def _not_empty(self) -> None:
        if not self.pictures:
            raise ValueError("no picture was added, so there is nothing to score: call add(map, boxes) first")


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
