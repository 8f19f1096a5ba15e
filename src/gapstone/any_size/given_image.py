"""An image of any size as bands of what a network takes, and small, to be looked at."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.any_size.thumbnail import Thumbnail
from gapstone.console.formatting import count_noun, display
from gapstone.huge_images.huge_image import HugeImage, ImageLevel
from gapstone.images.as_picture import same_channels
from gapstone.images.load import ImageError, convert, wrong_channels
from gapstone.images.preprocessing import Preprocessing

COPIES = 20
"""Bytes for each value of a band while it is normalised and added to the small picture."""


class GivenImage(ABC):
    """What is streamed: `size` (H, W), and bands of rows as often as they are asked for."""

    channels: int
    size: tuple[int, int]
    thumbnail: Thumbnail | None = None
    """Made in the first pass; None: not to be looked at, as values that somebody else has normalised."""
    making: Thumbnail | None = None
    """That of the pass that is played."""

    @abstractmethod
    def bands(self, rows: int, start: int = 0) -> Iterator[Tensor]:
        """(1, C, rows, W) from top to bottom, or from the row `start` on, on the CPU; the last may have fewer."""

    @abstractmethod
    def held(self, rows: int) -> int:
        """Bytes that are in memory while bands are read, besides what was given."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or left out."""
        return ()


class NormalisedImage(GivenImage):
    """A tensor (1, C, H, W) as the network takes it."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.channels, height, width = values.shape[1:]
        self.size = height, width

    def bands(self, rows: int, start: int = 0) -> Iterator[Tensor]:
        for top in range(start, self.size[0], rows):
            yield self.values[:, :, top : top + rows]

    def held(self, rows: int) -> int:
        return 0


class PixelImage(GivenImage, ABC):
    """Pixels, normalised band by band as a model's preprocessing says."""

    def __init__(self, preprocessing: Preprocessing, size: tuple[int, int], name: str) -> None:
        self.preprocessing, self.size, self.name = preprocessing, size, name
        self.channels = preprocessing.channels

    @abstractmethod
    def pixels(self, rows: int, start: int) -> Iterator[NDArray[np.generic]]:
        """(rows, W, C) from top to bottom, from the row `start` on."""

    def bands(self, rows: int, start: int = 0) -> Iterator[Tensor]:
        thumbnail = self.making
        if thumbnail is None or not start:
            thumbnail = self.making = Thumbnail(self.size, self.channels)
        for values in self.pixels(rows, start):
            shown = self._on_range(values)
            thumbnail.add(shown)
            yield self.preprocessing.normalise(torch.from_numpy(np.require(shown, requirements=["C", "W"]))[None])
        self.thumbnail = thumbnail

    def _on_range(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        try:
            shown = self.preprocessing.on_range(values)
            if shown is None and not same_channels(values.shape[2], self.channels):
                raise ImageError(wrong_channels(values.shape[2], self.channels))
            if shown is None:
                raise ImageError(
                    f"it has {values.dtype} values, and which of them are black and white for the model is not known: "
                    f"it was trained on {self.preprocessing.ranges}. Give 8 bits, or a model trained on such values"
                )
            return convert(shown, self.channels)
        except ImageError as error:
            raise ImageError(f"{self.name}: {error}") from error


class ArrayImage(PixelImage):
    """An array (H, W, C), or what behaves like one: a memory map, a zarr array."""

    def __init__(self, array: NDArray[np.generic], preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing, (array.shape[0], array.shape[1]), "the array")
        self.array = array

    def pixels(self, rows: int, start: int) -> Iterator[NDArray[np.generic]]:
        for top in range(start, self.size[0], rows):
            yield np.asarray(self.array[top : top + rows])

    def held(self, rows: int) -> int:
        return COPIES * rows * self.size[1] * self.channels


class FileImage(PixelImage):
    """One level of an image file."""

    def __init__(self, image: HugeImage, level: int, preprocessing: Preprocessing) -> None:
        self.image, self.level = image, level
        here = self._level()
        super().__init__(preprocessing, (here.height, here.width), display(image.path))

    def _level(self) -> ImageLevel:
        if not 0 <= self.level < len(self.image.levels):
            raise ValueError(
                f"level={self.level}: {display(self.image.path)} has {count_noun(len(self.image.levels), 'level')}, "
                f"from 0, the finest"
            )
        return self.image.levels[self.level]

    def pixels(self, rows: int, start: int) -> Iterator[NDArray[np.generic]]:
        for band in self.image.bands(rows, self.level, start):
            yield band.pixels

    def held(self, rows: int) -> int:
        tile = self._level().tile[0]
        step = tile * max(1, rows // tile)
        # rows of tiles: one in use, one read ahead, one cut
        return (3 * step + COPIES * rows) * self.size[1] * self.image.channels * self.image.dtype.itemsize

    @property
    def notes(self) -> tuple[str, ...]:
        damage = self.image.damage_text()
        return (*self.image.notes, *([damage] if damage else []))
