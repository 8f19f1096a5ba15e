"""The values of an image file of any number of channels: a satellite's bands, a microscope's stains."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.images.high_bit_depth import TURNS, content_of, spread_of
from gapstone.images.intensity_range import AnySpread, Ranges, decide, note, on_ranges


@dataclass(frozen=True, eq=False)
class Bands:
    """An image before its values become 0…255, on a range of its own for each channel, unless it is gray or RGB.

    >>> bands = Bands(np.full((4, 4, 5), 700, np.uint16))
    >>> pixels, spread = bands.as_pixels(Ranges(integers=((0, 1000),) * 5), [])
    >>> int(pixels[0, 0, 4]), spread[4].highest
    (179, 700.0)
    """

    values: NDArray[Any]
    """(H, W, C): uint8, other whole numbers or float32, in the machine's byte order."""
    notes: list[str] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """As Pillow calls it, where it has a name."""
        return channels_mode(self.values.shape[2])

    def turned(self, orientation: int) -> "Bands":
        """The upright image, given an EXIF orientation."""
        turn = TURNS.get(orientation)
        return self if turn is None else replace(self, values=turn(self.values))

    def content(self) -> bytes:
        """A hash of the values, equal to that of the same values in an array; of 8 bits there is none."""
        return b"" if self.values.dtype == np.uint8 else content_of(self.values)

    def as_pixels(self, ranges: Ranges, notes: list[str]) -> tuple[NDArray[np.uint8], AnySpread | None]:
        """(H, W, C) of 0…255, and the spread of the values (None if they have 8 bits).

        The range is that of `ranges` or, if that has none, a guess from this image. Raises ValueError for floats that
        are not finite.
        """
        notes.extend(self.notes)
        if self.values.dtype == np.uint8:
            return self.values, None
        spread = spread_of(self.values)
        used = ranges
        if guessed := (shown := on_ranges(self.values, used)) is None:
            used = decide([spread])
            shown = on_ranges(self.values, used)
        assert shown is not None
        kind = spread[0].kind if isinstance(spread, tuple) else spread.kind
        value = used.of(kind)
        assert value is not None
        notes.append(note(spread, value, guessed))
        return shown, spread


def channels_mode(channels: int) -> str:
    """What a mode of so many channels is called.

    >>> channels_mode(3), channels_mode(12)
    ('RGB', '12 channels')
    """
    return {1: "L", 3: "RGB"}.get(channels, f"{channels} channels")
