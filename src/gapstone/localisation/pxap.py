"""PxAP (arXiv 2007.04178): average precision of "this pixel belongs to the object", over the pixels of all pictures."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapstone.localisation.cam_boxes import scaled
from gapstone.localisation.iou import Floats

THOUSAND = np.arange(1000) / 1000
Integers = NDArray[np.int64]


def pxap(
    maps: Iterable[ArrayLike], masks: Iterable[ArrayLike], ignores: Iterable[ArrayLike | None] | None = None
) -> float:
    """Pixel average precision of a set, 0 to 1.

        >>> pxap(maps, masks)                       # each (H, W); pictures may differ in size
        >>> pxap(maps, masks, ignores)

    A map counts as fractions of its own maximum. Masks and the pixels to ignore are bool (or 0 and 1); the mask wins
    where both are set. Raises ValueError where the masks hold no pixel at all.
    """
    counts = PixelCounts()
    given = ((*two, None) for two in zip(maps, masks, strict=True))
    for map, mask, ignore in given if ignores is None else zip(maps, masks, ignores, strict=True):
        counts.add(scaled(map)[0], mask, ignore)
    return counts.result()


class PixelCounts:
    """How many object and other pixels lie above each threshold: two histograms, which add up over pictures."""

    def __init__(self) -> None:
        self.masks = 0
        self.objects, self.others = np.zeros(len(THOUSAND) + 1, np.int64), np.zeros(len(THOUSAND) + 1, np.int64)

    def add(self, fractions: Floats, mask: ArrayLike, ignore: ArrayLike | None = None) -> None:
        wanted = _mask("mask", mask, fractions.shape)
        others = ~wanted if ignore is None else ~(wanted | _mask("ignore", ignore, fractions.shape))
        levels = THOUSAND.searchsorted(fractions)  # above how many thresholds a pixel is
        self.objects += np.bincount(levels[wanted], minlength=len(self.objects))
        self.others += np.bincount(levels[others], minlength=len(self.others))
        self.masks += 1

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        both = PixelCounts()
        both.objects, both.others = self.objects + other.objects, self.others + other.others
        both.masks = self.masks + other.masks
        return both

    def result(self) -> float:
        """Sum over thresholds, from the highest down, of precision × the recall gained; the rest comes last."""
        found, wrong = self.objects[::-1].cumsum(), self.others[::-1].cumsum()
        if not self.masks or not found[-1]:
            raise ValueError(f"{self.masks} masks, and no object pixel in any: there is no recall to speak of")
        gained = self.objects[::-1]
        useful = gained > 0
        return float((found[useful] / (found + wrong)[useful] * gained[useful]).sum() / found[-1])


def _mask(name: str, given: ArrayLike, size: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(given)
    if array.shape != size:
        raise ValueError(f"{name} is {array.shape} and the map is {size}: give both in the picture's size")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} holds other values than 0 and 1: compare it first, as in image > 127")
    return array.astype(np.bool_)
