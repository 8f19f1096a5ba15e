"""How an image of any size becomes one of a stored size: the filter, and which part of it is kept.

Weights answer best on images that are prepared as those they were trained on: with these steps, a file gives the logits
that it gives under the evaluation transforms of timm and torchvision.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.images.as_picture import GRAY_OR_RGB, as_picture

Filter = Literal["bicubic", "bilinear"]
Crop = Literal["exact", "whole pixels", "whole pixels down", "squash"]
Size = tuple[int, int]

LARGEST = 16
"""Resized images may have so many times the pixels that are kept of them; longer ones are cropped first."""


@dataclass(frozen=True)
class Resizing:
    """The filter (both are antialiased), and what becomes of images of other proportions.

    `crop` is "exact": the centre, to fractions of a pixel; "whole pixels": the image is resized to a whole number of
    pixels, of which the centre is cropped to whole pixels, as torchvision's Resize and CenterCrop do; "whole pixels
    down": the same, where half a pixel is rounded down, as transformers does; "squash": the proportions are not kept,
    nothing is cropped.
    """

    filter: Filter = "bicubic"
    crop: Crop = "exact"

    def whole(self, image: Size, stored: Size) -> tuple[float, float]:
        """The height and width of the whole image when it is resized; whole numbers unless the crop is "exact"."""
        height, width = image
        if self.crop == "squash":
            return stored
        scale = max(stored[0] / height, stored[1] / width)
        if self.crop == "exact":
            return height * scale, width * scale
        if stored[0] != stored[1]:
            return round(height * scale), round(width * scale)
        short = stored[0]  # int(), and in this order, as torchvision
        return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)

    def corner(self, image: Size, stored: Size, size: Size) -> tuple[float, float]:
        """(top, left) of the stored part of the resized image; of that part, the network sees the centre of `size`."""
        whole = self.whole(image, stored)
        if self.crop == "exact":
            return (whole[0] - stored[0]) / 2, (whole[1] - stored[1]) / 2
        top, left = (
            self._half(resized - seen) - self.margin(kept, seen)
            for resized, kept, seen in zip(whole, stored, size, strict=True)
        )
        return top, left

    def margin(self, stored: int, size: int) -> int:
        """Pixels of a stored side before those that the network sees."""
        return (stored - size) // 2 if self.crop == "exact" else self._half(stored - size)

    def _half(self, pixels: float) -> int:
        return math.floor(pixels / 2) if self.crop == "whole pixels down" else round(pixels / 2)

    def fit(self, pixels: NDArray[np.uint8], stored: Size, size: Size) -> NDArray[np.uint8]:
        """(H, W, C) of any size → (*stored, C)."""
        image_size = pixels.shape[0], pixels.shape[1]
        if image_size == stored:
            return pixels
        if pixels.shape[2] not in GRAY_OR_RGB:  # Pillow knows no others
            channels = np.split(pixels, pixels.shape[2], axis=2)
            return np.concatenate([self.fit(channel, stored, size) for channel in channels], axis=2)
        (height, width), (top, left) = self.whole(image_size, stored), self.corner(image_size, stored, size)
        image = as_picture(pixels)
        resample = Image.Resampling[self.filter.upper()]
        if self.crop != "exact" and height * width <= LARGEST * stored[0] * stored[1]:
            x, y = int(left), int(top)
            out = image.resize((int(width), int(height)), resample).crop((x, y, x + stored[1], y + stored[0]))
        else:  # in one step, so that a 30000×2 image does not become 540000×36 in between
            y_scale, x_scale = image_size[0] / height, image_size[1] / width
            box = (
                max(0.0, left * x_scale),
                max(0.0, top * y_scale),
                min(float(image_size[1]), (left + stored[1]) * x_scale),
                min(float(image_size[0]), (top + stored[0]) * y_scale),
            )
            out = image.resize((stored[1], stored[0]), resample, box=box)
        return np.asarray(out).reshape(*stored, pixels.shape[2])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: object) -> Resizing:
        """Raises ValueError for what `to_json` does not write."""
        if not isinstance(given, dict) or set(given) != {"filter", "crop"}:
            raise ValueError(f"preprocessing: resizing is {given!r}; expected a filter and a crop")
        for key, known in (("filter", get_args(Filter)), ("crop", get_args(Crop))):
            if given[key] not in known:
                raise ValueError(f"preprocessing: resizing has the {key} {given[key]!r}; there are {', '.join(known)}")
        return cls(**given)


EXACT, TORCHVISION, TIMM = Resizing(), Resizing("bilinear", "whole pixels"), Resizing("bicubic", "whole pixels")
"""gapstone's own; what most weights of torchvision and timm expect."""


def published(filter: str, crop: str) -> Resizing:
    """The resizing of weights that timm publishes, by its names.

    >>> published("bilinear", "center")
    Resizing(filter='bilinear', crop='whole pixels')

    Raises: ValueError for a filter that is not known, and for images that are padded (timm's "border").
    """
    if crop not in ("center", "squash"):
        raise ValueError(
            f"weights for images of timm's crop mode {crop!r}; there are center and squash. Prepare the images by "
            f"timm's own transform: gs.explain(model, images)"
        )
    if filter not in get_args(Filter):
        raise ValueError(f"weights for images resized with the filter {filter!r}; there are bicubic and bilinear")
    return Resizing("bilinear" if filter == "bilinear" else "bicubic", "squash" if crop == "squash" else "whole pixels")
