"""What is missing from a picture that its decoder makes up without a word: black, gray, or noise for the rest.

`in_file` and `before` look at the file; what the second returns looks at the decoded pixels. Only what no sound file
can look like is refused; damage that leaves a file like any other cannot be told: bytes exchanged within pixels that
carry no checksum and no count (WebP, AVIF and HEIC, pixels that are not packed), and missing rows that end exactly with
a row.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from gapstone.images import bmff, jpeg
from gapstone.images.decode_error import DecodeError
from gapstone.images.tiff import TiffLayout

ZEROS = bytes(64)
"""Packed pixels are never zero for so long; a file that was copied in part, or preallocated, is."""

_PNG = b"\x89PNG\r\n\x1a\n"

BARE = {"BMP", "DIB", "PPM", "TGA", "SGI", "PCX", "DDS"}
"""Formats without any check, whose missing pixels come out as 0."""


def in_file(data: bytes) -> None:
    """Raises DecodeError for what can be seen before a decoder is asked, which would only say that it cannot."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data)
    elif data[4:8] == b"ftyp":
        bmff.check(data, ZEROS)
    elif data[4:8] == b"jP  " or data[:4] == b"\xff\x4f\xff\x51":
        _check_jpeg2000(data)


def before(image: ImageFile.ImageFile, data: bytes, layout: TiffLayout | None, notes: list[str]) -> Callable[[], None]:
    """Raises DecodeError, and so does the function returned, to be called when the image has been loaded."""
    form = image.format
    if form in ("JPEG", "MPO"):
        return jpeg.guard(image, data, notes)
    if form == "PNG":
        _check_png(data)
    elif form == "ICO":
        at = data.find(_PNG)
        while at >= 0:
            _check_png(data, at)
            at = data.find(_PNG, at + 1)
    elif form == "QOI":
        _check_qoi(data, image.size)
    elif form == "TIFF" and layout is not None:
        if layout.compression == 7:
            _check_jpegs(layout, data)
        elif layout.compression in (8, 32946):
            _check_sums(layout, data)
        if layout.compression == 1 and layout.bits[:1] != (1,):
            return lambda: check_rows(np.asarray(image))
    elif form == "SGI":
        return lambda: check_planes(np.asarray(image))
    elif form in BARE:
        high = 4 if image.tile and image.tile[0].codec_name == "bcn" else 1
        return lambda: check_rows(np.asarray(image), high)
    return lambda: None


def check_deep(values: NDArray[Any], form: str) -> None:
    """Of more than 8 bits, in a format that has no check."""
    if form == "SGI":
        check_planes(values)
    elif form in BARE:
        check_rows(values)


def _check_png(data: bytes, at: int = 0) -> None:
    """The sums of its pixels, which Pillow does not look at: some bytes exchanged unpack to another picture."""
    at += len(_PNG)
    while at + 12 <= len(data):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if name == b"IEND":
            return
        if name == b"IDAT":
            if end > len(data):
                raise DecodeError(f"truncated: {end - len(data):,} bytes of its pixels are missing")
            if end + 4 <= len(data) and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise DecodeError("its packed pixels are not what was written: a checksum does not fit")
        at = end + 4


def _check_webp(data: bytes) -> None:
    length = int.from_bytes(data[4:8], "little") + 8
    if length - len(data) > 1:  # a last byte that only pads is left out by some
        raise DecodeError(f"truncated: {length - len(data):,} of its {length:,} bytes are missing")
    at = 12
    while at + 8 <= min(length, len(data)):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"):
            check_zeros(data, at + 8, min(at + 8 + size, len(data)))
        at += 8 + size + size % 2


def check_zeros(data: bytes, start: int, end: int) -> None:
    """Of packed pixels."""
    found = data.find(ZEROS, start, end)
    if found >= 0:
        raise DecodeError(f"from byte {found:,} on its packed pixels are only zeros: they were never written, or lost")


def _check_qoi(data: bytes, size: tuple[int, int]) -> None:
    """That its chunks make exactly as many pixels as it has, and then it ends."""
    left, at, last = size[0] * size[1], 14, len(data) - 8
    while left > 0 and at < last:
        byte = data[at]
        if byte >= 0xFE:
            at += 4 if byte == 0xFE else 5
        elif byte >= 0xC0:
            at += 1
            left -= byte & 0x3F
        else:
            at += 2 if byte >= 0x80 else 1
        left -= 1
    if left > 0:
        raise DecodeError(f"truncated: {left:,} of its {size[0] * size[1]:,} pixels are missing")
    if left < 0 or data[at : at + 8] != b"\0\0\0\0\0\0\0\1":
        raise DecodeError("its pixels do not end where its data end: bytes are missing or were overwritten")


def _check_jpegs(layout: TiffLayout, data: bytes) -> None:
    """Of a TIFF: each of its strips or tiles is a JPEG, with tables that they share."""
    for start, count in zip(layout.offsets, layout.counts, strict=False):
        part = data[start : start + count]
        if len(part) < count:
            raise DecodeError(f"truncated: {count - len(part):,} bytes of pixels are missing")
        if not part:  # a tile that was left out, to be filled with the ground
            continue
        whole = b"\xff\xd8" + (layout.tables or b"\xff\xd8\xff\xd9")[2:-2] + part[2:]
        found = jpeg.structure(whole)
        if found.frame not in (0xC0, 0xC1, 0xC2) or len(found.sampling) not in (1, 3, 4):
            continue  # Pillow cannot decode it alone
        with Image.open(io.BytesIO(whole), formats=["JPEG"]) as image:
            ended = jpeg.guard(image, whole, [])
            image.load()
            ended()


def _check_sums(layout: TiffLayout, data: bytes) -> None:
    """Of a TIFF packed by zlib: the sums behind the pixels, which libtiff does not read."""
    most = 64 + layout.part[0] * layout.part[1] * layout.samples * max(layout.bits, default=8) // 8
    for start, count in zip(layout.offsets, layout.counts, strict=False):
        try:
            zlib.decompressobj().decompress(data[start : start + count], most)
        except zlib.error as error:
            raise DecodeError(f"its packed pixels are not what was written ({error})") from None


def _check_jpeg2000(data: bytes) -> None:
    """That no marker stands among the packed pixels: they are packed so that none can."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while at >= 2 and at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x90, 0xD9):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        end = at + length if length else len(data) - 2
        if end > len(data):
            raise DecodeError(f"truncated: {end - len(data):,} bytes of its pixels are missing")
        begin = at + 12
        while begin + 4 <= end and data[begin : begin + 2] != b"\xff\x93":
            begin += 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
        begin += 2
        if begin < end:
            packed = np.frombuffer(data, np.uint8, end - begin, begin)
            after = packed[1:][packed[:-1] == 0xFF]
            # markers of packets, which begin all of them or none, hold a number that may be anything
            counted = data[begin : begin + 4] == b"\xff\x91\0\4"
            if not counted and bool(((after >= 0x90) & (after != 0x92)).any()):
                raise DecodeError("markers stand among its packed pixels: bytes were overwritten or are missing")
        at = end


def check_planes(values: NDArray[Any]) -> None:
    """As `check_rows`, where the channels follow each other, each from the bottom up."""
    planes = values[::-1, :, None] if values.ndim == 2 else values[::-1]
    _check_plane(np.concatenate([planes[..., i] != 0 for i in range(planes.shape[2])]), 1)


def check_rows(values: NDArray[Any], high: int = 1) -> None:
    """Raises DecodeError where the zeros of a picture begin or end within a row of pixels that are none.

    high: rows that are packed together.
    """
    if values.ndim == 3:
        values = values[..., :3]
    if high > 1:
        rows = values.shape[0] // high * high
        values = np.asarray(values[:rows].reshape(-1, high, *values.shape[1:]).any(axis=1))
    there = values != 0
    for one in [there] if there.ndim == 2 else [there.any(axis=2), *np.moveaxis(there, 2, 0)]:
        _check_plane(one, high)


_CLEAR = 8  # rows of pixels next to the zeros


def _check_plane(there: NDArray[np.bool_], high: int) -> None:
    """there: (rows, columns), where a pixel is not 0."""
    height, width = there.shape
    rows = np.asarray(there.any(axis=1))
    for begin, end in _gaps(rows):
        if end - begin < max(2, height / 16):
            continue
        # the zeros begin within the row above, or end within the row below; pixels are thick around there
        for edge, inward in ((begin - 1, -1), (end, 1)):
            near = edge + inward * np.arange(1, 1 + max(2, _CLEAR // high))
            if not (0 <= edge < height) or near.min() < 0 or near.max() >= height:
                continue
            row, full = there[edge], there[near]
            for cut in (row, row[::-1]):  # zeros on the right, or on the left
                last = width - int(np.argmax(cut[::-1]))
                zeros = width - last
                columns = full[:, last:] if cut is row else full[:, ::-1][:, last:]
                if 0.02 * width < zeros < width and cut[:last].mean() > 0.9 and columns.mean() > 0.9 < full.mean():
                    raise DecodeError(
                        f"{end - begin:,} rows of it are only zeros, and they begin or end within a row: the pixels "
                        f"were never written, or lost"
                    )


def _gaps(rows: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where no row has any pixel: (begin, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], rows, [True]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
