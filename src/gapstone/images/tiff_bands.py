"""Reads TIFF files that are neither gray, RGB nor CMYK: a satellite's bands, or a microscope's channels by page."""

import importlib.util
import json
import re
from dataclasses import replace

import numpy as np

from gapstone.images.as_picture import MOST_CHANNELS
from gapstone.images.bands import Bands
from gapstone.images.channel_order import channel_axes
from gapstone.images.decode_error import DecodeError
from gapstone.images.high_bit_depth import native
from gapstone.images.no_data import without_no_data
from gapstone.images.tiff import CODECS, ZLIB, TiffLayout, read_layout, read_samples

_ALPHA = (1, 2)
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")


def read_bands(layout: TiffLayout, data: bytes) -> Bands | None:
    """The values of all channels; None if the file is a picture.

    Channels are the samples of a pixel: of gray ones two or more, unless the second is alpha; of RGB five or more. Or
    they are the pages, where the description that ImageJ, OME or tifffile wrote says so.

    Raises:
        DecodeError: they are of a kind that cannot be read, or bytes are missing.
    """
    notes: list[str] = []
    if _has_bands(layout):
        values = read_samples(layout, data, _readable(layout, layout.samples, data))
        if alpha := [layout.colours + k for k, kind in enumerate(layout.extra) if kind in _ALPHA]:
            values = np.delete(values, alpha, axis=2)
            notes.append("its alpha is left out")
    elif layout.samples == 1 and (described := _described(layout.description)) is not None:
        shape, axis = described
        pages = _pages(layout, data, shape)
        if not pages:
            return None
        dtype = _readable(layout, shape[axis], data)
        stacked = np.stack([read_samples(page, data, dtype)[..., 0] for page in pages])
        values = stacked if axis == 2 else stacked.transpose(1, 2, 0)
    else:
        return None
    return Bands(np.ascontiguousarray(without_no_data(native(values), layout.no_data, notes)), notes)


def has_channel_pages(data: bytes) -> bool:
    """Whether the pages of a TIFF are the channels of one image."""
    layout = read_layout(data)
    if layout is None or layout.samples != 1 or (described := _described(layout.description)) is None:
        return False
    return bool(_pages(layout, data, described[0]))


def _has_bands(layout: TiffLayout) -> bool:
    if layout.photometric == 2:
        return layout.samples >= 5
    if layout.photometric not in (0, 1) or layout.samples < 2:
        return False
    return layout.samples > 2 or layout.extra[:1] == (0,)


def _pages(layout: TiffLayout, data: bytes, shape: tuple[int, ...]) -> list[TiffLayout]:
    """The pages of a file that together have this shape; none if they do not."""
    if shape[1:] not in ((), (layout.height, layout.width)):
        return []
    pages = [layout]
    while pages[-1].following and len(pages) <= shape[0]:
        page = read_layout(data, pages[-1].following)
        if page is None or page.dtype != layout.dtype or (page.width, page.height) != (layout.width, layout.height):
            return []
        pages.append(page)
    return pages if len(pages) == shape[0] else []


def _described(description: str) -> tuple[tuple[int, ...], int] | None:
    """(the shape that all pages have together, or their number alone; the axis of the channels), from 2 to 16 of them.

    As ImageJ, OME or tifffile say it; None where they say nothing. (With slices or times there are more pages than
    channels.)
    """
    if description.startswith("{"):
        return _described_by_tifffile(description)
    count = 0
    if description.startswith("ImageJ="):
        lines = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
        number = lines.get("channels", "").strip()
        count = int(number) if number.isascii() and number.isdigit() else 0
    elif "openmicroscopy.org" in description and len(pixels := _PIXELS.findall(description)) == 1:
        number_of = re.search(r"SizeC=[\"'](\d{1,6})[\"']", pixels[0])
        count = int(number_of[1]) if number_of else 0
    return ((count,), 0) if 2 <= count <= MOST_CHANNELS else None


def _described_by_tifffile(description: str) -> tuple[tuple[int, ...], int] | None:
    """It writes an array (H, W, C) as H pages, and the shape in JSON beside it."""
    try:
        said = json.loads(description)
        shape, axes = tuple(map(int, said["shape"])), str(said.get("axes", ""))
    except (ValueError, TypeError, KeyError):
        return None
    if len(shape) != 3 or not 2 <= shape[0] <= 1 << 16 or axes not in ("", "CYX", "YXC", "QYX"):
        return None
    found = {"CYX": [0], "YXC": [2]}.get(axes) or channel_axes(shape)
    if len(found) != 1 or not 2 <= shape[found[0]] <= MOST_CHANNELS:
        return None
    return shape, found[0]


def _readable(layout: TiffLayout, channels: int, data: bytes) -> np.dtype[np.generic]:
    """The type of the samples. Raises DecodeError for bands that cannot be read."""
    what = f"a TIFF of {replace(layout, samples=channels)}"
    if channels > MOST_CHANNELS:
        raise DecodeError(f"not supported: {what}; up to {MOST_CHANNELS} channels are read: save those that matter")
    codec = layout.compression in CODECS
    if codec and importlib.util.find_spec("imagecodecs") is None:
        raise DecodeError(
            f"not supported: {what}; pip install 'gapstone[slides]' to read it, or save it not packed or packed by zlib"
        )
    dtype = layout.dtype
    if (
        dtype is None
        or layout.reversed_bits
        or not (codec or layout.compression in (1, *ZLIB))
        or layout.predictor not in (1, 2, 3)
        or (layout.predictor == 3) > (dtype.kind == "f")
    ):
        raise DecodeError(
            f"not supported: {what}; whole numbers and floats of 8 to 64 bits are read, not packed or packed by zlib, "
            "LZW, LZMA, Zstandard or PackBits"
        )
    if layout.width * layout.height * channels * dtype.itemsize > 1100 * len(data) + (1 << 24):
        claim = f"{layout.width}×{layout.height} px of {channels} channels"
        raise DecodeError(f"it claims {claim}, and has {len(data):,} bytes")
    return dtype
