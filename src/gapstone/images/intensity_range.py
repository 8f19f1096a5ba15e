"""Chooses which values of images of more than 8 bits become 0 (black) and 255 (white), once for a whole data set.

A 16-bit file does not say how many of its bits are used: a 12-bit camera's image is nearly black on 0…65535. A guess
per file would make dark and bright images look the same, and classes that differ in brightness indistinguishable. So a
scan looks at all files and chooses one range, which the model stores. Only for an image without a data set or a model
(`Ranges()`) it is guessed from that image, with a note.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["integers", "floats"]
Range = tuple[float, float]

USUAL = (255, 1023, 4095, 16383, 65535)
"""White in images of 8, 10, 12, 14 and 16 bits."""

RARE = 1000
"""One of so many pixels may lie beyond the range: a hot pixel, an overshoot of a filter."""

_AT_ONCE = 1 << 20  # values
_ROWS = 1024  # rows at once: float64 values of an image of 100 megapixels take 800 MB


@dataclass(frozen=True, slots=True)
class ValueSpread:
    """The range of the values of an image; `low` and `high` leave out the rarest values."""

    kind: Kind
    lowest: float
    highest: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """The (black, white) values of integers of more than 8 bits, and of floats; None: not decided.

    ```python
    ranges = decide([spread(values) for values in pictures])
    ranges                              # Ranges(integers=(0, 4095), floats=None)
    to_uint8(values, ranges.integers)   # 4095 and above become 255
    ```
    """

    integers: Range | None = None
    floats: Range | None = None

    def __post_init__(self) -> None:
        for name in ("integers", "floats"):
            if (value := getattr(self, name)) is not None and not _is_range(value):
                raise ValueError(
                    f"ranges: {name} is {value!r}; expected (black, white), two finite numbers, the second larger"
                )

    def of(self, kind: Kind) -> Range | None:
        return self.integers if kind == "integers" else self.floats

    def or_else(self, other: "Ranges") -> "Ranges":
        """These ranges, and those of the other for what is not decided here."""
        return Ranges(self.integers or other.integers, self.floats or other.floats)

    def __str__(self) -> str:
        texts = [f"{kind} {range_text(value)}" for kind in ("integers", "floats") if (value := getattr(self, kind))]
        return ", ".join(texts) or "none"

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) for name in ("integers", "floats") if (value := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, fields: object) -> "Ranges":
        """The opposite of `to_json`. Raises ValueError."""
        if not isinstance(fields, dict) or not set(fields) <= {"integers", "floats"}:
            has = sorted(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
            raise ValueError(f"ranges: expected the fields integers and floats; got {has}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


UNDECIDED = Ranges()
"""The ranges of a data set or a model with only 8-bit images."""


def range_text(value: Range) -> str:
    """A range as text: `0…4,095`."""
    return f"{_number(value[0])}…{_number(value[1])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def spread(values: NDArray[Any]) -> ValueSpread:
    """The spread of an image's values, integers or floats. Raises ValueError if a float is not finite."""
    if values.dtype.kind == "f":
        result = _spread_by_partition("floats", values)
        if not (math.isfinite(result.lowest) and math.isfinite(result.highest)):
            raise ValueError("float pixels that are infinite or not a number; replace them and save it again")
        return result
    if values.dtype.itemsize > 2:
        return _spread_by_partition("integers", values)
    # counting the values takes a fifth of the time of a partition
    base = -32768 if values.dtype.kind == "i" else 0
    counts = np.zeros(1 << 16, np.int64)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        counts += np.bincount(flat[start : start + _AT_ONCE].astype(np.int64) - base, minlength=1 << 16)
    cumulative = np.cumsum(counts)
    rare = _rare_count(int(cumulative[-1]))
    used = np.flatnonzero(counts)
    low = np.searchsorted(cumulative, rare, "right")
    high = np.searchsorted(cumulative, cumulative[-1] - rare, "left")
    return ValueSpread("integers", *(float(int(v) + base) for v in (used[0], used[-1], low, high)))


def _spread_by_partition(kind: Kind, values: NDArray[Any]) -> ValueSpread:
    flat = values.ravel()
    lowest, highest = float(flat.min()), float(flat.max())
    rare = _rare_count(flat.size)
    parted = np.partition(flat, (rare, flat.size - 1 - rare))
    return ValueSpread(kind, lowest, highest, float(parted[rare]), float(parted[flat.size - 1 - rare]))


def _rare_count(count: int) -> int:
    """How many of so many values are left out at each end."""
    return max(1, count // RARE) if count >= 64 else 0


def decide(spreads: Iterable[ValueSpread]) -> Ranges:
    """Choose a range for all images of integers, and one for all images of floats."""
    items = list(spreads)
    return Ranges(*(_decide(kind, [item for item in items if item.kind == kind]) for kind in ("integers", "floats")))


def _decide(kind: Kind, spreads: list[ValueSpread]) -> Range | None:
    if not spreads:
        return None
    lowest, highest = min(item.lowest for item in spreads), max(item.highest for item in spreads)
    low, high = min(item.low for item in spreads), max(item.high for item in spreads)
    if kind == "integers":
        if lowest < 0:  # such as Hounsfield units
            return _between(low, high, lowest, highest)
        top = _usual(high)
        # the next step costs two bits; a stuck pixel at 65535 in a 12-bit camera's image would cost four
        return 0, _usual(highest) if _usual(highest) <= 4 * top + 3 else top
    if low >= -0.05 and high <= 1.05:
        return 0, 1
    if low >= -0.05 * 255 and 16 < high <= 1.05 * 255:
        return 0, 255
    return _between(low, high, lowest, highest)


def _usual(value: float) -> float:
    return next((top for top in USUAL if value <= top), value)


def _between(low: float, high: float, lowest: float, highest: float) -> Range:
    """The range from the lowest to the highest value; an end far beyond nearly all values is left out."""
    near = 0.25 * (high - low)
    bottom = lowest if low - lowest <= near else low
    top = highest if highest - high <= near else high
    return (bottom, top) if bottom < top else (bottom, bottom + 1)


def to_uint8(values: NDArray[Any], value: Range) -> NDArray[np.uint8]:
    """Scale values so that black and below become 0, and white and above become 255."""
    bottom, top = value
    if values.dtype == np.uint16:
        table = _scaled(np.arange(1 << 16), bottom, top)
        pixels: NDArray[np.uint8] = table[values]
        return pixels
    out = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        out[row : row + _ROWS] = _scaled(values[row : row + _ROWS], bottom, top)
    return out


def _scaled(values: NDArray[Any], bottom: float, top: float) -> NDArray[np.uint8]:
    x = (values.astype(np.float64) - bottom) * (255 / (top - bottom))
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def note(values: ValueSpread, used: Range, guessed: bool) -> str:
    """A note on the range used for an image, and whether it is guessed from this image."""
    what = "integer pixels" if values.kind == "integers" else "float pixels"
    low = f", the lowest {_number(values.lowest)}" if values.lowest < 0 else ""
    text = f"{what}{low}, the highest {_number(values.highest)}: {range_text(used)} becomes 0…255"
    if values.highest > used[1] or values.lowest < used[0]:
        text += ", what is beyond is cut off"
    return text + (" (guessed from this picture alone)" if guessed else "")


def _is_range(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
