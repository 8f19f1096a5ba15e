"""`inspect_files` computes the facts and the thumbnail of every item of a source, files in worker processes."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data import image_info_cache
from gapstone.data.deep_images import DeepImages, decide_usual, usual_channels
from gapstone.data.image_info import (
    COLOUR_SIDE,
    GRAY_SIDE,
    THUMBNAIL,
    ImageInfo,
    deep_hash,
    is_gray,
    pixel_hash,
    thumbnail,
)
from gapstone.data.memory_limits import worker_memory_limit
from gapstone.data.sources import DataError, Source, Tasks
from gapstone.images.as_picture import GRAY_OR_RGB, same_channels, three_channels
from gapstone.images.bands import channels_mode
from gapstone.images.intensity_range import AnySpread, Ranges
from gapstone.images.load import ImageError
from gapstone.storage.paths import PathError
from gapstone.workers.worker_pool import Lost, run_workers

TIME_LIMIT = 60.0  # seconds per file; a 100-megapixel JPEG takes 2 s
_CACHE_EVERY = 500  # how many results are written to the cache at once; a killed scan loses at most so many

Progress = Callable[[int, int], None]


def inspect_files(
    source: Source,
    workers: int | None,
    cache: Path | None,
    progress: Progress | None,
    max_pixels: int,
    time_limit: float = TIME_LIMIT,
) -> tuple[list[ImageInfo], NDArray[np.uint8], list[str]]:
    """(facts per item, (N, THUMBNAIL) thumbnails, notes).

    Images of more than 8 bits are decoded twice: first to find the range of their values, then with the range of all.
    """
    if source.array is not None:
        of_arrays, thumbnails = _inspect_array(source, progress)
        if all(info.reason for info in of_arrays):
            raise DataError(f"DATA {display(source.given)!r}: no image can be used; the first: {of_arrays[0].reason}.")
        return _of_usual_channels(of_arrays), thumbnails, []
    notes: list[str] = []
    cached = _CacheWriter(cache, max_pixels, notes)
    count = len(source.items)
    facts: list[ImageInfo | None] = [None] * count
    thumbnails = np.zeros((count, THUMBNAIL), np.uint8)

    def inspect(items: list[int], ranges: Ranges | None) -> None:
        answers = run_workers(
            "gapstone.data.image_info_cache:image_info_of",
            Tasks(items, source.file),
            (max_pixels, cached.file and str(cached.file), None if ranges is None else ranges.to_json()),
            workers=workers,
            time_limit=time_limit,
            memory_limit=worker_memory_limit(max_pixels),
            read=image_info_cache.parse_image_info,
        )
        for done, (number, answer) in enumerate(answers, start=1):
            i = items[number]
            if isinstance(answer, Lost):
                facts[i] = ImageInfo(answer.reason, "")
            else:
                info, is_cached = answer
                if info.reason is None:
                    thumbnails[i] = np.frombuffer(info.thumbnail, np.uint8)
                facts[i] = replace(info, thumbnail=b"")
                if not is_cached:
                    cached.add(info, ranges)
            if progress is not None:
                progress(done, len(items))
        cached.write(ranges)

    inspect(list(range(count)), None)
    spreads = {i: info.spread for i, info in enumerate(facts) if info is not None and info.spread is not None}
    if spreads:
        inspect(list(spreads), decide_usual(spreads.values()))
    return _of_usual_channels([info for info in facts if info is not None]), thumbnails, notes


def _of_usual_channels(facts: list[ImageInfo]) -> list[ImageInfo]:
    """The facts, in which images of other channels than most have are unreadable: no network takes both."""
    most = usual_channels(info.channels for info in facts if info.reason is None)

    def checked(info: ImageInfo) -> ImageInfo:
        if info.reason is not None or same_channels(info.channels, most):
            return info
        usual = "gray or RGB" if most == 1 else f"of {most} channels"
        return ImageInfo(f"it has {count_noun(info.channels, 'channel')}, and most images are {usual}", info.sha256)

    return list(map(checked, facts))


class _CacheWriter:
    """Adds facts to the cache; if that fails, it adds a note and `file` is None."""

    def __init__(self, folder: Path | None, max_pixels: int, notes: list[str]) -> None:
        self.max_pixels, self.notes = max_pixels, notes
        self.file: Path | None = None
        self.unwritten: list[ImageInfo] = []
        if folder is not None:
            with self._noting_errors(f"in {display(folder)} cannot be used"):
                self.file = image_info_cache.prepare(folder)

    def add(self, info: ImageInfo, ranges: Ranges | None) -> None:
        self.unwritten.append(info)
        if len(self.unwritten) >= _CACHE_EVERY:
            self.write(ranges)

    def write(self, ranges: Ranges | None) -> None:
        unwritten, self.unwritten = self.unwritten, []
        if self.file is not None and unwritten:
            with self._noting_errors(f"{display(self.file)} cannot be written"):
                image_info_cache.write_cached(self.file, unwritten, self.max_pixels, ranges)

    @contextmanager
    def _noting_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, PathError, sqlite3.Error) as error:
            self.file = None
            self.notes.append(f"the cache {what} ({error}): the next scan will decode everything again")


def _inspect_array(source: Source, progress: Progress | None) -> tuple[list[ImageInfo], NDArray[np.uint8]]:
    array = source.array
    assert array is not None
    whole = isinstance(array, np.ndarray)
    deep = array if isinstance(array, DeepImages) else None
    if deep is not None:
        deep.look(progress or (lambda done, total: None))
    facts = []
    rows = np.fromiter((item.row for item in source.items), np.int64, len(source.items))
    thumbnails = np.empty((len(rows), THUMBNAIL), np.uint8)
    for i, row in enumerate(rows.tolist()):
        try:
            pixels, content = (array[row], b"") if deep is None else deep.pixels_and_content(row)
        except ImageError as error:
            facts.append(ImageInfo(str(error), ""))
        else:
            facts.append(_info_of_pixels(pixels, content, deep.spread(row) if deep is not None else None))
            if not whole:
                thumbnails[i] = np.frombuffer(thumbnail(pixels), np.uint8)
        if progress is not None:
            progress(i + 1, len(rows))
    if isinstance(array, np.ndarray):
        for start in range(0, len(rows), 2048):
            thumbnails[start : start + 2048] = _thumbnails(array[rows[start : start + 2048]])
    return facts, thumbnails


def _info_of_pixels(pixels: NDArray[np.uint8], content: bytes, spread: AnySpread | None) -> ImageInfo:
    """The facts of an image in an array; of more than 8 bits it has a hash of its values, and their spread."""
    channels, gray = pixels.shape[2], is_gray(pixels)
    if content:  # the range is another one when an image is added, the image is the same
        sha, digest = hashlib.sha256(content).hexdigest(), deep_hash(content)
    else:
        sha, digest = hashlib.sha256(pixels.tobytes()).hexdigest(), pixel_hash(pixels, gray)
    size, mode = (pixels.shape[1], pixels.shape[0]), channels_mode(channels)
    return ImageInfo(None, sha, size, mode, (), gray, digest, b"", spread, channels)


def _thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, C) → (N, THUMBNAIL): what `image_info.thumbnail` computes, for many images by matrix products."""
    x = (pixels if pixels.shape[3] in GRAY_OR_RGB else three_channels(pixels)).astype(np.float32)
    n, h, w, channels = x.shape
    down, across = _resize(h, GRAY_SIDE), _resize(w, GRAY_SIDE)
    small = np.einsum("ah,nhwc->nawc", down, x, optimize=True)
    small = np.einsum("bw,nawc->nabc", across, small, optimize=True)
    if channels == 3:
        gray = small @ np.asarray([0.299, 0.587, 0.114], np.float32)
    else:
        gray, small = small[..., 0], np.repeat(small, 3, axis=3)
    step = GRAY_SIDE // COLOUR_SIDE
    colour = small.reshape(n, COLOUR_SIDE, step, COLOUR_SIDE, step, 3).mean(axis=(2, 4))
    flat = np.concatenate([gray.reshape(n, -1), colour.reshape(n, -1)], axis=1)
    return np.asarray(np.rint(flat), np.uint8)


def _resize(old: int, new: int) -> NDArray[np.float32]:
    """(new, old) weights that resize an axis: averages over areas to shrink it, linear interpolation to enlarge it."""
    centres = (np.arange(new) + 0.5) * old / new
    if old >= new:
        low, high = centres - old / new / 2, centres + old / new / 2
        edges = np.arange(old)
        weights = np.clip(np.minimum(high[:, None], edges + 1) - np.maximum(low[:, None], edges), 0, None)
    else:
        weights = np.clip(1 - np.abs(np.clip(centres, 0.5, old - 0.5)[:, None] - (np.arange(old) + 0.5)), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
