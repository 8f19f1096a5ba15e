"""Reads an image that is a NumPy array in a file (`np.save("image.npy", image)`)."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gapstone.images.as_picture import MOST_CHANNELS
from gapstone.images.bands import Bands
from gapstone.images.channel_order import channel_axes
from gapstone.images.decode_error import DecodeError, check_missing
from gapstone.images.high_bit_depth import native

SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def is_array_file(data: bytes) -> bool:
    return data.startswith(_MAGIC)


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an array file says."""

    shape: tuple[int, int, int]
    """(H, W, C), or (C, H, W)."""
    axis: int
    """That of the channels, 0 or 2."""
    in_columns: bool
    """Fortran's order."""
    dtype: np.dtype[Any]
    start: int
    """The first byte of the values."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = (n for axis, n in enumerate(self.shape) if axis != self.axis)
        return height, width


def read_header(data: bytes) -> ArrayHeader:
    """The header of the file. Raises DecodeError for an array that is no image."""
    file = io.BytesIO(data)
    try:
        read = _HEADERS.get(np.lib.format.read_magic(file))
        if read is None:
            raise DecodeError("not supported: an array file of another version; save it by np.save")
        written, in_columns, dtype = read(file)
    except (ValueError, EOFError, TypeError) as error:
        raise DecodeError(f"the header of its array cannot be read ({' '.join(str(error).split())[:80]})") from None
    if dtype.hasobject:
        raise DecodeError("not supported: an array of Python objects, which is never opened, as it may run code")
    if dtype.kind not in "uif":
        raise DecodeError(f"not supported: an array of {dtype}; expected whole numbers or floats")
    shape = (*written, 1) if len(written) == 2 else tuple(written)
    axes = channel_axes(shape) if len(shape) == 3 and min(shape) > 0 else []
    if not axes:
        raise DecodeError(
            f"not supported: an array of shape {written}; expected an image (H, W), (H, W, C) or (C, H, W) of up to "
            f"{MOST_CHANNELS} channels"
        )
    if len(axes) > 1:
        raise DecodeError(
            f"not supported: an array of shape {written}: {shape[0]} channels that come first, or {shape[2]} that come "
            "last? Give such images as one array, with channels beside it (np.savez)"
        )
    return ArrayHeader(shape, axes[0], bool(in_columns), dtype, file.tell())


def read_array_file(data: bytes, header: ArrayHeader) -> Bands:
    """The image. Raises DecodeError if bytes are missing."""
    count = math.prod(header.shape)
    check_missing(header.start + count * header.dtype.itemsize - len(data), "bytes of values")
    flat = np.frombuffer(data, header.dtype, count, header.start)
    values = flat.reshape(header.shape, order="F" if header.in_columns else "C")
    return Bands(np.ascontiguousarray(native(values if header.axis == 2 else values.transpose(1, 2, 0))))
