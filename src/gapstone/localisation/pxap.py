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
    """Return the pixel average precision of a set of pictures, 0 to 1.

        >>> pxap(maps, masks)                       # each (H, W); pictures may differ in size
        >>> pxap(maps, masks, ignores)

    Args:
        maps: Signed maps; each counts as fractions of its own maximum.
        masks: The pixels of the objects, bool or 0 and 1.
        ignores: The pixels that do not count, likewise; a pixel that is also in the mask counts.

    Raises:
        ValueError: If the masks have no pixel at all.
    """
    counts = PixelCounts()
    pairs = ((*pair, None) for pair in zip(maps, masks, strict=True))
    for map, mask, ignore in pairs if ignores is None else zip(maps, masks, ignores, strict=True):
        counts.add(scaled(map)[0], mask, ignore)
    return counts.result()


class PixelCounts:
    """Histograms of object pixels and of other pixels by the thresholds they exceed; they add up over pictures."""

    def __init__(self) -> None:
        self.masks = 0
        self.objects, self.others = np.zeros(len(THOUSAND) + 1, np.int64), np.zeros(len(THOUSAND) + 1, np.int64)

    def add(self, fractions: Floats, mask: ArrayLike, ignore: ArrayLike | None = None) -> None:
        """Count the pixels of a picture."""
        objects = _mask("mask", mask, fractions.shape)
        others = ~objects if ignore is None else ~(objects | _mask("ignore", ignore, fractions.shape))
        levels = THOUSAND.searchsorted(fractions)  # number of thresholds that a pixel exceeds
        self.objects += np.bincount(levels[objects], minlength=len(self.objects))
        self.others += np.bincount(levels[others], minlength=len(self.others))
        self.masks += 1

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        total = PixelCounts()
        total.objects, total.others = self.objects + other.objects, self.others + other.others
        total.masks = self.masks + other.masks
        return total

    def result(self) -> float:
        """Return the sum of precision × gain of recall over the thresholds from the highest down."""
        hits, misses = self.objects[::-1].cumsum(), self.others[::-1].cumsum()
        if not self.masks or not hits[-1]:
            raise ValueError(f"{self.masks} masks, and no object pixel in any: there is no recall to speak of")
        gained = self.objects[::-1]
        positive = gained > 0
        return float((hits[positive] / (hits + misses)[positive] * gained[positive]).sum() / hits[-1])


def _mask(name: str, values: ArrayLike, size: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.shape != size:
        raise ValueError(f"{name} is {array.shape} and the map is {size}: give both in the picture's size")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} holds other values than 0 and 1: compare it first, as in image > 127")
    return array.astype(np.bool_)
