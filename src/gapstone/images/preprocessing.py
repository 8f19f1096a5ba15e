"""`Preprocessing`: crop, resize, (x/255 − mean) / std; the same numbers in training, prediction and export.

Sizes are (height, width) in pixels, mean and std per channel on the scale 0…1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gapstone.images.as_picture import MOST_CHANNELS
from gapstone.images.intensity_range import UNDECIDED, Ranges, is_number, is_of_channels, on_ranges
from gapstone.images.load import ImageError, convert
from gapstone.images.resizing import EXACT, Resizing

if TYPE_CHECKING:
    from torch import Tensor

Batch = TypeVar("Batch", "Tensor", "NDArray[np.uint8]")

LATER: dict[str, object] = {"ranges": UNDECIDED, "resizing": EXACT}
"""Fields that earlier versions did not have, and what they did."""

LARGEST = 4096  # pixels per side; a larger input of a classifier is a mistake or an attack


class Seen(NamedTuple):
    """The part of an image that the network sees."""

    scale: tuple[float, float]
    """Pixels of the image per pixel of the input: (down, right)."""
    origin: tuple[float, float]
    """(top, left) of the part, in pixels of the image."""


@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into the network's input.

    ```python
    p = Preprocessing(3, size=(224, 224), stored=(256, 256), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    stored = p.fit(load("photo.jpg").pixels)        # (256, 256, 3) uint8: cropped and resized
    centre = p.centre(stored[None])                 # (1, 224, 224, 3)
    p.normalise(torch.from_numpy(centre)).shape     # (1, 3, 224, 224) float32, channels last in memory
    ```

    Args:
        channels: 1 (gray), 3 (sRGB), or any other number up to 16, such as the bands of a satellite.
        size: of the network's input.
        stored: size of a stored image, which has a margin for random crops.
        mean: per channel.
        std: per channel.
        ranges: the values of more than 8 bits that are black and white for the network; to be given to `load`.
        resizing: how images become stored ones.

    Raises:
        ValueError: the numbers make no sense.
    """

    channels: int
    size: tuple[int, int]
    stored: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ranges: Ranges = UNDECIDED
    resizing: Resizing = EXACT

    def __post_init__(self) -> None:
        if not (_is_int(self.channels) and 1 <= self.channels <= MOST_CHANNELS):
            raise ValueError(
                f"preprocessing: channels is {self.channels!r}; expected 1 (gray), 3 (sRGB) or another number "
                f"from 1 to {MOST_CHANNELS}"
            )
        for name in ("size", "stored"):
            pair = getattr(self, name)
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(_is_int(v) and 0 < v <= LARGEST for v in pair)):
                raise ValueError(
                    f"preprocessing: {name} is {pair!r}; expected (height, width), each 1…{LARGEST} pixels"
                )
        if self.stored[0] < self.size[0] or self.stored[1] < self.size[1]:
            raise ValueError(f"preprocessing: stored {self.stored} is smaller than size {self.size}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (isinstance(values, tuple) and len(values) == self.channels and all(map(is_number, values))):
                raise ValueError(f"preprocessing: {name} is {values!r}; expected {self.channels} finite number(s)")
        if min(self.std) <= 0:
            raise ValueError(f"preprocessing: std is {self.std!r}; expected numbers above 0")
        for value in (self.ranges.integers, self.ranges.floats):
            if value is not None and is_of_channels(value) and len(value) != self.channels:
                raise ValueError(f"preprocessing: ranges of {len(value)} channels; expected {self.channels}")

    def on_range(self, values: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Values (H, W, C) of an array as 0…255, on `ranges`; None where these have none for them.

        Raises ImageError for floats that are not finite.
        """
        try:
            return on_ranges(values, self.ranges)
        except ValueError as error:
            raise ImageError(str(error)) from error

    def fit(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, C) of any size → (*stored, channels): resized, and cropped to the proportions of `stored`.

        The crop is centred, the filter antialiased; the proportions of the image are kept, unless `resizing` squashes.
        """
        return self.resizing.fit(convert(pixels, self.channels), self.stored, self.size)

    def native(self, pixels: NDArray[np.uint8], smallest: int = 1) -> NDArray[np.uint8]:
        """(H, W, C) → (H, W, channels): the image in its own size, neither cropped nor resized.

        ```python
        p.native(load("photo.jpg").pixels).shape      # (480, 640, 3)
        ```

        `smallest` is the shortest side that the network accepts. Raises ImageError with the reason of `not_native`.
        """
        reason = not_native(pixels.shape[0], pixels.shape[1], smallest)
        if reason is not None:
            raise ImageError(reason)
        return convert(pixels, self.channels)

    def seen(self, height: int, width: int) -> Seen:
        """The part of an image of that size that the network sees.

        ```python
        Preprocessing(3, (224, 224), (256, 256), mean, std).seen(1024, 2048)     # Seen((4.0, 4.0), (64.0, 576.0))
        ```
        """
        whole = self.resizing.whole((height, width), self.stored)
        corner = self.resizing.corner((height, width), self.stored, self.size)
        scale = height / whole[0], width / whole[1]
        top, left = ((a + margin) * k for a, margin, k in zip(corner, self._margin, scale, strict=True))
        return Seen(scale, (top, left))

    @property
    def _margin(self) -> tuple[int, int]:
        """Rows and columns of a stored image before those that the network sees."""
        top, left = (self.resizing.margin(kept, seen) for kept, seen in zip(self.stored, self.size, strict=True))
        return top, left

    def centre(self, batch: Batch) -> Batch:
        """(N, h, w, C) → (N, *size, C): the centre of each image, as a view."""
        height, width = self.size
        h, w = int(batch.shape[1]), int(batch.shape[2])
        if h < height or w < width:
            raise ValueError(
                f"preprocessing.centre: images of {h}×{w} are smaller than the {height}×{width} to be seen"
            )
        # of other images than stored ones, the centre
        top, left = self._margin if (h, w) == self.stored else ((h - height) // 2, (w - width) // 2)
        return batch[:, top : top + height, left : left + width]

    def normalise(self, batch: Tensor) -> Tensor:
        """(N, H, W, C) uint8 → (N, C, H, W) float32 in channels-last memory, (x/255 − mean) / std; any H and W."""
        import torch

        if batch.ndim != 4 or batch.shape[3] != self.channels or batch.dtype != torch.uint8:
            raise ValueError(
                f"preprocessing.normalise: got {batch.dtype} of shape {tuple(batch.shape)}; expected torch.uint8 "
                f"(N, H, W, {self.channels})"
            )
        # x·a + b is a single multiply-add per value
        a = torch.tensor([1 / (255 * s) for s in self.std], dtype=torch.float32, device=batch.device)
        b = torch.tensor(
            [-m / s for m, s in zip(self.mean, self.std, strict=True)], dtype=torch.float32, device=batch.device
        )
        normalised = torch.addcmul(b, batch.to(torch.float32), a)
        return normalised.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, for a model file."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in LATER}
        # without what later versions added where it is the default: files of earlier versions stay the same
        later = {
            name: getattr(self, name).to_json() for name, default in LATER.items() if getattr(self, name) != default
        }
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()} | later

    @classmethod
    def from_json(cls, given: object) -> Preprocessing:
        """The opposite of `to_json`; every field is checked, because model files are foreign. Raises ValueError."""
        names = ("channels", "size", "stored", "mean", "std")
        if not isinstance(given, dict) or set(given) - set(LATER) != set(names):
            has = sorted(map(str, given)) if isinstance(given, dict) else type(given).__name__
            raise ValueError(f"preprocessing: expected the fields {', '.join(names)}; got {has}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v := given[name], list) else v for name in names}
        for name in ("mean", "std"):
            if isinstance(values[name], tuple) and all(map(is_number, values[name])):
                values[name] = tuple(map(float, values[name]))
        resizing = Resizing.from_json(given["resizing"]) if "resizing" in given else EXACT
        return cls(**values, ranges=Ranges.from_json(given.get("ranges", {})), resizing=resizing)


def not_native(height: int, width: int, smallest: int) -> str | None:
    """Why a network cannot see an image of this size without a resize; None if it can.

    A side is shorter than `smallest`, which the network needs, or the image has more than 4096² pixels, whose maps
    would take gigabytes.
    """
    if min(height, width) < smallest:
        return (
            f"{width}×{height} px, and the network needs at least {smallest} a side to see a picture as it is; "
            f"resized (without native) it can"
        )
    if height * width > LARGEST**2:
        return (
            f"{width}×{height} px are more than the {LARGEST**2:,} pixels that are shown to a network as they are; "
            f"make it smaller, or let it be resized (without native)"
        )
    return None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_size(size: str) -> tuple[int, int]:
    """(height, width) of the option --size, "96" or "96x128". Raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:[x×,]\s*(\d{1,5})\s*)?", str(size).lower())
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(8 <= s <= LARGEST for s in sides):
        raise ValueError(
            f"size {size!r}: expected a number of pixels such as 96, or 96x128 (height x width), 8…{LARGEST}"
        )
    return sides
