"""Detects missing pixels that a decoder silently replaces by black, gray or noise.

`check_file` and `check_opened` look at the file; the function that `check_opened` returns looks at the decoded pixels.
Only files are refused that no intact file can be like. Other damage cannot be detected: changed bytes in pixels without
a checksum or a count (WebP, AVIF, HEIC, uncompressed pixels), and missing rows if the data end exactly with a row.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from gapstone.images import bmff, jpeg
from gapstone.images.decode_error import DecodeError, check_missing, check_zeros
from gapstone.images.tiff import TiffLayout

_PNG = b"\x89PNG\r\n\x1a\n"

BARE = {"BMP", "DIB", "PPM", "TGA", "SGI", "PCX", "DDS"}
"""Formats without checksums, whose missing pixels are decoded as 0."""


def check_file(data: bytes) -> None:
    """Raise DecodeError for damage that is better described before decoding, where the decoder would only fail."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data)
    elif data[4:8] == b"ftyp":
        bmff.check(data)
    elif data[4:8] == b"jP  " or data[:4] == b"\xff\x4f\xff\x51":
        _check_jpeg2000(data)


def check_opened(
    image: ImageFile.ImageFile, data: bytes, layout: TiffLayout | None, notes: list[str]
) -> Callable[[], None]:
    """Check an image that Pillow has opened; return a function that checks it once it is loaded.

    Both raise DecodeError.
    """
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
            _check_tiff_jpegs(layout, data)
        elif layout.compression in (8, 32946):
            _check_tiff_zlib(layout, data)
        if layout.compression == 1 and layout.bits[:1] != (1,):
            return lambda: check_rows(np.asarray(image))
    elif form == "SGI":
        return lambda: check_planes(np.asarray(image))
    elif form in BARE:
        high = 4 if image.tile and image.tile[0].codec_name == "bcn" else 1
        return lambda: check_rows(np.asarray(image), high)
    return lambda: None


def check_deep(values: NDArray[Any], form: str) -> None:
    """Check the values of an image of more than 8 bits in a format without checksums. Raises DecodeError."""
    if form == "SGI":
        check_planes(values)
    elif form in BARE:
        check_rows(values)


def _check_png(data: bytes, at: int = 0) -> None:
    """Check the checksums of the pixels, which Pillow ignores. Raises DecodeError."""
    at += len(_PNG)
    while at + 12 <= len(data):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if name == b"IEND":
            return
        if name == b"IDAT":
            check_missing(end - len(data))
            if end + 4 <= len(data) and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise DecodeError("its packed pixels are not what was written: a checksum does not fit")
        at = end + 4


def _check_webp(data: bytes) -> None:
    length = int.from_bytes(data[4:8], "little") + 8
    if length - len(data) > 1:  # some encoders leave out a last padding byte
        raise DecodeError(f"truncated: {length - len(data):,} of its {length:,} bytes are missing")
    at = 12
    while at + 8 <= min(length, len(data)):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"):
            check_zeros(data, at + 8, min(at + 8 + size, len(data)))
        at += 8 + size + size % 2


def _check_qoi(data: bytes, size: tuple[int, int]) -> None:
    """Check that the chunks give exactly the image's pixels, and the end follows. Raises DecodeError."""
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
    check_missing(left, f"of its {size[0] * size[1]:,} pixels")
    if left < 0 or data[at : at + 8] != b"\0\0\0\0\0\0\0\1":
        raise DecodeError("its pixels do not end where its data end: bytes are missing or were overwritten")


def _check_tiff_jpegs(layout: TiffLayout, data: bytes) -> None:
    """Check the strips or tiles of a TIFF that are JPEGs with shared tables. Raises DecodeError."""
    for start, count in zip(layout.offsets, layout.counts, strict=False):
        part = data[start : start + count]
        check_missing(count - len(part), "bytes of pixels")
        if not part:  # an omitted tile, which stands for background
            continue
        complete = b"\xff\xd8" + (layout.tables or b"\xff\xd8\xff\xd9")[2:-2] + part[2:]
        structure = jpeg.read_structure(complete)
        if structure.frame not in (0xC0, 0xC1, 0xC2) or len(structure.sampling) not in (1, 3, 4):
            continue  # Pillow cannot decode it alone
        with Image.open(io.BytesIO(complete), formats=["JPEG"]) as image:
            check_decoded = jpeg.guard(image, complete, [])
            image.load()
            check_decoded()


def _check_tiff_zlib(layout: TiffLayout, data: bytes) -> None:
    """Check the zlib checksums of a TIFF's pixels, which libtiff ignores. Raises DecodeError."""
    most = 64 + layout.part[0] * layout.part[1] * layout.samples * max(layout.bits, default=8) // 8
    for start, count in zip(layout.offsets, layout.counts, strict=False):
        try:
            zlib.decompressobj().decompress(data[start : start + count], most)
        except zlib.error as error:
            raise DecodeError(f"its packed pixels are not what was written ({error})") from None


def _check_jpeg2000(data: bytes) -> None:
    """Raise DecodeError for a marker among the compressed pixels, whose encoding avoids markers."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while at >= 2 and at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x90, 0xD9):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        end = at + length if length else len(data) - 2
        check_missing(end - len(data))
        begin = at + 12
        while begin + 4 <= end and data[begin : begin + 2] != b"\xff\x93":
            begin += 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
        begin += 2
        if begin < end:
            packed = np.frombuffer(data, np.uint8, end - begin, begin)
            after = packed[1:][packed[:-1] == 0xFF]
            # markers before packets (of all packets or of none) hold a number, which may look like a marker
            has_packet_markers = data[begin : begin + 4] == b"\xff\x91\0\4"
            if not has_packet_markers and bool(((after >= 0x90) & (after != 0x92)).any()):
                raise DecodeError("markers stand among its packed pixels: bytes were overwritten or are missing")
        at = end


def check_planes(values: NDArray[Any]) -> None:
    """`check_rows` for a format that stores one channel after the other, each from bottom to top."""
    planes = values[::-1, :, None] if values.ndim == 2 else values[::-1]
    _check_plane(np.concatenate([planes[..., i] != 0 for i in range(planes.shape[2])]), 1)


def check_rows(values: NDArray[Any], high: int = 1) -> None:
    """Raise DecodeError if rows of zeros begin or end within a row of other pixels.

    `high` is the number of rows that are compressed together.
    """
    if values.ndim == 3:
        values = values[..., :3]
    if high > 1:
        rows = values.shape[0] // high * high
        values = np.asarray(values[:rows].reshape(-1, high, *values.shape[1:]).any(axis=1))
    nonzero = values != 0
    for plane in [nonzero] if nonzero.ndim == 2 else [nonzero.any(axis=2), *np.moveaxis(nonzero, 2, 0)]:
        _check_plane(plane, high)


_CLEAR = 8  # rows next to the zeros that must be full of other pixels


def _check_plane(nonzero: NDArray[np.bool_], high: int) -> None:
    """Check a plane (rows, columns) that says which pixels are not 0."""
    height, width = nonzero.shape
    rows = np.asarray(nonzero.any(axis=1))
    for begin, end in _gaps(rows):
        if end - begin < max(2, height / 16):
            continue
        # the zeros begin within the row above, or end within the row below, and the rows beyond are full of pixels
        for edge, inward in ((begin - 1, -1), (end, 1)):
            near = edge + inward * np.arange(1, 1 + max(2, _CLEAR // high))
            if not (0 <= edge < height) or near.min() < 0 or near.max() >= height:
                continue
            row, full = nonzero[edge], nonzero[near]
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
    """Yield (begin, end) of each run of rows without pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], rows, [True]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
