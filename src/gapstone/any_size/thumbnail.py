"""A small picture of an image of any size, made of its bands as they pass."""

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.streaming.row_buffer import State

SIDE = 1024
"""px: the longest side of the small picture."""


class Thumbnail:
    """Means over squares of `factor` px, from bands of rows from top to bottom.

    >>> small = Thumbnail((4096, 2048), 1)
    >>> small.add(np.full((4096, 2048, 1), 7, np.uint8))
    >>> small.pixels.shape, int(small.pixels[0, 0, 0])
    ((1024, 512, 1), 7)
    """

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.size = size
        self.factor = max(1, -(-max(size) // SIDE))
        height, width = (-(-n // self.factor) for n in size)
        self._sums = np.zeros((height, width, channels), np.int64)
        self._row = 0

    def saved(self) -> State:
        """What a run that was stopped goes on from; `restore` takes it."""
        return {"sums": torch.from_numpy(self._sums), "row": self._row}

    def restore(self, state: State) -> None:
        self._sums, self._row = state["sums"].numpy(), state["row"]

    def add(self, rows: NDArray[np.uint8]) -> None:
        """The next rows (h, W, C)."""
        starts = np.arange(0, rows.shape[1], self.factor)
        across = np.add.reduceat(rows, starts, axis=1, dtype=np.int64)
        first = -(self._row % self.factor)
        down = np.maximum(np.arange(first, len(rows), self.factor), 0)
        sums = np.add.reduceat(across, down, axis=0)
        top = self._row // self.factor
        self._sums[top : top + len(sums)] += sums
        self._row += len(rows)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(h, w, C), of the rows that have come."""
        counts = [
            np.minimum(self.factor, n - self.factor * np.arange(cells))
            for n, cells in zip(self.size, self._sums.shape[:2], strict=True)
        ]
        area = counts[0][:, None, None] * counts[1][None, :, None]
        pixels: NDArray[np.uint8] = np.rint(self._sums / area).astype(np.uint8)
        return pixels

    @property
    def scale(self) -> float:
        """Its px for each px of the image."""
        return 1 / self.factor
