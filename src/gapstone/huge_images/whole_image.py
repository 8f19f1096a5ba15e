"""`WholeImage`: an ordinary file (JPEG, PNG, …), decoded whole, within the pixel limit of all images."""

from pathlib import Path

import numpy as np

from gapstone.huge_images.huge_image import HugeImage, ImageLevel, ImageWindow
from gapstone.images.load import load


class WholeImage(HugeImage):
    """Upright, gray or sRGB, as `gapstone.images.load` gives it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        loaded = load(path)
        self._pixels = loaded.pixels
        self.kind = f"an image of mode {loaded.mode}, decoded whole"
        self.dtype, self.notes = np.dtype(np.uint8), loaded.notes
        height, width, self.channels = self._pixels.shape
        self.levels = (ImageLevel(height, width, 1.0, (height, width)),)

    def _decode(self, level: int, top: int, left: int, height: int, width: int) -> ImageWindow:
        return ImageWindow(self._pixels[top : top + height, left : left + width], None)
