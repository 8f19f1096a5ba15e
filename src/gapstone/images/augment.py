"""Random crops and flips for training, from a stream that depends on the seed alone: all heads see the same."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augment:
    """What is done to a training batch of stored images before the network sees it.

        >>> Augment(flip=True, shift=4)(batch, (32, 32), np.random.default_rng(0)).shape
        (64, 32, 32, 3)

    `flip`: half of the images are mirrored left to right. `crop`: a random part of the stored image instead of its
    centre, where it is stored larger than the network sees it. `shift`: where it is not, it is moved by up to so many
    pixels each way, the border repeated.
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
        """(N, h, w, C) as stored → (N, *size, C) as the network sees it."""
        how_many = len(batch)
        if self.shift and batch.shape[1:3] == size:
            batch = np.pad(batch, ((0, 0), (self.shift,) * 2, (self.shift,) * 2, (0, 0)), mode="edge")
        rows, columns = batch.shape[1] - size[0], batch.shape[2] - size[1]
        # drawn whether used or not, so that switching one of them does not change the others' stream
        top, left = random.random(how_many), random.random(how_many)
        flipped = random.random(how_many) < 0.5
        if not (self.crop or self.shift):
            top = left = np.full(how_many, 0.5)
        out = np.empty((how_many, *size, batch.shape[3]), np.uint8)
        for i in range(how_many):
            y, x = int(top[i] * (rows + 1)), int(left[i] * (columns + 1))
            part = batch[i, y : y + size[0], x : x + size[1]]
            out[i] = part[:, ::-1] if self.flip and flipped[i] else part
        return out


def suit(channels: int, size: tuple[int, int], stored: tuple[int, int]) -> Augment:
    """What suits the images: nothing for gray ones (a mirrored digit is another sign, a scan has its sides), flips and
    moves for colour pictures.
    """
    if channels == 1:
        return Augment(crop=stored != size)
    if stored != size:
        return Augment(flip=True, crop=True)
    return Augment(flip=True, shift=max(size) // 8)
