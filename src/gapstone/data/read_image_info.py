"""Computes an image's facts in a worker process: from the cache if it has the same bytes, else by decoding them."""

import hashlib
from dataclasses import astuple
from pathlib import Path
from typing import Any

from gapstone.data.image_info import THUMBNAIL, ImageInfo, measure
from gapstone.data.image_info_cache import read_cached
from gapstone.images.intensity_range import Ranges, ValueSpread
from gapstone.images.load import ImageError, read_bytes
from gapstone.workers.messages import MessageError


def image_info_of(constant: tuple[int, str | None, dict[str, Any] | None], path: str) -> tuple[Any, ...]:
    """(whether the cache has them, *facts); `constant` is (max_pixels, cache file or None, ranges as JSON or None)."""
    max_pixels, cache_file, ranges = constant
    info, cached = _read(path, max_pixels, cache_file, None if ranges is None else Ranges.from_json(ranges))
    return cached, *astuple(info)


def parse_image_info(answer: Any) -> tuple[ImageInfo, bool]:
    """Check an answer of `image_info_of`: (facts, whether the cache has them). Raises MessageError."""
    match answer:
        case [
            bool() as cached,
            None | str() as reason,
            str() as sha,
            [int() as width, int() as height],
            str() as mode,
            [*notes],
            bool() as gray,
            bytes() as pixels,
            bytes() as thumbnail,
            None | [*_] as spread,
        ] if all(isinstance(note, str) for note in notes):
            complete = min(width, height) > 0 and len(pixels) == 16 and len(thumbnail) == THUMBNAIL
            if reason is not None or complete:
                size, values = (width, height), _spread(spread)
                return ImageInfo(reason, sha, size, mode, tuple(notes), gray, pixels, thumbnail, values), cached
    raise MessageError("what are no facts of an image")


def _spread(fields: list[Any] | None) -> ValueSpread | None:
    match fields:
        case None:
            return None
        case ["integers" | "floats" as kind, *numbers] if len(numbers) == 4 and all(type(n) is float for n in numbers):
            return ValueSpread(kind, *numbers)
    raise MessageError("what is no spread of values")


def _read(path: str, max_pixels: int, cache_file: str | None, ranges: Ranges | None) -> tuple[ImageInfo, bool]:
    try:
        data = read_bytes(path, max_pixels)
    except ImageError as e:
        return ImageInfo(str(e), ""), True
    sha = hashlib.sha256(data).hexdigest()
    if cache_file is not None:
        info = read_cached(Path(cache_file), sha, max_pixels, ranges)
        if info is not None:
            return info, True
    return measure(data, sha, max_pixels, ranges), False
