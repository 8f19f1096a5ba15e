"""`WholeImage`: an ordinary file (JPEG, PNG, …), decoded whole, within the pixel limit of all images."""

from pathlib import Path
from typing import Any

import numpy as np

from gapstone.huge_images.huge_image import HugeImage, ImageLevel, ImageWindow
from gapstone.images.intensity_range import Ranges
from gapstone.images.load import load


class WholeImage(HugeImage):
    """Upright, gray, sRGB or of other channels, as `gapstone.images.load` gives it.

    `ranges`: those of a model, on which values of more than 8 bits are seen; without them on a guess, as a note says.
    """

    def __init__(self, path: Path, ranges: Ranges | None = None) -> None:
        super().__init__(path)
        self.ranges = ranges
        loaded = load(path, ranges=ranges)
        self._pixels = loaded.pixels
        self.kind = f"an image of mode {loaded.mode}, decoded whole"
        self.dtype, self.notes = np.dtype(np.uint8), loaded.notes
        height, width, self.channels = self._pixels.shape
        self.levels = (ImageLevel(height, width, 1.0, (height, width)),)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.ranges)

    def _decode(self, level: int, top: int, left: int, height: int, width: int) -> ImageWindow:
        return ImageWindow(self._pixels[top : top + height, left : left + width], None)
