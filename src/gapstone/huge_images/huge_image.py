"""`HugeImage`: what every reader of huge images answers, and what all of them share.

A reader says its levels and decodes one window; checks, masks, damage, bands and pickling are here. A part that cannot
be decoded is never a black square: its pixels get the background's value, count as no data, and `damage` says where.
"""

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.huge_images.read_ahead import read_ahead
from gapstone.images.load import ImageError
from gapstone.storage.paths import format_bytes

MOST_BAND_BYTES = 8 << 30
"""Of one row of tiles: a file that says to be wider is refused instead of read until memory ends."""


class ImageLevel(NamedTuple):
    """One resolution of an image; 0 is the finest."""

    height: int
    width: int
    downsample: float  # px of level 0 per px of this one
    tile: tuple[int, int]  # (height, width) of what the file decodes at once


class ImageWindow(NamedTuple):
    """Pixels, and where there are any."""

    pixels: NDArray[Any]  # (H, W, C)
    valid: NDArray[np.bool_] | None  # (H, W), False where there is no data; None if there is everywhere


class ImageBand(NamedTuple):
    """Rows of full width."""

    top: int
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None


class Damage(NamedTuple):
    """A part of the file that could not be decoded, in px of its level."""

    level: int
    top: int
    left: int
    height: int
    width: int
    reason: str


class LevelChoice(NamedTuple):
    """The level for a resolution, and by what factor it still has to be shrunk; below 1: to be enlarged."""

    level: int
    factor: float


class HugeImage(ABC):
    """An image that is read window by window, or band by band; what `open_huge_image` returns.

    It may be pickled: another process opens the file anew. Threads may share one.
    """

    kind: str
    """The file's format, in words."""
    channels: int
    dtype: np.dtype[Any]
    levels: tuple[ImageLevel, ...]
    micrometres: float | None = None
    """Per px of level 0."""
    compression: str | None = None
    notes: tuple[str, ...] = ()
    """What was assumed or left out."""
    background: float = 255
    """The value of pixels without data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damage: dict[tuple[int, int, int], Damage] = {}
        self._lock = threading.Lock()

    @property
    def height(self) -> int:
        """Rows of level 0."""
        return self.levels[0].height

    @property
    def width(self) -> int:
        """Columns of level 0."""
        return self.levels[0].width

    @property
    def damage(self) -> tuple[Damage, ...]:
        """The parts that could not be decoded, of those that were read so far."""
        return tuple(sorted(self._damage.values()))

    def read(self, top: int, left: int, height: int, width: int, level: int = 0) -> NDArray[Any]:
        """Pixels (height, width, channels) of a window, in px of its level."""
        return self.read_window(top, left, height, width, level).pixels

    def read_mask(self, top: int, left: int, height: int, width: int, level: int = 0) -> NDArray[np.bool_]:
        """Where a window has data (height, width): False where nothing was scanned, or the file is damaged."""
        valid = self.read_window(top, left, height, width, level).valid
        return np.ones((height, width), np.bool_) if valid is None else valid

    def read_window(self, top: int, left: int, height: int, width: int, level: int = 0) -> ImageWindow:
        """Pixels and mask in one go. Raises ValueError if the window isn't within the level."""
        here = self._level(level)
        if min(top, left) < 0 or min(height, width) < 1 or top + height > here.height or left + width > here.width:
            raise ValueError(
                f"rows {top} to {top + height} and columns {left} to {left + width} were asked for; level {level} of "
                f"{display(self.path)} has {here.height} rows and {here.width} columns"
            )
        return self._decode(level, top, left, height, width)

    def level_for(self, micrometres: float) -> LevelChoice:
        """The coarsest level that is at least as fine as so many µm per px, and the factor that remains.

        Raises ValueError if the file doesn't say its resolution.
        """
        if self.micrometres is None:
            raise ValueError(f"{display(self.path)} does not say its µm per px: choose a level by its number")
        if not micrometres > 0:
            raise ValueError(f"{micrometres} µm per px: expected a positive number, such as 0.5")
        sizes = [self.micrometres * level.downsample for level in self.levels]
        # 1 %: levels are rounded to whole px
        level = max((n for n, size in enumerate(sizes) if size <= micrometres * 1.01), default=0)
        return LevelChoice(level, micrometres / sizes[level])

    def bands(self, rows: int, level: int = 0, start: int = 0) -> Iterator[ImageBand]:
        """All rows of a level from the top, or from `start` on, `rows` at a time; the last band may have fewer.

        The file is read in whole rows of its tiles, each once, one ahead in a thread of its own.
        """
        if rows < 1:
            raise ValueError(f"bands of {rows} rows: expected at least 1")
        here = self._level(level)
        step = here.tile[0] * max(1, rows // here.tile[0])
        if (size := step * here.width * self.channels * self.dtype.itemsize) > MOST_BAND_BYTES:
            raise ImageError(
                f"{display(self.path)}: {step} rows at once are {format_bytes(size)}: ask for fewer rows, or a coarser "
                f"level"
            )

        def read(top: int) -> ImageBand:
            return ImageBand(top, *self.read_window(top, 0, min(step, here.height - top), here.width, level))

        first = start - start % step
        return cut_bands(_from(start, read_ahead(read, range(first, here.height, step))), rows)

    def _level(self, number: int) -> ImageLevel:
        if not 0 <= number < len(self.levels):
            raise ValueError(f"level {number}: {display(self.path)} has the levels 0 to {len(self.levels) - 1}")
        return self.levels[number]

    @abstractmethod
    def _decode(self, level: int, top: int, left: int, height: int, width: int) -> ImageWindow:
        """A window that is known to be within the level; a part of it that is damaged goes to `_damaged`."""

    def close(self) -> None:  # noqa: B027  some hold nothing open
        """Close the file."""

    def __enter__(self) -> "HugeImage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({display(self.path)!r}, {self.height}×{self.width}×{self.channels} {self.dtype})"

    def _damaged(self, level: int, top: int, left: int, reason: str) -> None:
        here = self.levels[level]
        size = min(here.tile[0], here.height - top), min(here.tile[1], here.width - left)
        with self._lock:
            first = not self._damage
            self._damage[level, top, left] = Damage(level, top, left, *size, display(reason))
        if first:
            warnings.warn(
                f"{display(self.path)}: {size[0]}×{size[1]} px at row {top}, column {left} of level {level} cannot be "
                f"decoded ({display(reason)}); they count as no data. `damage` lists all such parts.",
                stacklevel=2,
            )

    def damaged_before(self, parts: Iterable[Damage]) -> None:
        """Parts that an earlier run could not decode, which this one does not read again."""
        self._damage |= {(part.level, part.top, part.left): part for part in parts}

    def damage_text(self) -> str | None:
        """What could not be decoded so far, in one sentence; None if all could."""
        if not self._damage:
            return None
        first = self.damage[0]
        return (
            f"{count_noun(len(self._damage), 'part')} of {display(self.path)} cannot be decoded and count as no data, "
            f"the first at row {first.top}, column {first.left} of level {first.level}: {first.reason}"
        )


def background_of(dtype: DTypeLike, value: float) -> Any:
    """A value as this type has it: 0 where it doesn't fit."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.asarray(value, kind)[()]
    limits = np.iinfo(kind)
    fits = float(value).is_integer() and limits.min <= value <= limits.max
    return np.asarray(value if fits else 0, kind)[()]


def _from(start: int, bands: Iterator[ImageBand]) -> Iterator[ImageBand]:
    for band in bands:
        yield band if band.top >= start else part_of_band(band, start - band.top, len(band.pixels))


def cut_bands(bands: Iterator[ImageBand], rows: int) -> Iterator[ImageBand]:
    """Bands of other heights, in order, as bands of `rows` rows."""
    held: list[ImageBand] = []
    count = 0
    for band in bands:
        held.append(band)
        count += len(band.pixels)
        if count >= rows:
            whole = join_bands(held)
            cut = count - count % rows
            for at in range(0, cut, rows):
                yield part_of_band(whole, at, at + rows)
            count -= cut
            held = [part_of_band(whole, cut, cut + count)] if count else []
    if count:
        yield join_bands(held)


def join_bands(bands: list[ImageBand]) -> ImageBand:
    if len(bands) == 1:
        return bands[0]
    valid = None
    if any(band.valid is not None for band in bands):
        known = [np.ones(b.pixels.shape[:2], np.bool_) if b.valid is None else b.valid for b in bands]
        valid = np.concatenate(known)
    return ImageBand(bands[0].top, np.concatenate([band.pixels for band in bands]), valid)


def part_of_band(band: ImageBand, begin: int, end: int) -> ImageBand:
    valid = None if band.valid is None else band.valid[begin:end]
    return ImageBand(band.top + begin, band.pixels[begin:end], valid)
