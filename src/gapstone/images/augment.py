"""Random crops and flips for training; the random numbers depend only on the seed, so all heads see the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augment:
    """The augmentation of a training batch of stored images.

        >>> Augment(flip=True, shift=4)(batch, (32, 32), np.random.default_rng(0)).shape
        (64, 32, 32, 3)

    Args:
        flip: mirror half of the images left to right.
        crop: take a random part of a stored image that is larger than the network's input, instead of its centre.
        shift: shift a stored image of the size of the network's input by up to so many pixels, repeating the border.
    """

    flip: bool = False
    crop: bool = False
    shift: int = 0

    def describe(self) -> str:
        parts = ["flips"] * self.flip + ["random crops"] * self.crop
        parts += [f"shifts of up to {self.shift} px"] if self.shift else []
        return " and ".join(parts) or "none"

    def __call__(
        self, batch: NDArray[np.uint8], size: tuple[int, int], random: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Stored images (N, h, w, C) → the network's input (N, *size, C)."""
        count = len(batch)
        if self.shift and batch.shape[1:3] == size:
            batch = np.pad(batch, ((0, 0), (self.shift,) * 2, (self.shift,) * 2, (0, 0)), mode="edge")
        rows, columns = batch.shape[1] - size[0], batch.shape[2] - size[1]
        # drawn even if unused, so that an option does not change the random numbers of the others
        top, left = random.random(count), random.random(count)
        flipped = random.random(count) < 0.5
        if not (self.crop or self.shift):
            top = left = np.full(count, 0.5)
        out = np.empty((count, *size, batch.shape[3]), np.uint8)
        for i in range(count):
            y, x = int(top[i] * (rows + 1)), int(left[i] * (columns + 1))
            part = batch[i, y : y + size[0], x : x + size[1]]
            out[i] = part[:, ::-1] if self.flip and flipped[i] else part
        return out


def suit(channels: int, size: tuple[int, int], stored: tuple[int, int]) -> Augment:
    """The augmentation for a data set: flips and shifts for colour images, no flips or shifts for gray ones.

    A mirrored digit is another sign, and a scan has a left and a right side.
    """
    if channels == 1:
        return Augment(crop=stored != size)
    if stored != size:
        return Augment(flip=True, crop=True)
    return Augment(flip=True, shift=max(size) // 8)
