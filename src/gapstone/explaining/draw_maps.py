"""The second pass: draws each picture beside its maps, all on the scale that the first pass found.

Each drawing is noted with a key of everything it was made from (picture, options, scale) and the digest of its bytes.
So outdated or damaged drawings are made anew, and intact ones are never made twice.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from gapstone import __version__
from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.overlay import resized
from gapstone.drawing.pictures import side_by_side
from gapstone.drawing.upsample import How
from gapstone.explaining.explain_folder import ExplainFolder, digest, unique_name
from gapstone.explaining.map_pass import started_ahead
from gapstone.images.as_picture import as_picture
from gapstone.images.intensity_range import UNDECIDED, Ranges
from gapstone.images.load import VERSION as LOADER
from gapstone.images.load import ImageError, load, read_bytes
from gapstone.localisation.cam_boxes import Box
from gapstone.maps.map_files import load_npz
from gapstone.storage.sealed_json import file_sha256, sha256

VERSION = 3  # increased when the same inputs give other drawings
THREADS = min(4, os.cpu_count() or 1)
THUMBNAILS = ((300, 320), (1500, 224), (4000, 144))
"""(Most pictures on a page, longer side of their thumbnails in px): at most about 30 MB in all."""
SMALLEST_THUMBNAIL = 96
OWN_PIXELS = 64  # px: pictures up to this side are not resized, and the page shows their pixels as squares

PICTURE_ERRORS = (ValueError, ArithmeticError, IndexError, SystemError, MemoryError)
"""Of Pillow and of gapstone.drawing."""

Row = dict[str, Any]
Pixels = NDArray[np.uint8]


def draw(
    folder: ExplainFolder,
    rows: Iterator[Row],
    scale: float,
    how: How,
    alpha: float,
    drawings: bool,
    side: int | None,
    progress: Callable[[int], None],
    ranges: Ranges = UNDECIDED,
) -> dict[str, str]:
    """Make the missing drawings and thumbnails; return the reason for each picture that cannot be drawn, by its path.

    `rows` are those of the first pass that have no error; `scale` is the contribution that gets the strongest colour,
    in logit units; `side` the longer side of thumbnails in px, None for no thumbnails; `ranges` those of the model, for
    values of more than 8 bits. Raises ValueError if a picture has changed since the first pass.
    """
    undrawn: dict[str, str] = {}
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gapstone-drawer")

    def start_drawing(row: Row) -> Future[None] | None:
        tasks = _drawing_tasks(folder, row, scale, how, alpha, ranges) if drawings else []
        tasks += _thumbnail_tasks(folder, row, side, ranges) if side else []
        return pool.submit(_draw_picture, folder, row, tasks, ranges, undrawn) if tasks else None

    try:
        for done, future in enumerate(started_ahead(map(start_drawing, rows), 2 * THREADS), 1):
            if future is not None:
                future.result()
            progress(done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return undrawn


def shown_evidence(folder: ExplainFolder, row: Row) -> list[Evidence]:
    """Load the evidence for the classes of a row, in the order of the row."""
    by_index = {e.index: e for e in load_npz(folder.out / row["npz"])}
    return [by_index[entry["index"]] for entry in row["classes"]]


def row_boxes(entry: dict[str, Any], down: float = 1.0, across: float = 1.0) -> list[Box]:
    """Return the boxes of one class of a row, in a picture of so many px per px of the row's."""
    corners = [
        (round(b["x0"] * across), round(b["y0"] * down), round(b["x1"] * across), round(b["y1"] * down))
        for b in entry.get("boxes", ())
    ]
    return [Box(*each, 0, 0.0, 0.0) for each in corners]


def thumbnail_side(pictures: int) -> int:
    """Return the longer side of thumbnails, in px, on a page of so many pictures."""
    return next((side for most, side in THUMBNAILS if pictures <= most), SMALLEST_THUMBNAIL)


def thumbnail_path(folder: ExplainFolder, row: Row, side: int) -> Path:
    """Return the path of a thumbnail: a JPEG, or for a small picture a PNG of its own pixels."""
    suffix = "png" if max(row["size"]) <= OWN_PIXELS else "jpg"
    return folder.thumbs / f"{unique_name(Path(row['path']))}-{row['sha256'][:16]}-{side}.{suffix}"


def _draw_picture(
    folder: ExplainFolder,
    row: Row,
    tasks: Sequence[Callable[[Pixels], None]],
    ranges: Ranges,
    undrawn: dict[str, str],
) -> None:
    """Load a picture, check that it is unchanged, and run its tasks; errors go into `undrawn`."""
    name = row["name"]
    try:
        if "small" in row:
            same = file_sha256(Path(row["path"])) == row["sha256"]
            pixels = load(folder.out / row["small"]).pixels if same else None
        else:
            data = read_bytes(row["path"])
            same = sha256(data) == row["sha256"]
            pixels = load(data, ranges=ranges).pixels if same else None
    except ImageError as error:
        raise ValueError(f"{name} could be read a moment ago and now cannot: {error}. Run it again.") from error
    if pixels is None:
        raise ValueError(f"{name} was changed while gapstone was at work. Run the command again.")
    for make in tasks:
        try:
            make(pixels)
        except PICTURE_ERRORS as error:
            undrawn[row["path"]] = f"{type(error).__name__}: {error}"


def _drawing_tasks(
    folder: ExplainFolder, row: Row, scale: float, how: How, alpha: float, ranges: Ranges
) -> list[Callable[[Pixels], None]]:
    """Return the task that draws a picture's PNG; none if it exists."""
    path = folder.maps / f"{unique_name(Path(row['path']))}.png"
    facts = {name: value for name, value in row.items() if name not in ("path", "notes")}
    key = digest(VERSION, LOADER, facts, scale, how, alpha, ranges.to_json(), PIL.__version__, __version__)
    if folder.has_drawn(path, key):
        return []

    def make(pixels: Pixels) -> None:
        size, name = (pixels.shape[0], pixels.shape[1]), display(Path(row["path"]).name)
        down, across = size[0] / row["size"][0], size[1] / row["size"][1]
        boxes = {entry["index"]: row_boxes(entry, down, across) for entry in row["classes"]}
        evidences = [resized(e, size) if e.size != size else e for e in shown_evidence(folder, row)]
        picture = side_by_side(pixels, evidences, scale, alpha, how, boxes, name=name)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=3)  # 22 ms; 6 takes 35 for a third less
        folder.write_drawing(path, key, buffer.getvalue())

    return [make]


def _thumbnail_tasks(folder: ExplainFolder, row: Row, side: int, ranges: Ranges) -> list[Callable[[Pixels], None]]:
    """Return the task that makes a picture's thumbnail; none if it exists."""
    path = thumbnail_path(folder, row, side)
    key = digest(VERSION, LOADER, path.name, ranges.to_json(), PIL.__version__, __version__)
    return [] if folder.has_drawn(path, key) else [partial(_make_thumbnail, folder, path, key, side)]


def _make_thumbnail(folder: ExplainFolder, path: Path, key: str, side: int, pixels: Pixels) -> None:
    picture = as_picture(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    if path.suffix == ".png":
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=80)
    folder.write_drawing(path, key, buffer.getvalue())
