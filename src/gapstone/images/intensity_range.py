"""Pixels of more than 8 bits: which values become 0 (black) and 255 (white). One range for a whole data set.

A 16-bit file does not say how many of its bits are used: a 12-bit camera's picture is all but black on 0…65535. A guess
for each file alone would make dark and bright pictures alike, which is the end of classes that differ in brightness.
So a scan looks at all files and decides once; the model keeps what was decided. Only a picture that comes without a
data set or a model is guessed by itself (`Ranges()`), and says so in a note.
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
"""White in pictures of 8, 10, 12, 14 and 16 bits."""

RARE = 1000
"""Of so many pixels one may lie beyond the range: a hot pixel, an overshoot of a filter."""

_ROWS = 1024  # a strip at a time: 64-bit numbers of a whole picture of 100 megapixels would take 800 MB
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class ValueSpread:
    """Between which values the pixels of one picture, or of many, lie; `low` and `high` without the rarest."""

    kind: Kind
    lowest: float
    highest: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """What is black and what is white among integers of more than 8 bits, and among floats; None: not decided.

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
        """What is decided here, and what is decided only there."""
        return Ranges(self.integers or other.integers, self.floats or other.floats)

    def __str__(self) -> str:
        said = [f"{kind} {words(value)}" for kind in ("integers", "floats") if (value := getattr(self, kind))]
        return ", ".join(said) or "none"

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) for name in ("integers", "floats") if (value := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, fields: object) -> "Ranges":
        """The opposite. Raises ValueError."""
        if not isinstance(fields, dict) or not set(fields) <= {"integers", "floats"}:
            has = sorted(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
            raise ValueError(f"ranges: expected the fields integers and floats; got {has}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


UNDECIDED = Ranges()
"""As of a data set, or a model, of 8-bit pictures only."""


def words(value: Range) -> str:
    """`0…4,095`"""
    return f"{_number(value[0])}…{_number(value[1])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def spread(values: NDArray[Any]) -> ValueSpread:
    """Of one picture's values, integers or floats. Raises ValueError where a float is no number."""
    if values.dtype.kind == "f":
        return _of_floats(values)
    if values.dtype.itemsize > 2:
        return _ordered("integers", values)
    # a count of each value is a fifth of the work of ordering them
    base = -32768 if values.dtype.kind == "i" else 0
    counts = np.zeros(1 << 16, np.int64)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        counts += np.bincount(flat[start : start + _AT_ONCE].astype(np.int64) - base, minlength=1 << 16)
    up = np.cumsum(counts)
    left = _left_out(int(up[-1]))
    there = np.flatnonzero(counts)
    low, high = np.searchsorted(up, left, "right"), np.searchsorted(up, up[-1] - left, "left")
    return ValueSpread("integers", *(float(int(v) + base) for v in (there[0], there[-1], low, high)))


def _of_floats(values: NDArray[Any]) -> ValueSpread:
    found = _ordered("floats", values)
    if not (math.isfinite(found.lowest) and math.isfinite(found.highest)):
        raise ValueError("float pixels that are infinite or not a number; replace them and save it again")
    return found


def _ordered(kind: Kind, values: NDArray[Any]) -> ValueSpread:
    flat = values.ravel()
    lowest, highest = float(flat.min()), float(flat.max())
    left = _left_out(flat.size)
    parted = np.partition(flat, (left, flat.size - 1 - left))
    return ValueSpread(kind, lowest, highest, float(parted[left]), float(parted[flat.size - 1 - left]))


def _left_out(count: int) -> int:
    return max(1, count // RARE) if count >= 64 else 0


def decide(found: Iterable[ValueSpread]) -> Ranges:
    """One range for all these pictures, for integers and for floats."""
    whole = list(found)
    return Ranges(*(_decide(kind, [one for one in whole if one.kind == kind]) for kind in ("integers", "floats")))


def _decide(kind: Kind, found: list[ValueSpread]) -> Range | None:
    if not found:
        return None
    lowest, highest = min(one.lowest for one in found), max(one.highest for one in found)
    low, high = min(one.low for one in found), max(one.high for one in found)
    if kind == "integers":
        if lowest < 0:  # such as Hounsfield units
            return _between(low, high, lowest, highest)
        top = _usual(high)
        # one step more costs two bits; a stuck pixel of a 12-bit camera at 65535 would cost four
        return 0, _usual(highest) if _usual(highest) <= 4 * top + 3 else top
    if low >= -0.05 and high <= 1.05:
        return 0, 1
    if low >= -0.05 * 255 and 16 < high <= 1.05 * 255:
        return 0, 255
    return _between(low, high, lowest, highest)


def _usual(value: float) -> float:
    return next((top for top in USUAL if value <= top), value)


def _between(low: float, high: float, lowest: float, highest: float) -> Range:
    """From the lowest to the highest, unless that is far beyond where nearly all lie."""
    near = 0.25 * (high - low)
    bottom = lowest if low - lowest <= near else low
    top = highest if highest - high <= near else high
    return (bottom, top) if bottom < top else (bottom, bottom + 1)


def to_uint8(values: NDArray[Any], value: Range) -> NDArray[np.uint8]:
    """0 for black and what lies below it, 255 for white and what lies above."""
    bottom, top = value
    if values.dtype == np.uint16:
        table = _scaled(np.arange(1 << 16), bottom, top)
        shown: NDArray[np.uint8] = table[values]
        return shown
    out = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        out[row : row + _ROWS] = _scaled(values[row : row + _ROWS], bottom, top)
    return out


def _scaled(values: NDArray[Any], bottom: float, top: float) -> NDArray[np.uint8]:
    x = (values.astype(np.float64) - bottom) * (255 / (top - bottom))
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def note(found: ValueSpread, value: Range, own: bool) -> str:
    """What was done to one picture, in words; own: the range is this picture's, for want of a data set's."""
    what = "integer pixels" if found.kind == "integers" else "float pixels"
    low = f", the lowest {_number(found.lowest)}" if found.lowest < 0 else ""
    said = f"{what}{low}, the highest {_number(found.highest)}: {words(value)} becomes 0…255"
    if found.highest > value[1] or found.lowest < value[0]:
        said += ", what is beyond is cut off"
    return said + (" (guessed from this picture alone)" if own else "")


def _is_range(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        and value[0] < value[1]
    )
