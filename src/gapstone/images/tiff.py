"""Reads TIFF files with samples of 16, 32 or 64 bits, of which Pillow reads 8 bits or none.

They are uncompressed or compressed by zlib (with either predictor), in strips or tiles, of either byte order, of whole
numbers or floats. Pillow and libtiff read other compressions. `refusal` describes a file that neither reads. Samples of
other channels (`tiff_bands`) are read here, too.
"""

import importlib
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.images.decode_error import DecodeError, check_missing
from gapstone.images.high_bit_depth import Deep, native, unpremultiplied

_SIZES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_ENTRIES = 4096  # at most, of a directory; a TIFF has some 20
_VALUES = 1 << 22  # at most, of a tag, such as the offsets of strips
_COMPRESSIONS = {
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
ZLIB = (8, 32946)
CODECS = {5: "lzw_decode", 32773: "packbits_decode", 34925: "lzma_decode", 50000: "zstd_decode"}
"""Compression → the function of imagecodecs (extra slides) that unpacks it, where no library here reads the file."""
_PHOTOMETRICS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_FORMATS = {1: "whole numbers", 2: "signed whole numbers", 3: "floats", 4: "untyped data", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class TiffLayout:
    """The first directory of a TIFF."""

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
    following: int  # position of the next page's directory, or 0
    description: str
    no_data: float | None  # GDAL's: the value of samples that are none

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The type of a sample; None if numpy has none."""
        if len(set(self.bits)) != 1 or self.bits[0] not in (8, 16, 32, 64) or self.kind not in (1, 2, 3):
            return None
        if self.kind == 3 and self.bits[0] == 8:
            return None
        return np.dtype(f"{self.order}{'uif'[self.kind - 1]}{self.bits[0] // 8}")

    @property
    def colours(self) -> int:
        """The number of samples of a pixel without extra samples."""
        return {2: 3, 5: 4}.get(self.photometric, 1)

    def __str__(self) -> str:
        bits = "/".join(map(str, self.bits)) if len(set(self.bits)) > 1 else str(self.bits[0]) if self.bits else "?"
        colours = _PHOTOMETRICS.get(self.photometric, "unknown colours")
        return (
            f"{self.samples} channel{'s' * (self.samples != 1)} ({colours}) of "
            f"{bits}-bit {_FORMATS.get(self.kind, 'samples of an unknown kind')}"
            f", packed by {_COMPRESSIONS.get(self.compression, f'method {self.compression}')}".replace(
                ", packed by none", ", not packed"
            )
        )


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_layout(data: bytes, at: int | None = None) -> TiffLayout | None:
    """The first directory of a TIFF, or that `at` a position; None if the file is no TIFF or it makes no sense."""
    try:
        return _read_layout(data, at)
    except (struct.error, KeyError, ValueError, IndexError, TypeError, OverflowError):
        return None


def refusal(data: bytes) -> str | None:
    """Why a TIFF that Pillow does not know cannot be read; None if it is no TIFF or its directory makes no sense."""
    if is_tiff(data) and len(data) > 8 and 43 not in data[2:4]:
        first = struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0]
        if first + 2 > len(data):
            return f"truncated: its directory, at byte {first:,}, is missing: the file has {len(data):,} bytes"
    layout = read_layout(data)
    if layout is None or not (layout.width and layout.height and layout.offsets):
        return None
    known = layout.compression in _COMPRESSIONS and layout.kind in _FORMATS
    if not known and layout.compression not in range(1, 70000):
        return None
    return (
        f"not supported: a TIFF of {layout}; gray, RGB, CMYK and other channels of 8 to 64 bits are read (save it "
        f"as one of these, not packed or packed by zlib)"
    )


def read_pixels(layout: TiffLayout, data: bytes) -> Deep | None:
    """The pixels; None if this module does not read such files. Raises DecodeError if bytes are missing or damaged."""
    dtype = layout.dtype
    if (
        dtype is None
        or layout.compression not in (1, *ZLIB)
        or layout.photometric not in (0, 1, 2, 5)
        or layout.reversed_bits
        or layout.predictor not in (1, 2, 3)
        or not layout.colours <= layout.samples <= layout.colours + 1
        or (dtype.itemsize == 1 and not (layout.colours == 1 and layout.samples == 2 and dtype.kind == "u"))
        or (layout.predictor == 3) > (dtype.kind == "f")
        or layout.width * layout.height * layout.samples * dtype.itemsize > 1100 * len(data) + (1 << 24)
    ):
        return None
    values = native(read_samples(layout, data, dtype))
    alpha = values[..., -1] if layout.samples > layout.colours and layout.extra[:1] in ((1,), (2,)) else None
    colours = values[..., 0] if layout.colours == 1 else values[..., : layout.colours]
    notes = [] if layout.samples == layout.colours or alpha is not None else ["its extra channel is left out"]
    if layout.samples > layout.colours and layout.extra == () and layout.photometric == 2:
        alpha, notes = values[..., -1], []  # a fourth channel without a description is alpha, as in Pillow
    if alpha is not None and layout.extra[:1] == (1,):
        colours = unpremultiplied(colours, alpha)
    return Deep(colours, _mode(layout), alpha, layout.photometric == 0, layout.profile, notes=notes)


def count_pages(layout: TiffLayout, data: bytes) -> int:
    """The number of pages of the file."""
    directories: set[int] = set()
    at, big = layout.following, 43 in data[2:4]
    while at and at not in directories and len(directories) < 10_000:
        directories.add(at)
        try:
            at = _offset(data, layout.order, big, _entries(data, layout.order, big, at).stop)
        except struct.error:
            break
    return 1 + len(directories)


def _mode(layout: TiffLayout) -> str:
    """Pillow's name of the mode, or one like it."""
    if layout.colours > 1:
        name = "RGB" if layout.colours == 3 else "CMYK"
        return "RGBA" if name == "RGB" and layout.samples == 4 and layout.extra[:1] != (0,) else name
    if layout.samples > 1:
        return "LA"
    if layout.kind == 3:
        return "F" if layout.bits[0] == 32 else f"F;{layout.bits[0]}"
    if layout.bits[0] == 16 and layout.kind == 1:
        return "I;16" if layout.order == "<" else "I;16B"
    return "I"


def read_samples(layout: TiffLayout, data: bytes, dtype: np.dtype[np.generic]) -> NDArray[Any]:
    """(H, W, samples) of all strips or tiles."""
    high, wide = layout.part
    layers = layout.samples if layout.planar else 1
    inner = 1 if layout.planar else layout.samples
    across, down = -(-layout.width // wide), -(-layout.height // high)
    if len(layout.offsets) < across * down * layers:
        raise DecodeError(f"it has {len(layout.offsets)} of {across * down * layers} strips or tiles")
    out = np.empty((layout.height, layout.width, layout.samples), dtype)
    tiled = layout.part[1] != layout.width or layout.part[0] > layout.height
    for number in range(across * down * layers):
        layer, position = divmod(number, across * down)
        row, column = divmod(position, across)
        y, x = row * high, column * wide
        rows = high if tiled else min(high, layout.height - y)
        part = _read_part(layout, data, number, (rows, wide, inner), dtype)
        rows, columns = min(rows, layout.height - y), min(wide, layout.width - x)
        target = out[y : y + rows, x : x + columns]
        if layout.planar:
            target[..., layer] = part[:rows, :columns, 0]
        else:
            target[...] = part[:rows, :columns]
    return out


def _read_part(
    layout: TiffLayout, data: bytes, number: int, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> NDArray[Any]:
    """The samples of a strip or tile."""
    needed = shape[0] * shape[1] * shape[2] * dtype.itemsize
    start = layout.offsets[number]
    if layout.compression == 1:
        raw = data[start : start + needed]
    else:
        end = start + (layout.counts[number] if number < len(layout.counts) else len(data))
        # the last strip may have as many rows as the others
        raw = _unpacked(layout.compression, data[start:end], layout.part[0] * needed // shape[0])
        raw = raw[:needed]
    check_missing(needed - len(raw), "bytes of pixels")
    if layout.predictor == 3:
        # bytes of equal significance are stored together, each as the difference from the one before
        rows = np.frombuffer(raw, np.uint8).reshape(shape[0], -1, shape[2])
        planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(shape[0], dtype.itemsize, -1)
        ordered = np.ascontiguousarray(planes.transpose(0, 2, 1))
        return ordered.view(dtype.newbyteorder(">"))[..., 0].reshape(shape)
    values = np.frombuffer(raw, dtype).reshape(shape)
    if layout.predictor == 2:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        native = values.view(f"{layout.order}u{dtype.itemsize}").astype(unsigned)
        return np.cumsum(native, axis=1, dtype=unsigned).view(dtype.newbyteorder("="))
    return values


def _unpacked(compression: int, packed: bytes, most: int) -> bytes:
    """The bytes of a strip or tile. Raises DecodeError for damage, and for more than `most` bytes."""
    try:
        if compression not in ZLIB:
            return bytes(getattr(importlib.import_module("imagecodecs"), CODECS[compression])(packed, out=most))
        raw = zlib.decompressobj().decompress(packed, most + 1)  # + 1: checks the checksum, too
        if len(raw) > most:
            raise ValueError("they are more than there are pixels")
        return raw
    except (zlib.error, RuntimeError, ValueError) as error:  # imagecodecs raises errors of its own, all RuntimeError
        raise DecodeError(f"its packed pixels are damaged ({error})") from None


def _read_layout(data: bytes, at: int | None) -> TiffLayout | None:
    if not is_tiff(data):
        return None
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    first = _offset(data, order, big, 8 if big else 4)
    tags, following = _read_tags(data, order, big, first if at is None else at)
    width, height = _integer(tags, 256), _integer(tags, 257)
    samples = _integer(tags, 277, 1)
    bits = tags.get(258, (1,))
    if len(bits) == 1:
        bits = bits * samples
    if 322 in tags:
        part = (_integer(tags, 323), _integer(tags, 322))
        offsets, counts = tags.get(324, ()), tags.get(325, ())
    else:
        part = (min(_integer(tags, 278, height), height), width)
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
        photometric=_integer(tags, 262, 0),
        compression=_integer(tags, 259, 1),
        planar=_integer(tags, 284, 1) == 2 and samples > 1,
        predictor=_integer(tags, 317, 1),
        reversed_bits=_integer(tags, 266, 1) == 2,
        extra=tuple(tags.get(338, ())),
        offsets=tuple(offsets),
        counts=tuple(counts),
        part=part,
        orientation=_integer(tags, 274, 1),
        profile=tags[34675][0] if 34675 in tags and isinstance(tags[34675][0], bytes) else None,
        tables=tags[347][0] if 347 in tags and isinstance(tags[347][0], bytes) else None,
        following=following,
        description=_text(tags, 270),
        no_data=_no_data(tags),
    )


def _read_tags(data: bytes, order: str, big: bool, at: int) -> tuple[dict[int, tuple], int]:  # type: ignore[type-arg]
    """(tag → its values, position of the next directory)."""
    entries, inline = _entries(data, order, big, at), 8 if big else 4
    if len(entries) > _ENTRIES:
        raise ValueError("no directory")
    tags: dict[int, tuple] = {}  # type: ignore[type-arg]
    for entry in entries:
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        letter = _SIZES.get(kind)
        if letter is None or values > _VALUES:
            continue
        length = values * struct.calcsize("=" + letter)
        position = entry + entries.step - inline
        if length > inline:
            position = _offset(data, order, big, position)
        if letter == "s":
            tags[tag] = (data[position : position + length],)
        elif values:
            tags[tag] = struct.unpack_from(f"{order}{values}{letter}", data, position)
    return tags, _offset(data, order, big, entries.stop) if entries.stop + inline <= len(data) else 0


def _entries(data: bytes, order: str, big: bool, at: int) -> range:
    """Positions of the entries of a directory; the position of the next directory stands behind them."""
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    begin, size = (at + 8, 20) if big else (at + 2, 12)
    return range(begin, begin + count * size, size)


def _offset(data: bytes, order: str, big: bool, at: int) -> int:
    offset: int = struct.unpack_from(order + ("Q" if big else "I"), data, at)[0]
    return offset


def _text(tags: dict[int, tuple], tag: int) -> str:  # type: ignore[type-arg]
    value = tags[tag][0] if tag in tags else b""
    return value.split(b"\0")[0].decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _no_data(tags: dict[int, tuple]) -> float | None:  # type: ignore[type-arg]
    try:
        return float(_text(tags, 42113))
    except ValueError:
        return None


def _integer(tags: dict[int, tuple], tag: int, default: int | None = None) -> int:  # type: ignore[type-arg]
    if tag not in tags and default is not None:
        return default
    value = tags[tag][0]
    if not isinstance(value, int):
        raise ValueError(f"tag {tag}")
    return value
