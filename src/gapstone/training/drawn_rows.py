"""Training batches that random transforms of the user's own draw, anew in each epoch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gapstone.data.sources import DrawsImages
from gapstone.images.load import convert
from gapstone.images.preprocessing import Preprocessing

Rows = NDArray[np.intp]
DESCRIBED = "random transforms of the user's own, drawn anew in each epoch"


@dataclass(frozen=True)
class DrawnRows:
    """The images of a store, as they are drawn for training.

        >>> for pixels in drawn.batches([np.array([3, 1])], seed=0, epoch=1, preprocessing=preprocessing):
        ...     pixels.shape
        (2, 224, 224, 3)

    An image depends on seed, epoch and the image alone, and on how often the epoch has drawn it before.
    """

    images: DrawsImages
    used: Rows = field(repr=False)
    """By row of the store, the item of the source."""

    @property
    def digest(self) -> str:
        """Of what the transforms do."""
        return self.images.digest

    def batches(
        self, batches: Sequence[Rows], seed: int, epoch: int, preprocessing: Preprocessing
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the images (n, *size, C) of each batch of an epoch."""
        drawn: Counter[int] = Counter()
        for rows in batches:
            times = _counted(rows, drawn)
            with self.images.random_state_kept():  # dropout draws from torch's generator
                images = [self._draw(row, (seed, epoch, time), preprocessing) for row, time in times]
            yield np.stack(images)

    def _draw(self, row: int, seed: tuple[int, ...], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        pixels = self.images.draw(int(self.used[row]), seed, preprocessing.ranges)
        if pixels.shape[:2] == preprocessing.size:
            return convert(pixels, preprocessing.channels)
        fitted: NDArray[np.uint8] = preprocessing.centre(preprocessing.fit(pixels)[None])[0]
        return fitted


def _counted(rows: Rows, drawn: Counter[int]) -> list[tuple[int, int]]:
    """(row, how often it has been drawn); a balanced epoch draws images of small classes again."""
    counted = []
    for row in rows.tolist():
        drawn[row] += 1
        counted.append((row, drawn[row]))
    return counted
