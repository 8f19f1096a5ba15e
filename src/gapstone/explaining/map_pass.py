"""The first pass: every picture through the network once, its maps and its answer kept on disk, batch by batch.

A batch is so many pictures in the order of the list, and its numbers depend on nothing but the model, the options and
these pictures: a picture's last bits may change with its neighbours in the batch. So a batch is what is kept and what
is done again, and a run that was killed ends with the bytes of one that was not.

The scale of all drawings is the largest contribution of all pictures. It is known only when this pass has ended, so
drawing is a second one.
"""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import upsample
from gapstone.explaining.explain_folder import ExplainFolder, Record, Stamp, digest, name_of, stamp
from gapstone.images.intensity_range import Ranges
from gapstone.images.load import ImageError, load, read_bytes
from gapstone.localisation.cam_boxes import box
from gapstone.maps.map_files import save_npz, to_json
from gapstone.maps.open_model import ImageModel
from gapstone.storage.sealed_json import sha256

LOADERS = min(4, os.cpu_count() or 1)  # pictures decoded at a time; each may hold a large one
BOX_GRID = 256  # px: boxes of larger pictures are found on a grid of that side; a cell of 7×7 is 36 of them

Threshold = float | Literal["otsu"] | None
Tell = Callable[..., None]
Fit = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ClassQuery:
    """What each picture is asked, and by what all its answers are known again."""

    classes: Sequence[int] | None
    """The classes to show; the `top` most probable ones where None."""
    top: int
    all_classes: bool
    """Keep the maps of all classes, whatever is shown."""
    threshold: Threshold
    key: str
    """Of the model and of all that these numbers depend on but the pictures."""
    native: int | None = None
    """Pictures are seen as they are, if no side is shorter than this; None: cut and resized."""


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as the network will see it, or why it cannot."""

    path: Path
    fitted: NDArray[np.uint8] | None
    """(h, w, C): cropped and resized, so that a batch of large photos needs no more memory than one of small ones; or
    as it is, and then a batch is one picture."""
    size: tuple[int, int]
    """(H, W) of the picture itself."""
    notes: tuple[str, ...] = ()
    sha: str | None = None
    like: Stamp | None = None
    error: str | None = None


class NoMemoryError(OSError):
    """The run ends, and goes on with the same command: it says nothing about the picture that would be kept."""


@dataclass
class PassResult:
    """What the first pass found; the answers themselves are on disk, a record per batch."""

    batches: list[str]
    """Their keys, in order."""
    largest: float = 0.0
    """|contribution| of a cell over all classes shown, in logit units."""
    pictures: int = 0
    errors: int = 0
    again: int = 0
    """Pictures whose answers were there already."""


def run_map_pass(
    opened: ImageModel, asked: ClassQuery, paths: Sequence[Path], batch_size: int, kept: ExplainFolder, tell: Tell
) -> PassResult:
    """Look at what has not been looked at yet."""
    looked = PassResult([])
    done = 0
    for key, record, old in _records(opened, asked, paths, batch_size, kept):
        looked.batches.append(key)
        looked.largest = max(looked.largest, record["largest"])
        wrong = sum("error" in row for row in record["rows"])
        looked.errors += wrong
        looked.pictures += len(record["rows"]) - wrong
        looked.again += old * len(record["rows"])
        done += len(record["rows"])
        tell(done, len(paths))
    return looked


def _records(
    opened: ImageModel, asked: ClassQuery, paths: Sequence[Path], batch_size: int, kept: ExplainFolder
) -> Iterator[tuple[str, Record, bool]]:
    """(key, record, was there already) of each batch. While the network is at one, the next is being loaded."""
    pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="gapstone-loader")
    waiting: deque[tuple[str, Record] | list[Future[PreparedPicture]]] = deque()
    fit: Fit = opened.preprocessing.fit
    if asked.native is not None:
        fit, batch_size = partial(opened.preprocessing.native, smallest=asked.native), 1
    try:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            known = _known(asked, batch, kept)
            waiting.append(known or [pool.submit(_load, path, fit, opened.preprocessing.ranges) for path in batch])
            if len(waiting) > 2:
                yield _finish(opened, asked, waiting.popleft(), kept)
        while waiting:
            yield _finish(opened, asked, waiting.popleft(), kept)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _known(asked: ClassQuery, batch: Sequence[Path], kept: ExplainFolder) -> tuple[str, Record] | None:
    """A batch whose files are as they were when it was looked at, found without reading them."""
    shas = [kept.known(path) for path in batch]
    if None in shas:
        return None
    key = _key(asked, batch, shas)
    record = kept.record(key)
    return (key, record) if record else None


def _key(asked: ClassQuery, batch: Sequence[Path], shas: Sequence[str | None]) -> str:
    return digest(asked.key, [[os.fspath(path), sha] for path, sha in zip(batch, shas, strict=True)])


def _load(path: Path, fit: Fit, ranges: Ranges) -> PreparedPicture:
    like = stamp(path)  # before it is read: a change while it is read shows
    sha = None
    try:
        data = read_bytes(path)
        sha = hashlib.sha256(data).hexdigest()
        loaded = load(data, ranges=ranges)
        width, height = loaded.size
        return PreparedPicture(path, fit(loaded.pixels), (height, width), loaded.notes, sha, like)
    except ImageError as error:
        return PreparedPicture(path, None, (0, 0), sha=sha, like=like, error=str(error))
    except (ValueError, ArithmeticError) as error:  # of a size that Pillow cannot resize: listed, and the run goes on
        why = f"it cannot be resized to what the network sees ({type(error).__name__}: {error})"
        return PreparedPicture(path, None, (0, 0), sha=sha, like=like, error=why)


def _finish(
    opened: ImageModel,
    asked: ClassQuery,
    batch: tuple[str, Record] | list[Future[PreparedPicture]],
    kept: ExplainFolder,
) -> tuple[str, Record, bool]:
    if isinstance(batch, tuple):
        return *batch, True
    pictures = [future.result() for future in batch]
    kept.remember([(p.path, p.like, p.sha) for p in pictures if p.like and p.sha])
    key = _key(asked, [p.path for p in pictures], [p.sha or p.error for p in pictures])
    if record := kept.record(key):  # touched, or copied back, but the same
        return key, record, True
    record = _ask(opened, asked, pictures, kept)
    kept.keep(key, record)
    return key, record, False


def _ask(opened: ImageModel, asked: ClassQuery, pictures: Sequence[PreparedPicture], kept: ExplainFolder) -> Record:
    """One batch through the network; its maps are written, its answers returned."""
    record: Record = {"rows": [], "files": {}, "largest": 0.0}
    answers = _answers(opened, asked, [p for p in pictures if p.fitted is not None])
    if asked.native is not None:
        try:
            answers = iter(list(answers))
        except (RuntimeError, AssertionError, ValueError) as error:  # whoever refuses a size, in words of their own
            why = f"the network cannot take it as it is: {error}"
            pictures = [replace(p, fitted=None, error=p.error or why) for p in pictures]
    for picture in pictures:
        row: dict[str, Any] = {"name": display(picture.path), "path": os.fspath(picture.path)}
        if picture.fitted is None:
            record["rows"].append(row | {"error": picture.error})
            continue
        best, evidences = next(answers)
        shown = _shown(asked, evidences)
        file = f"{name_of(picture.path)}.npz"
        try:
            row |= _facts(picture, shown, best, file, asked.threshold)
        except ValueError as error:  # numbers that are none: the network overflowed
            record["rows"].append(row | {"error": str(error)})
            continue
        packed = io.BytesIO()
        save_npz(packed, evidences)
        kept.write(kept.maps / file, packed.getvalue())
        record["files"][file] = sha256(packed.getvalue())
        record["largest"] = max(record["largest"], *(float(np.abs(e.map).max()) for e in shown))
        record["rows"].append(row)
    return record


def _answers(
    opened: ImageModel, asked: ClassQuery, pictures: Sequence[PreparedPicture]
) -> Iterator[tuple[tuple[int, float], list[Evidence]]]:
    """Per picture (the class answered, its probability) and the evidence for the classes whose maps are kept."""
    if not pictures:
        return
    native = asked.native is not None
    classes = None if asked.all_classes else asked.classes
    top = None if asked.all_classes or asked.classes else min(asked.top, len(opened.labels))
    try:
        explained = opened.explain([p.fitted for p in pictures if p.fitted is not None], classes, top, native)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        way = "look at it without --native" if native else "give a smaller --batch-size"
        more = f" and {len(pictures) - 1} more at once" if len(pictures) > 1 else ""
        raise NoMemoryError(
            f"{display(pictures[0].path)}{more}: this needs more memory than {opened.device} has; {way}."
        ) from error
    best = explained.probabilities.max(1)
    for number, picture in enumerate(pictures):
        evidences = opened.evidence(explained, number, picture.size, native)
        if classes is None:
            evidences.sort(key=lambda e: (-e.logit, e.index))
        yield (int(best.indices[number]), float(best.values[number])), evidences


def _shown(asked: ClassQuery, evidences: list[Evidence]) -> list[Evidence]:
    if asked.classes is None:
        return evidences[: asked.top]
    by_index = {e.index: e for e in evidences}
    return [by_index[k] for k in asked.classes]


def _facts(
    picture: PreparedPicture, shown: list[Evidence], best: tuple[int, float], file: str, threshold: Threshold
) -> dict[str, Any]:
    """A picture's row: what maps/map_files.py says of it, and what only this command knows."""
    facts: dict[str, Any] = to_json(shown, npz=f"maps/{file}")["pictures"][0]
    del facts["name"]
    for entry, evidence in zip(facts["classes"], shown, strict=True):
        del entry["map"]
        if threshold is not None:
            entry["boxes"] = boxes_of(evidence, threshold)
    return {"sha256": picture.sha, "notes": list(picture.notes), "prediction": best[0], "probability": best[1], **facts}


def boxes_of(evidence: Evidence, threshold: float | Literal["otsu"]) -> list[dict[str, Any]]:
    """The box of the largest part of the smooth map above the threshold, in pixels of the picture; [] without any."""
    height, width = evidence.size
    shrink = max(1.0, max(height, width) / BOX_GRID)
    grid = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    down, across = height / grid[0], width / grid[1]
    placement = evidence.placement.within((0.0, 0.0), (1 / down, 1 / across))
    return [
        {"x0": round(b.x0 * across), "y0": round(b.y0 * down), "x1": round(b.x1 * across), "y1": round(b.y1 * down)}
        for b in box(upsample(evidence.map, placement, grid), threshold)
    ]
