"""Chooses which values of images of more than 8 bits become 0 (black) and 255 (white), once for a whole data set.

A 16-bit file does not say how many of its bits are used: a 12-bit camera's image is nearly black on 0…65535. A guess
per file would make dark and bright images look the same, and classes that differ in brightness indistinguishable. So a
scan looks at all files and chooses one range, which the model stores; for channels that are not gray or RGB, such as a
satellite's bands, one for each channel. Only for an image without a data set or a model (`Ranges()`) it is guessed from
that image, with a note.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

Kind = Literal["integers", "floats"]
Range = tuple[float, float]
AnyRange = Range | tuple[Range, ...]
"""One range, or one for each channel."""

USUAL = (255, 1023, 4095, 16383, 65535)
"""White in images of 8, 10, 12, 14 and 16 bits."""

RARE = 1000
"""One of so many pixels may lie beyond the range: a hot pixel, an overshoot of a filter."""

_AT_ONCE = 1 << 20  # values
_ROWS = 1024  # rows at once: float64 values of an image of 100 megapixels take 800 MB


@dataclass(frozen=True, slots=True)
class ValueSpread:
    """The range of the values of an image, or of a channel; `low` and `high` leave out the rarest values."""

    kind: Kind
    lowest: float
    highest: float
    low: float
    high: float


AnySpread = ValueSpread | tuple[ValueSpread, ...]
"""That of an image, or those of its channels where each has a range of its own."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The (black, white) values of integers of more than 8 bits, and of floats; None: not decided.

    Each is one for the whole image, or one for each of its channels.

    ```python
    ranges = decide([spread(values) for values in pictures])
    ranges                              # Ranges(integers=(0, 4095), floats=None)
    to_uint8(values, ranges.integers)   # 4095 and above become 255
    ```
    """

    integers: AnyRange | None = None
    floats: AnyRange | None = None

    def __post_init__(self) -> None:
        for name in ("integers", "floats"):
            value = getattr(self, name)
            if value is not None and not (_is_range(value) or (value and all(map(_is_range, each(value))))):
                raise ValueError(
                    f"ranges: {name} is {value!r}; expected (black, white), two finite numbers, the second larger, or "
                    f"such a pair for each channel"
                )

    def of(self, kind: Kind) -> AnyRange | None:
        return self.integers if kind == "integers" else self.floats

    def or_else(self, other: "Ranges") -> "Ranges":
        """These ranges, and those of the other for what is not decided here."""
        return Ranges(self.integers or other.integers, self.floats or other.floats)

    def __str__(self) -> str:
        texts = [f"{kind} {range_text(value)}" for kind in ("integers", "floats") if (value := getattr(self, kind))]
        return ", ".join(texts) or "none"

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(map(list, value)) if is_of_channels(value) else list(value)
            for name in ("integers", "floats")
            if (value := getattr(self, name)) is not None
        }

    @classmethod
    def from_json(cls, fields: object) -> "Ranges":
        """The opposite of `to_json`. Raises ValueError."""
        if not isinstance(fields, dict) or not set(fields) <= {"integers", "floats"}:
            has = sorted(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
            raise ValueError(f"ranges: expected the fields integers and floats; got {has}")
        return cls(**{name: _as_tuples(value) for name, value in fields.items()})


UNDECIDED = Ranges()
"""The ranges of a data set or a model with only 8-bit images."""


def is_of_channels(value: AnyRange) -> TypeGuard[tuple[Range, ...]]:
    """Whether it is a range for each channel."""
    return isinstance(value[0], tuple)


def each(value: AnyRange) -> tuple[Range, ...]:
    """The ranges of the channels, or the one of all."""
    return value if is_of_channels(value) else (value,)  # type: ignore[return-value]


def _as_tuples(value: object) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def range_text(value: AnyRange) -> str:
    """A range as text: `0…4,095`, or `by channel 0…4,095, 7…380`."""
    texts = [f"{_number(bottom)}…{_number(top)}" for bottom, top in each(value)]
    return f"by channel {', '.join(texts)}" if is_of_channels(value) else texts[0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def spread(values: NDArray[Any]) -> ValueSpread:
    """The spread of an image's values, integers or floats. Raises ValueError if a float is not finite."""
    if values.dtype.kind == "f":
        result = _spread_by_partition("floats", values)
        if not (math.isfinite(result.lowest) and math.isfinite(result.highest)):
            raise not_finite(values)
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


def channel_spreads(values: NDArray[Any]) -> tuple[ValueSpread, ...]:
    """The spread of each channel of (H, W, C) values. Raises ValueError if a float is not finite."""
    kind: Kind = "floats" if values.dtype.kind == "f" else "integers"
    count = values.shape[0] * values.shape[1]
    # sorting short rows takes a quarter of the time of a partition
    ordered = np.sort(np.ascontiguousarray(values.reshape(count, -1).T), axis=1)
    rare = _rare_count(count)
    ends = ordered[:, [0, -1, rare, count - 1 - rare]].astype(np.float64)
    if not np.isfinite(ends).all():  # what is not a number is sorted to the end
        raise not_finite(values)
    return tuple(ValueSpread(kind, *map(float, channel)) for channel in ends)


def not_finite(values: NDArray[Any]) -> ValueError:
    """What is wrong with floats of which some are not finite."""
    wrong = np.argwhere(~np.isfinite(values))
    at = ", ".join(
        f"{axis} {place}" for axis, place in zip(("row", "column", "channel"), wrong[0].tolist(), strict=False)
    )
    return ValueError(
        f"float pixels that are infinite or not a number: {len(wrong):,} of {values.size:,} values, the first at {at}; "
        f"replace them, by 0 for example"
    )


def _spread_by_partition(kind: Kind, values: NDArray[Any]) -> ValueSpread:
    flat = values.ravel()
    lowest, highest = float(flat.min()), float(flat.max())
    rare = _rare_count(flat.size)
    parted = np.partition(flat, (rare, flat.size - 1 - rare))
    return ValueSpread(kind, lowest, highest, float(parted[rare]), float(parted[flat.size - 1 - rare]))


def _rare_count(count: int) -> int:
    """How many of so many values are left out at each end."""
    return max(1, count // RARE) if count >= 64 else 0


def decide(spreads: Iterable[AnySpread]) -> Ranges:
    """Choose a range for all images of integers, and one for all images of floats.

    Of images whose channels have spreads of their own, one for each channel.
    """
    items = list(spreads)
    whole = [item for item in items if isinstance(item, ValueSpread)]
    channels = [item for item in items if isinstance(item, tuple)]
    found: list[AnyRange | None] = []
    for kind in ("integers", "floats"):
        of_kind = [item for item in channels if item[0].kind == kind]
        found.append(
            tuple(map(_decide_channel, zip(*of_kind, strict=True)))
            if of_kind
            else _decide(kind, [item for item in whole if item.kind == kind])
        )
    return Ranges(*found)


def _decide_channel(spreads: Sequence[ValueSpread]) -> Range:
    """From the lowest to the highest value of a channel, without the rarest values, and without the rarest images.

    Not a power of 2, as of whole images: it is no camera's scale that counts, and bands use little of 16 bits.
    """
    rare = _rare_count(len(spreads))
    low, high = sorted(item.low for item in spreads)[rare], sorted(item.high for item in spreads)[-1 - rare]
    return _between(low, high, min(item.lowest for item in spreads), max(item.highest for item in spreads))


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


def to_uint8(values: NDArray[Any], value: AnyRange) -> NDArray[np.uint8]:
    """Scale values so that black and below become 0, and white and above become 255.

    A range for each channel is for values (H, W, C).
    """
    bottom, top = np.array(value).T if is_of_channels(value) else value
    if values.dtype == np.uint16 and not is_of_channels(value):
        table = _scaled(np.arange(1 << 16), bottom, top)
        pixels: NDArray[np.uint8] = table[values]
        return pixels
    out = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        out[row : row + _ROWS] = _scaled(values[row : row + _ROWS], bottom, top)
    return out


def on_ranges(values: NDArray[Any], ranges: Ranges) -> NDArray[np.uint8] | None:
    """Values (H, W, C) on the range of their kind; uint8 as they are. None: there is no range for them.

    Raises ValueError for floats that are not finite.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    used = ranges.of("floats" if values.dtype.kind == "f" else "integers")
    if used is None or values.dtype.kind not in "uif" or (is_of_channels(used) and values.shape[-1] != len(used)):
        return None
    if not np.isfinite(values).all():
        raise not_finite(values)
    return to_uint8(values, used)


def _scaled(values: NDArray[Any], bottom: Any, top: Any) -> NDArray[np.uint8]:
    x = (values.astype(np.float64) - bottom) * (255 / (top - bottom))
    pixels: NDArray[np.uint8] = np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)
    return pixels


def note(values: AnySpread, used: AnyRange, guessed: bool) -> str:
    """A note on the range used for an image, and whether it is guessed from this image."""
    if isinstance(values, tuple):
        ends = f"values from {_number(min(v.lowest for v in values))} to {_number(max(v.highest for v in values))}"
        return f"{len(values)} channels, {ends}: each channel's range becomes 0…255" + _GUESSED * guessed
    what = "integer pixels" if values.kind == "integers" else "float pixels"
    low = f", the lowest {_number(values.lowest)}" if values.lowest < 0 else ""
    text = f"{what}{low}, the highest {_number(values.highest)}: {range_text(used)} becomes 0…255"
    ((bottom, top),) = each(used)
    if values.highest > top or values.lowest < bottom:
        text += ", what is beyond is cut off"
    return text + _GUESSED * guessed


_GUESSED = " (guessed from this picture alone)"


def _is_range(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
