"""The public evaluator of weakly supervised localisation, number for number (github.com/clovaai/wsolevaluation, MIT).

For comparing with published tables only; `scores.py` is what to use. What it does, and why one would not:

* a score map is stretched from its minimum to its maximum, so zero means nothing any more;
* it is cut to 256 whole numbers, and so is the threshold, so 1000 thresholds are at most 256;
* the largest component is that of the largest *polygon through pixel centres*: a line of any length has no area;
* holes count as components of their own where all components are asked for;
* a box includes its far edges, and IoU adds 1 to each side; the estimated box is a pixel wider than that, unless it
  touches the right or lower edge of the picture;
* ground truth is resized to the square map (224 × 224), and cut to whole pixels.

OpenCV is not needed.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapstone.localisation.iou import Floats
from tests.localisation.contours import borders

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
EVERY_THOUSANDTH = np.arange(0, 1, 0.001)
SIDE = 224
IGNORED = 255


def normalised(map: ArrayLike, how: Literal["minmax", "max"] = "minmax") -> Floats:
    """A map as the evaluator wants it, in [0, 1]. "max": negative values become 0, the maximum 1.

    A map that is constant, or holds a NaN, becomes zeros, as there.
    """
    values = np.array(map, np.float64)
    if how not in ("minmax", "max"):
        raise ValueError(f'how={how!r}: "minmax" or "max"')
    if np.isnan(values).any() or values.min() == values.max():
        return np.zeros_like(values)
    values = np.maximum(values, 0) if how == "max" else values - values.min()
    return values / values.max() if values.max() > 0 else values


def iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """(A, 4) and (B, 4) boxes with inclusive far edges → (A, B). (0, 0, 0, 0) is one pixel."""
    first, second = _boxes(a)[:, None], _boxes(b)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]) + 1
    both = np.maximum(sides, 0).prod(2)
    sizes = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(2) for boxes in (first, second)]
    together: Floats = both / (sizes[0] + sizes[1] - both)
    return together


def resized_box(box: Sequence[float], size: tuple[int, int], to: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of a picture of `size` (H, W) in one of the size `to` (H, W), cut to whole pixels."""
    (x0, y0, x1, y1) = _boxes([box])[0].tolist()
    (height, width), (tall, wide) = size, to
    # in this order: x · new / old, which is not x · (new / old) in the last bit
    return int(x0 * wide / width), int(y0 * tall / height), int(x1 * wide / width), int(y1 * tall / height)


def boxes_at(
    scoremap: ArrayLike,
    thresholds: Sequence[float] | Floats = EVERY_THOUSANDTH,
    every: bool = False,
    contours: Literal["tree", "external"] = "tree",
) -> list[Integers]:
    """At each threshold the box of the largest contour, or of every contour: (1, 4) or (N, 4).

    scoremap: (H, W) in [0, 1]. contours: "tree" is what the evaluator asks OpenCV for, holes and what lies in them
    included; "external" only the outermost. Where nothing is above the threshold: (0, 0, 0, 0).
    """
    grey = (_scoremap(scoremap) * 255).astype(np.uint8)
    last = np.array([grey.shape[1] - 1, grey.shape[0] - 1], np.int64)
    seen: dict[int, Integers] = {}
    cuts = [int(threshold * int(grey.max())) for threshold in np.asarray(thresholds, np.float64).tolist()]
    for cut in set(cuts):
        boxes, areas, outermost, order = borders(grey > cut)
        kept = order if contours == "tree" else order[outermost[order]]
        if not len(kept):
            seen[cut] = np.zeros((1, 4), np.int64)
            continue
        if not every:
            kept = kept[areas[kept].argmax()][None]  # the first of equally large ones
        found = boxes[kept].astype(np.int64)
        found[:, 2:] = np.minimum(found[:, 2:] + 1, last)
        seen[cut] = found
    return [seen[cut] for cut in cuts]


class Boxes:
    """MaxBoxAcc (`every=False`, at an IoU of 50) or MaxBoxAccV2 (`every=True`, the mean), in per cent.

    >>> evaluator = Boxes(every=True)
    >>> evaluator.add(normalised(map), boxes=[(10, 20, 99, 89)], size=(480, 640))
    >>> np.mean(list(evaluator.result().values()))
    """

    def __init__(
        self,
        thresholds: Sequence[float] | Floats = EVERY_THOUSANDTH,
        overlaps: Sequence[int] = (30, 50, 70),
        every: bool = False,
        contours: Literal["tree", "external"] = "tree",
    ) -> None:
        self.thresholds, self.every, self.contours = thresholds, every, contours
        self.pictures = 0
        self.right = {overlap: np.zeros(len(thresholds), np.int64) for overlap in overlaps}

    def add(self, scoremap: ArrayLike, boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> None:
        """scoremap (H, W), 224 × 224 in published numbers; boxes in a picture of `size` (H, W), far edges inclusive."""
        shape = np.shape(scoremap)
        truths = np.array([resized_box(box, size, (shape[0], shape[1])) for box in boxes])
        found = boxes_at(scoremap, self.thresholds, self.every, self.contours)
        best = np.array([iou(at, truths).max() for at in found])
        for overlap, right in self.right.items():
            right += best >= overlap / 100
        self.pictures += 1

    def result(self) -> dict[int, float]:
        """For each IoU in per cent, the accuracy at the threshold that is best for it."""
        if not self.pictures:
            raise ValueError("no picture was added, so there is nothing to score")
        return {overlap: float((right * 100.0 / self.pictures).max()) for overlap, right in self.right.items()}


class Masks:
    """PxAP, in per cent. `add(scoremap, mask)`, the mask as `mask_of` makes it; `result()`."""

    def __init__(self, thresholds: Sequence[float] | Floats = EVERY_THOUSANDTH) -> None:
        self.edges = np.append(np.asarray(thresholds, np.float64), [1.0, 2.0, 3.0])
        self.objects, self.others = np.zeros(len(self.edges) - 1), np.zeros(len(self.edges) - 1)

    def add(self, scoremap: ArrayLike, mask: Bytes) -> None:
        scores = _scoremap(scoremap)
        self.objects += np.histogram(scores[mask == 1], bins=self.edges)[0]
        self.others += np.histogram(scores[mask == 0], bins=self.edges)[0]

    def result(self) -> float:
        found, wrong = self.objects[::-1].cumsum(), self.others[::-1].cumsum()
        if found[-1] == 0:
            raise ValueError("no object pixel in any mask: there is no recall to speak of")
        precision = found / np.maximum(found + wrong, 1)
        # from the second threshold on, as there: what scores 2 or more, which is nothing, is the first
        return float((precision[1:] * np.diff(found / found[-1])).sum() * 100)


def mask_of(instances: Sequence[ArrayLike], ignore: ArrayLike, to: tuple[int, int] = (SIDE, SIDE)) -> Bytes:
    """(H, W): 1 where any instance's mask is set, 255 where pixels are ignored, 0 elsewhere.

    Masks (h, w) of any size, anything above 0.5 set; resized by taking the nearest pixel, up and to the left.
    """
    wanted: NDArray[np.bool_] = np.any([_nearest(mask, to) > 0.5 for mask in instances], axis=0)
    ignored = (_nearest(ignore, to) > 0.5) & ~wanted
    return np.where(wanted, 1, np.where(ignored, IGNORED, 0)).astype(np.uint8)


def _nearest(mask: ArrayLike, to: tuple[int, int]) -> Floats:
    pixels = np.asarray(mask, np.float64)
    # 1 / (new / old), not old / new: OpenCV's arithmetic, which differs in the last bit
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(int), old - 1)
        for new, old in zip(to, pixels.shape, strict=True)
    )
    nearest: Floats = pixels[rows][:, columns]
    return nearest


def _scoremap(scoremap: ArrayLike) -> Floats:
    values = np.asarray(scoremap, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a score map is (H, W); this has the shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a score map lies in [0, 1] and holds no NaN: see normalised()")
    return values


def _boxes(boxes: ArrayLike) -> Floats:
    array = np.asarray(boxes, np.float64)
    if array.ndim != 2 or array.shape[1] != 4 or (array < 0).any() or (array[:, 2:] < array[:, :2]).any():
        raise ValueError(f"boxes are (N, 4), (x0, y0, x1, y1) with 0 ≤ x0 ≤ x1 and 0 ≤ y0 ≤ y1; these are {boxes!r}")
    return array
