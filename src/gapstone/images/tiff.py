"""read(file) = the pixels of a TIFF whose samples have 16, 32 or 64 bits, which Pillow reads as 8 or not at all.

Not packed, or packed by zlib (with either predictor); strips or tiles; any byte order; whole numbers and floats. What
is packed otherwise is left to Pillow and libtiff. What neither reads is named: `refusal`.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.images.decode_error import DecodeError
from gapstone.images.high_bit_depth import Deep, unpremultiplied

_SIZES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_ENTRIES = 4096  # of a directory; a TIFF has some 20
_VALUES = 1 << 22  # of a tag: offsets of that many strips
_PACKED = {
    1: "none",
    2: "CCITT",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "zlib",
    32773: "PackBits",
    32946: "zlib",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    34712: "JPEG 2000",
    50002: "JPEG XL",
}
_KINDS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_FORMATS = {1: "whole numbers", 2: "signed whole numbers", 3: "floats", 4: "untyped data", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class TiffLayout:
    """What the first directory of a TIFF says."""

    order: str  # "<" or ">"
    width: int
    height: int
    bits: tuple[int, ...]
    kind: int  # SampleFormat: 1 whole numbers, 2 signed, 3 floats
    samples: int
    photometric: int
    compression: int
    planar: bool
    predictor: int
    reversed_bits: bool
    extra: tuple[int, ...]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    part: tuple[int, int]  # (height, width) of a strip or tile
    orientation: int
    profile: bytes | None
    tables: bytes | None  # JPEGTables
    following: int  # where the directory of the next page is, or 0

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """Of a sample, where numpy has it."""
        if len(set(self.bits)) != 1 or self.bits[0] not in (8, 16, 32, 64) or self.kind not in (1, 2, 3):
            return None
        if self.kind == 3 and self.bits[0] == 8:
            return None
        return np.dtype(f"{self.order}{'uif'[self.kind - 1]}{self.bits[0] // 8}")

    @property
    def colours(self) -> int:
        """Samples of a pixel that are no extra samples."""
        return {2: 3, 5: 4}.get(self.photometric, 1)

    def __str__(self) -> str:
        bits = "/".join(map(str, self.bits)) if len(set(self.bits)) > 1 else str(self.bits[0]) if self.bits else "?"
        return (
            f"{self.samples} channel{'s' * (self.samples != 1)} ({_KINDS.get(self.photometric, 'unknown colours')}) of "
            f"{bits}-bit {_FORMATS.get(self.kind, 'samples of an unknown kind')}"
            f", packed by {_PACKED.get(self.compression, f'method {self.compression}')}".replace(
                ", packed by none", ", not packed"
            )
        )


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def layout(data: bytes) -> TiffLayout | None:
    """None where the directory makes no sense."""
    try:
        return _layout(data)
    except (struct.error, KeyError, ValueError, IndexError, TypeError, OverflowError):
        return None


def refusal(data: bytes) -> str | None:
    """Of a TIFF that Pillow does not know: what it holds, if its directory says something that can be."""
    if is_tiff(data) and len(data) > 8 and 43 not in data[2:4]:
        first = struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0]
        if first + 2 > len(data):
            return f"truncated: its directory, at byte {first:,}, is missing: the file has {len(data):,} bytes"
    found = layout(data)
    if found is None or not (found.width and found.height and found.offsets):
        return None
    known = found.compression in _PACKED and found.kind in _FORMATS
    if not known and found.compression not in range(1, 70000):
        return None
    return (
        f"not supported: a TIFF of {found}; gray, RGB and CMYK of 8 to 64 bits are read (save it as one of these, not "
        f"packed or packed by zlib)"
    )


def read(found: TiffLayout, data: bytes) -> Deep | None:
    """The pixels, where this module reads such a file. Raises DecodeError where bytes are missing or damaged."""
    dtype = found.dtype
    if (
        dtype is None
        or found.compression not in (1, 8, 32946)
        or found.photometric not in (0, 1, 2, 5)
        or found.reversed_bits
        or found.predictor not in (1, 2, 3)
        or not found.colours <= found.samples <= found.colours + 1
        or (dtype.itemsize == 1 and not (found.colours == 1 and found.samples == 2 and dtype.kind == "u"))
        or (found.predictor == 3) > (dtype.kind == "f")
        or found.width * found.height * found.samples * dtype.itemsize > 1100 * len(data) + (1 << 24)
    ):
        return None
    values = _assembled(found, data, dtype)
    native = values.astype(dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "f" and native.dtype.itemsize != 4:
        # what float64 holds beyond float32's range becomes infinite, and is refused as such
        with np.errstate(over="ignore"):
            native = native.astype(np.float32)
    alpha = native[..., -1] if found.samples > found.colours and found.extra[:1] in ((1,), (2,)) else None
    colours = native[..., 0] if found.colours == 1 else native[..., : found.colours]
    notes = [] if found.samples == found.colours or alpha is not None else ["its extra channel is left out"]
    if found.samples > found.colours and found.extra == () and found.photometric == 2:
        alpha, notes = native[..., -1], []  # four channels without a word on the fourth: alpha, as Pillow has it
    if alpha is not None and found.extra[:1] == (1,):
        colours = unpremultiplied(colours, alpha)
    return Deep(colours, _mode(found), alpha, found.photometric == 0, found.profile, notes=notes)


def pages(found: TiffLayout, data: bytes) -> int:
    """How many there are, this one included."""
    seen: set[int] = set()
    at, big = found.following, 43 in data[2:4]
    while at and at not in seen and len(seen) < 10_000:
        seen.add(at)
        try:
            count = struct.unpack_from(found.order + ("Q" if big else "H"), data, at)[0]
            at = struct.unpack_from(
                found.order + ("Q" if big else "I"), data, at + (8 + 20 * count if big else 2 + 12 * count)
            )[0]
        except struct.error:
            break
    return 1 + len(seen)


def _mode(found: TiffLayout) -> str:
    """In Pillow's words, where it has some."""
    if found.colours > 1:
        name = "RGB" if found.colours == 3 else "CMYK"
        return "RGBA" if name == "RGB" and found.samples == 4 and found.extra[:1] != (0,) else name
    if found.samples > 1:
        return "LA"
    if found.kind == 3:
        return "F" if found.bits[0] == 32 else f"F;{found.bits[0]}"
    if found.bits[0] == 16 and found.kind == 1:
        return "I;16" if found.order == "<" else "I;16B"
    return "I"


def _assembled(found: TiffLayout, data: bytes, dtype: np.dtype[np.generic]) -> NDArray[Any]:
    high, wide = found.part
    layers = found.samples if found.planar else 1
    inner = 1 if found.planar else found.samples
    across, down = -(-found.width // wide), -(-found.height // high)
    if len(found.offsets) < across * down * layers:
        raise DecodeError(f"it has {len(found.offsets)} of {across * down * layers} strips or tiles")
    out = np.empty((found.height, found.width, found.samples), dtype)
    tiled = found.part[1] != found.width or found.part[0] > found.height
    for number in range(across * down * layers):
        layer, place = divmod(number, across * down)
        row, column = divmod(place, across)
        y, x = row * high, column * wide
        rows = high if tiled else min(high, found.height - y)
        part = _part(found, data, number, (rows, wide, inner), dtype)
        rows, columns = min(rows, found.height - y), min(wide, found.width - x)
        to = out[y : y + rows, x : x + columns]
        if found.planar:
            to[..., layer] = part[:rows, :columns, 0]
        else:
            to[...] = part[:rows, :columns]
    return out


def _part(
    found: TiffLayout, data: bytes, number: int, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> NDArray[Any]:
    """One strip or tile."""
    needed = shape[0] * shape[1] * shape[2] * dtype.itemsize
    start = found.offsets[number]
    if found.compression == 1:
        raw = data[start : start + needed]
    else:
        end = start + (found.counts[number] if number < len(found.counts) else len(data))
        try:
            raw = zlib.decompressobj().decompress(data[start:end], needed + 1)  # and the sum behind them
        except zlib.error as error:
            raise DecodeError(f"its packed pixels are damaged ({error})") from None
    if len(raw) < needed:
        raise DecodeError(f"truncated: {needed - len(raw):,} bytes of pixels are missing")
    if found.predictor == 3:
        # bytes of one significance together, each the difference to the one before
        rows = np.frombuffer(raw, np.uint8).reshape(shape[0], -1, shape[2])
        whole = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(shape[0], dtype.itemsize, -1)
        ordered = np.ascontiguousarray(whole.transpose(0, 2, 1))
        return ordered.view(dtype.newbyteorder(">"))[..., 0].reshape(shape)
    values = np.frombuffer(raw, dtype).reshape(shape)
    if found.predictor == 2:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        native = values.view(f"{found.order}u{dtype.itemsize}").astype(unsigned)
        return np.cumsum(native, axis=1, dtype=unsigned).view(dtype.newbyteorder("="))
    return values


def _layout(data: bytes) -> TiffLayout | None:
    if not is_tiff(data):
        return None
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    first = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    tags, following = _tags(data, order, big, first)
    width, height = _one(tags, 256), _one(tags, 257)
    samples = _one(tags, 277, 1)
    bits = tags.get(258, (1,))
    if len(bits) == 1:
        bits = bits * samples
    if 322 in tags:
        part = (_one(tags, 323), _one(tags, 322))
        offsets, counts = tags.get(324, ()), tags.get(325, ())
    else:
        part = (min(_one(tags, 278, height), height), width)
        offsets, counts = tags.get(273, ()), tags.get(279, ())
    if min(width, height, samples, *part) < 1 or max(samples, len(bits)) > 1 << 16:
        return None
    return TiffLayout(
        order=order,
        width=width,
        height=height,
        bits=tuple(bits[:samples]),
        kind=tags.get(339, (1,))[0] if len(set(tags.get(339, (1,)))) == 1 else 0,
        samples=samples,
        photometric=_one(tags, 262, 0),
        compression=_one(tags, 259, 1),
        planar=_one(tags, 284, 1) == 2 and samples > 1,
        predictor=_one(tags, 317, 1),
        reversed_bits=_one(tags, 266, 1) == 2,
        extra=tuple(tags.get(338, ())),
        offsets=tuple(offsets),
        counts=tuple(counts),
        part=part,
        orientation=_one(tags, 274, 1),
        profile=tags[34675][0] if 34675 in tags and isinstance(tags[34675][0], bytes) else None,
        tables=tags[347][0] if 347 in tags and isinstance(tags[347][0], bytes) else None,
        following=following,
    )


def _tags(data: bytes, order: str, big: bool, at: int) -> tuple[dict[int, tuple], int]:  # type: ignore[type-arg]
    """(tag → its values, where the next directory is)."""
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    if count > _ENTRIES:
        raise ValueError("no directory")
    at += 8 if big else 2
    size, inline = (20, 8) if big else (12, 4)
    tags: dict[int, tuple] = {}  # type: ignore[type-arg]
    for entry in range(at, at + count * size, size):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        letter = _SIZES.get(kind)
        if letter is None or values > _VALUES:
            continue
        length = values * struct.calcsize("=" + letter)
        place = entry + size - inline
        if length > inline:
            place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
        if letter == "s":
            tags[tag] = (data[place : place + length],)
        elif values:
            tags[tag] = struct.unpack_from(f"{order}{values}{letter}", data, place)
    end = at + count * size
    return tags, struct.unpack_from(order + ("Q" if big else "I"), data, end)[0] if end + inline <= len(data) else 0


def _one(tags: dict[int, tuple], tag: int, default: int | None = None) -> int:  # type: ignore[type-arg]
    if tag not in tags and default is not None:
        return default
    value = tags[tag][0]
    if not isinstance(value, int):
        raise ValueError(f"tag {tag}")
    return value
