"""The first pass: runs every picture through the network once and stores maps and predictions on disk, per batch.

A batch is `batch_size` pictures in the order of the list. Its numbers depend on the model, the options and these
pictures only, but the last bits of a picture's numbers may change with its neighbours in the batch. So whole batches
are cached and repeated, and a resumed run ends with the same bytes as an uninterrupted one.

The scale of all drawings is the largest contribution over all pictures. It is known only at the end of this pass, so
drawing is a second pass.
"""

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.any_size.plan_bands import MEMORY, parse_bytes
from gapstone.any_size.stream_image import Progress
from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import upsample
from gapstone.explaining.explain_folder import ExplainFolder, Record, Stamp, digest, file_stamp, unique_name
from gapstone.explaining.streamed_answer import open_large_tiff
from gapstone.explaining.streamed_picture import StreamedPicture, stream_picture
from gapstone.images.intensity_range import Ranges
from gapstone.images.load import ImageError, load, read_bytes
from gapstone.images.preprocessing import LARGEST
from gapstone.localisation.cam_boxes import box
from gapstone.maps.map_files import save_npz, to_json
from gapstone.maps.open_model import ImageModel
from gapstone.models.class_probabilities import ANSWERED, answered
from gapstone.storage.sealed_json import file_sha256, sha256

LOADERS = min(4, os.cpu_count() or 1)  # threads; each may hold a large decoded picture
BOX_GRID = 256
"""Longer side of the grid for boxes of larger pictures, in px; the side of a cell of a 7×7 map is 36 of them."""

T = TypeVar("T")
Threshold = float | Literal["otsu"] | None
Fit = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
Announce = Callable[[str], Progress]


@dataclass(frozen=True)
class ClassQuery:
    """Which classes are explained, and the cache key of the results."""

    classes: Sequence[int] | None
    """Indexes of the classes to show; None: the `top` most probable ones."""
    top: int
    all_classes: bool
    """Store the maps of all classes, not only of those shown."""
    threshold: Threshold
    """Of the boxes; see `ExplainRequest.threshold`."""
    key: str
    """Digest of everything that the numbers depend on, except the pictures."""
    plain: bool = False
    """Store maps as they are; else minus the mean of all classes' where classes compete (`Explanation.shown`)."""
    native: int | None = None
    """Least side in px of pictures that enter the network at their own size; None: they are resized and cropped."""
    memory: int = parse_bytes(MEMORY)
    """That a picture of more than 4096² px may take with `native`: it is streamed."""


@dataclass(frozen=True)
class PreparedPicture:
    """A picture in the form that the network takes, or the error that prevented it."""

    path: Path
    fitted: NDArray[np.uint8] | None
    """(h, w, C) pixels, resized and cropped, so that large photos need no more memory than small ones; with
    `ClassQuery.native` at its own size, in a batch of one; None after an error."""
    size: tuple[int, int]
    """(H, W) of the original picture."""
    notes: tuple[str, ...] = ()
    sha: str | None = None
    stamp: Stamp | None = None
    error: str | None = None
    large: bool = False
    """It is too large to enter the network whole, and will be streamed."""


class NoMemoryError(OSError):
    """Memory ran out. It ends the run instead of becoming an error of one picture, since another run may succeed."""


@dataclass
class PassResult:
    """Summary of the first pass; the rows are on disk, one record per batch."""

    batches: list[str]
    """Keys of the records, in order."""
    largest: float = 0.0
    """Largest |contribution| of a cell over all pictures and classes shown, in logit units."""
    pictures: int = 0
    errors: int = 0
    from_cache: int = 0
    """Pictures whose rows were stored by an earlier run."""


def run_map_pass(
    model: ImageModel,
    query: ClassQuery,
    paths: Sequence[Path],
    batch_size: int,
    folder: ExplainFolder,
    progress: Callable[[int], None],
    announce: Announce,
) -> PassResult:
    """Run the pictures that have no stored result through the network, and summarise all results.

    With `query.native` a batch is one picture. After every batch `progress` is called with the number of pictures done;
    `announce` names the work on one that is streamed, and returns what is told of its rows.
    """
    result = PassResult([])
    for key, record, from_cache in _records(model, query, paths, batch_size, folder, announce):
        result.batches.append(key)
        result.largest = max(result.largest, record["largest"])
        errors = sum("error" in row for row in record["rows"])
        result.errors += errors
        result.pictures += len(record["rows"]) - errors
        result.from_cache += from_cache * len(record["rows"])
        progress(result.pictures + result.errors)
    return result


def _records(
    model: ImageModel,
    query: ClassQuery,
    paths: Sequence[Path],
    batch_size: int,
    folder: ExplainFolder,
    announce: Announce,
) -> Iterator[tuple[str, Record, bool]]:
    """Yield (key, record, from cache) of each batch; two batches are loaded ahead of the network."""
    pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="gapstone-loader")
    fit: Fit = model.preprocessing.fit
    if query.native is not None:
        fit, batch_size = partial(model.preprocessing.native, smallest=query.native), 1

    def start_loading(first: int) -> tuple[str, Record] | list[Future[PreparedPicture]]:
        batch = paths[first : first + batch_size]
        cached = _cached_record(query, batch, folder)
        native = query.native is not None
        return cached or [pool.submit(_load, path, fit, model.preprocessing.ranges, native) for path in batch]

    try:
        batches = started_ahead(map(start_loading, range(0, len(paths), batch_size)), 2)
        # by `map`, which keeps no batch in memory while the next ones are loaded
        yield from map(partial(_finish_batch, model, query, folder, announce), batches)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def started_ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield the items in order, while so many of the next ones have been made: they run in threads."""
    queue: deque[T] = deque()
    for item in items:
        queue.append(item)
        if len(queue) > count:
            yield queue.popleft()
    while queue:
        yield queue.popleft()


def _cached_record(query: ClassQuery, batch: Sequence[Path], folder: ExplainFolder) -> tuple[str, Record] | None:
    """Return (key, record) of a stored batch whose files have not changed, without reading them; else None."""
    shas = [folder.cached_sha256(path) for path in batch]
    if None in shas:
        return None
    key = _batch_key(query, batch, shas)
    record = folder.checked_record(key)
    return (key, record) if record else None


def _batch_key(query: ClassQuery, batch: Sequence[Path], shas: Sequence[str | None]) -> str:
    return digest(query.key, [[os.fspath(path), sha] for path, sha in zip(batch, shas, strict=True)])


def _load(path: Path, fit: Fit, ranges: Ranges, native: bool) -> PreparedPicture:
    stamp = file_stamp(path)  # before the read, so that a change during the read is noticed
    sha = None
    try:
        if native and (huge := open_large_tiff(path)) is not None:
            with huge:
                return PreparedPicture(path, None, (huge.height, huge.width), (), file_sha256(path), stamp, large=True)
        data = read_bytes(path)
        sha = sha256(data)
        loaded = load(data, ranges=ranges)
        width, height = loaded.size
        if native and height * width > LARGEST**2:
            return PreparedPicture(path, None, (height, width), loaded.notes, sha, stamp, large=True)
        return PreparedPicture(path, fit(loaded.pixels), (height, width), loaded.notes, sha, stamp)
    except ImageError as error:
        return PreparedPicture(path, None, (0, 0), sha=sha, stamp=stamp, error=str(error))
    except (ValueError, ArithmeticError) as error:  # a size that Pillow cannot resize: an error of this picture only
        reason = f"it cannot be resized to what the network sees ({type(error).__name__}: {error})"
        return PreparedPicture(path, None, (0, 0), sha=sha, stamp=stamp, error=reason)


def _finish_batch(
    model: ImageModel,
    query: ClassQuery,
    folder: ExplainFolder,
    announce: Announce,
    batch: tuple[str, Record] | list[Future[PreparedPicture]],
) -> tuple[str, Record, bool]:
    """Return (key, record, from cache) of a batch; run it through the network if it has no record yet."""
    if isinstance(batch, tuple):
        return *batch, True
    pictures = [future.result() for future in batch]
    folder.add_files([(p.path, p.stamp, p.sha) for p in pictures if p.stamp and p.sha])
    key = _batch_key(query, [p.path for p in pictures], [p.sha or p.error for p in pictures])
    if record := folder.checked_record(key):  # new modification times, same content
        return key, record, True
    record = _explain_and_write(model, query, pictures, folder, announce)
    folder.write_record(key, record)
    return key, record, False


def _explain_and_write(
    model: ImageModel,
    query: ClassQuery,
    pictures: Sequence[PreparedPicture],
    folder: ExplainFolder,
    announce: Announce,
) -> Record:
    """Run one batch through the network, write its maps and return its record."""
    record: Record = {"rows": [], "files": {}, "largest": 0.0}
    explained = _explain(model, query, [p for p in pictures if p.fitted is not None])
    if query.native is not None:
        try:
            explained = iter(list(explained))
        except (RuntimeError, AssertionError, ValueError) as error:  # networks refuse sizes with different errors
            reason = f"the network cannot take it as it is: {error}"
            pictures = [replace(p, fitted=None, error=p.error or reason) for p in pictures]
    for picture in pictures:
        row: dict[str, Any] = {"name": display(picture.path), "path": os.fspath(picture.path)}
        file, small = (f"{unique_name(picture.path)}{end}" for end in (".npz", "-small.png"))
        try:
            if picture.large:
                checkpoint = folder.records / f"{unique_name(picture.path)}.checkpoint"
                found = _streamed(model, query, picture.path, checkpoint, announce)
                predicted, evidences = _predicted(found.probabilities, model.multi_label), found.evidences
                picture, row["small"] = replace(picture, notes=(*picture.notes, *found.notes)), f"maps/{small}"
                folder.write_file(folder.maps / small, found.small)
                record["files"][small] = sha256(found.small)
            elif picture.fitted is None:
                raise ValueError(picture.error)
            else:
                predicted, evidences = next(explained)
        except ValueError as error:
            record["rows"].append(row | {"error": str(error)})
            continue
        shown = _shown_evidence(query, evidences, model.multi_label)
        try:
            row |= _picture_facts(picture, shown, predicted, file, query.threshold)
        except ValueError as error:  # NaN or infinity: the network overflowed
            record["rows"].append(row | {"error": str(error)})
            continue
        buffer = io.BytesIO()
        save_npz(buffer, evidences if query.all_classes else shown)
        folder.write_file(folder.maps / file, buffer.getvalue())
        record["files"][file] = sha256(buffer.getvalue())
        record["largest"] = max(record["largest"], *(float(np.abs(e.map).max()) for e in shown))
        record["rows"].append(row)
    return record


def _explain(
    model: ImageModel, query: ClassQuery, pictures: Sequence[PreparedPicture]
) -> Iterator[tuple[dict[str, Any], list[Evidence]]]:
    """Yield, per picture, what was predicted, and the evidence for the classes that may be shown or stored."""
    if not pictures:
        return
    native = query.native is not None
    classes = None if query.all_classes else query.classes
    top = None if query.all_classes or query.classes else min(query.top, len(model.labels))
    try:
        explained = model.explain([p.fitted for p in pictures if p.fitted is not None], classes, top, native)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        advice = "look at it without --native" if native else "give a smaller --batch-size"
        more = f" and {len(pictures) - 1} more at once" if len(pictures) > 1 else ""
        raise NoMemoryError(
            f"{display(pictures[0].path)}{more}: this needs more memory than {model.device} has; {advice}."
        ) from error
    probabilities, explained = explained.probabilities, explained.shown(query.plain)
    for number, picture in enumerate(pictures):
        evidences = model.evidence(explained, number, picture.size, native)
        if classes is None:
            evidences.sort(key=lambda e: (-e.logit, e.index))
        yield _predicted(probabilities[number], model.multi_label), evidences


def _streamed(
    model: ImageModel, query: ClassQuery, path: Path, checkpoint: Path, announce: Announce
) -> StreamedPicture:
    """Raises ValueError."""
    classes = range(len(model.labels)) if query.all_classes else query.classes
    top = None if classes is not None else min(query.top, len(model.labels))
    found = stream_picture(model, path, classes, top, query.plain, query.memory, checkpoint, announce)
    if query.classes is None:
        found.evidences.sort(key=lambda e: (-e.logit, e.index))
    return found


def _predicted(probabilities: torch.Tensor, multi_label: bool) -> dict[str, Any]:
    """The most probable class; of several labels also all that are answered, most probable first."""
    best = probabilities.max(0)
    found: dict[str, Any] = {"prediction": int(best.indices), "probability": float(best.values)}
    return found | ({"predictions": answered(probabilities.tolist(), multi_label)} if multi_label else {})


def _shown_evidence(query: ClassQuery, evidences: list[Evidence], multi_label: bool) -> list[Evidence]:
    if query.classes is None:
        first = evidences[: query.top]
        if multi_label:  # those that are answered; or the most probable one
            return [e for e in first if e.probability >= ANSWERED] or first[:1]
        return first
    by_index = {e.index: e for e in evidences}
    return [by_index[k] for k in query.classes]


def _picture_facts(
    picture: PreparedPicture, shown: list[Evidence], predicted: dict[str, Any], file: str, threshold: Threshold
) -> dict[str, Any]:
    """Return the fields of a picture's row: those of maps/map_files.py without the maps, and those of `explain`."""
    facts: dict[str, Any] = to_json(shown, npz=f"maps/{file}")["pictures"][0]
    del facts["name"]
    for entry, evidence in zip(facts["classes"], shown, strict=True):
        del entry["map"]
        if threshold is not None:
            entry["boxes"] = _boxes(evidence, threshold)
    return {"sha256": picture.sha, "notes": list(picture.notes), **predicted, **facts}


def _boxes(evidence: Evidence, threshold: float | Literal["otsu"]) -> list[dict[str, Any]]:
    """Return the box of the largest component of the smooth map above the threshold, in pixels; [] without evidence."""
    height, width = evidence.size
    shrink = max(1.0, max(height, width) / BOX_GRID)
    grid = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    down, across = height / grid[0], width / grid[1]
    placement = evidence.placement.within((0.0, 0.0), (1 / down, 1 / across))
    return [
        {"x0": round(b.x0 * across), "y0": round(b.y0 * down), "x1": round(b.x1 * across), "y1": round(b.y1 * down)}
        for b in box(upsample(evidence.map, placement, grid), threshold)
    ]
