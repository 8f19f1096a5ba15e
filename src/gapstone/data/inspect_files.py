"""survey(source) = the facts of every item and a thumbnail of each, from worker processes or, for arrays, at once."""

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data import image_info_cache as cache_
from gapstone.data.image_info import COLOUR_SIDE, GRAY_SIDE, THUMBNAIL, ImageInfo, is_gray, pixel_hash
from gapstone.data.memory_limits import worker_memory_limit
from gapstone.data.read_image_info import parse_image_info
from gapstone.data.sources import Source
from gapstone.images.intensity_range import Ranges, decide
from gapstone.storage.paths import PathError
from gapstone.workers.worker_pool import Lost, run_workers

TIME_LIMIT = 60.0  # seconds for one file: a 100-megapixel JPEG takes 2
_KEEP_EVERY = 500  # results written to the cache together: a killed scan loses that many at most

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

    Pictures of more than 8 bits are looked at twice: for the range of their values, and on the one range of them all.
    """
    if source.array is not None:
        facts, thumbnails = _survey_array(source)
        if progress is not None:
            progress(len(facts), len(facts))
        return facts, thumbnails, []
    return _survey_files(source, workers, cache, progress, max_pixels, time_limit)


def _survey_files(
    source: Source, workers: int | None, cache: Path | None, progress: Progress | None, max_pixels: int, limit: float
) -> tuple[list[ImageInfo], NDArray[np.uint8], list[str]]:
    notes: list[str] = []
    file = _open_cache(cache, notes)
    count = len(source.items)
    facts: list[ImageInfo | None] = [None] * count
    thumbnails = np.zeros((count, THUMBNAIL), np.uint8)

    def look(wanted: list[int], ranges: Ranges | None) -> None:
        nonlocal file
        file = _look(source, wanted, ranges, facts, thumbnails, file, notes, workers, progress, max_pixels, limit)

    look(list(range(count)), None)
    deep = [i for i, f in enumerate(facts) if f is not None and f.spread is not None]
    if deep:
        look(deep, decide(spread for f in facts if f is not None and (spread := f.spread) is not None))
    return [f for f in facts if f is not None], thumbnails, notes


def _look(
    source: Source,
    wanted: list[int],
    ranges: Ranges | None,
    facts: list[ImageInfo | None],
    thumbnails: NDArray[np.uint8],
    file: Path | None,
    notes: list[str],
    workers: int | None,
    progress: Progress | None,
    max_pixels: int,
    limit: float,
) -> Path | None:
    """Fill in the facts and thumbnails of the items wanted; the cache's file, or None where it fails."""
    fresh: list[ImageInfo] = []
    answers = run_workers(
        "gapstone.data.read_image_info:image_info_of",
        [str(source.items[i].path) for i in wanted],
        (max_pixels, None if file is None else str(file), None if ranges is None else ranges.to_json()),
        workers=workers,
        time_limit=limit,
        memory_limit=worker_memory_limit(max_pixels),
        read=parse_image_info,
    )
    for done, (number, answer) in enumerate(answers, start=1):
        i = wanted[number]
        if isinstance(answer, Lost):
            facts[i] = ImageInfo(answer.reason, "")
        else:
            found, known = answer
            if found.reason is None:
                thumbnails[i] = np.frombuffer(found.thumbnail, np.uint8)
            facts[i] = replace(found, thumbnail=b"")
            if not known:
                fresh.append(found)
        if file is not None and len(fresh) >= _KEEP_EVERY:
            file, fresh = _keep(file, fresh, max_pixels, ranges, notes), []
        if progress is not None:
            progress(done, len(wanted))
    if file is not None and fresh:
        file = _keep(file, fresh, max_pixels, ranges, notes)
    return file


def _open_cache(folder: Path | None, notes: list[str]) -> Path | None:
    if folder is None:
        return None
    try:
        return cache_.prepare(folder)
    except (OSError, PathError, sqlite3.Error) as e:
        notes.append(f"the cache in {display(folder)} cannot be used ({e}): the next scan will decode everything again")
        return None


def _keep(file: Path, fresh: list[ImageInfo], max_pixels: int, ranges: Ranges | None, notes: list[str]) -> Path | None:
    try:
        cache_.write_cached(file, fresh, max_pixels, ranges)
    except (OSError, sqlite3.Error) as e:
        notes.append(f"the cache {display(file)} cannot be written ({e}): the next scan will decode everything again")
        return None
    return file


def _survey_array(source: Source) -> tuple[list[ImageInfo], NDArray[np.uint8]]:
    array = source.array
    assert array is not None
    size = (array.shape[2], array.shape[1])
    mode = "L" if array.shape[3] == 1 else "RGB"
    facts = []
    for item in source.items:
        pixels = array[item.row]
        gray = is_gray(pixels)
        digest = pixel_hash(pixels, gray)
        sha = hashlib.sha256(pixels.tobytes()).hexdigest()
        facts.append(ImageInfo(None, sha, size, mode, (), gray, digest))
    rows = np.fromiter((item.row for item in source.items), np.int64, len(source.items))
    thumbnails = np.empty((len(rows), THUMBNAIL), np.uint8)
    for start in range(0, len(rows), 2048):
        thumbnails[start : start + 2048] = _thumbnails(array[rows[start : start + 2048]])
    return facts, thumbnails


def _thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, C) → (N, THUMBNAIL), as facts.thumbnail makes them, all at once by two matrix products."""
    x = pixels.astype(np.float32)
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
    """(new, old) weights: averages over areas when shrinking, linear when enlarging."""
    centres = (np.arange(new) + 0.5) * old / new
    if old >= new:
        low, high = centres - old / new / 2, centres + old / new / 2
        edges = np.arange(old)
        weights = np.clip(np.minimum(high[:, None], edges + 1) - np.maximum(low[:, None], edges), 0, None)
    else:
        weights = np.clip(1 - np.abs(np.clip(centres, 0.5, old - 0.5)[:, None] - (np.arange(old) + 0.5)), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
