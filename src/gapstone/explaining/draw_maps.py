"""The second pass: each picture drawn beside its maps, all on the one scale that the first pass found.

What was drawn is noted with the key of all it was made from and the digest of its bytes, so that a drawing of other
options, of another scale, of the picture as it was last week, or a damaged one is never taken for it, and nothing is
drawn twice.
"""

import hashlib
import io
import os
from collections import deque
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
from gapstone.drawing.pictures import side_by_side
from gapstone.drawing.upsample import How
from gapstone.explaining.explain_folder import ExplainFolder, digest, name_of
from gapstone.images.intensity_range import UNDECIDED, Ranges
from gapstone.images.load import VERSION as LOADER
from gapstone.images.load import ImageError, load, read_bytes
from gapstone.localisation.cam_boxes import Box
from gapstone.maps.map_files import load_npz

VERSION = 3  # raised when the same facts are drawn otherwise
THREADS = min(4, os.cpu_count() or 1)
THUMBNAILS = ((300, 320), (1500, 224), (4000, 144))
"""So many pictures on a page, and the longer side of each, in px: some 30 MB at most."""
SMALLEST_THUMBNAIL = 96
OWN_PIXELS = 64  # px: below, a picture keeps its own pixels, and the page shows them as squares

Row = dict[str, Any]
Pixels = NDArray[np.uint8]


def draw(
    kept: ExplainFolder,
    rows: Iterator[Row],
    scale: float,
    how: How,
    alpha: float,
    drawings: bool,
    side: int | None,
    tell: Callable[[int], None],
    ranges: Ranges = UNDECIDED,
) -> dict[str, str]:
    """Draw what is missing: PNGs where `drawings`, thumbnails of that side where one is given.

    Returns: by the path of each picture that could not be drawn, why: one hopeless picture does not end a run.

    ranges: as the model has them, of values of more than 8 bits.

    Raises: ValueError where a picture is no longer what it was in the first pass.
    """
    done = 0
    failed: dict[str, str] = {}
    waiting: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gapstone-drawer")
    try:
        for row in rows:
            work: list[Callable[[Pixels], None]] = []
            if drawings:
                work += _drawing(kept, row, scale, how, alpha, ranges)
            if side:
                work += _thumbnail(kept, row, side, ranges)
            if work:
                waiting.append(pool.submit(_work, row, work, ranges, failed))
            else:
                done += 1
            while len(waiting) > 2 * THREADS:
                waiting.popleft().result()
                done += 1
            tell(done)
        while waiting:
            waiting.popleft().result()
            done += 1
            tell(done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failed


def shown(kept: ExplainFolder, row: Row) -> list[Evidence]:
    """The evidence for the classes of a row, in its order."""
    by_index = {e.index: e for e in load_npz(kept.out / row["npz"])}
    return [by_index[entry["index"]] for entry in row["classes"]]


def boxes(entry: dict[str, Any]) -> list[Box]:
    """Of a class of a row."""
    return [Box(b["x0"], b["y0"], b["x1"], b["y1"], 0, 0.0, 0.0) for b in entry.get("boxes", ())]


def thumbnail_side(pictures: int) -> int:
    return next((side for most, side in THUMBNAILS if pictures <= most), SMALLEST_THUMBNAIL)


def thumbnail(kept: ExplainFolder, row: Row, side: int) -> Path:
    """Where it lies; its suffix says whether it is a JPEG, or a PNG of all the picture's own pixels."""
    suffix = "png" if max(row["size"]) <= OWN_PIXELS else "jpg"
    return kept.thumbs / f"{name_of(Path(row['path']))}-{row['sha256'][:16]}-{side}.{suffix}"


def _work(row: Row, work: Sequence[Callable[[Pixels], None]], ranges: Ranges, failed: dict[str, str]) -> None:
    name = row["name"]
    try:
        data = read_bytes(row["path"])
        same = hashlib.sha256(data).hexdigest() == row["sha256"]
        pixels = load(data, ranges=ranges).pixels if same else None
    except ImageError as error:
        raise ValueError(f"{name} could be read a moment ago and now cannot: {error}. Run it again.") from error
    if pixels is None:
        raise ValueError(f"{name} was changed while gapstone was at work. Run the command again.")
    for make in work:
        try:
            make(pixels)
        except (ValueError, ArithmeticError, IndexError, SystemError, MemoryError) as error:  # Pillow's, and ours
            failed[row["path"]] = f"{type(error).__name__}: {error}"


def _drawing(
    kept: ExplainFolder, row: Row, scale: float, how: How, alpha: float, ranges: Ranges
) -> list[Callable[[Pixels], None]]:
    """What is left to do for a picture's PNG: nothing, where it is there."""
    path = kept.maps / f"{name_of(Path(row['path']))}.png"
    facts = {name: value for name, value in row.items() if name not in ("path", "notes")}
    key = digest(VERSION, LOADER, facts, scale, how, alpha, ranges.to_json(), PIL.__version__, __version__)
    if kept.has_drawn(path, key):
        return []

    def make(pixels: Pixels) -> None:
        found = {entry["index"]: boxes(entry) for entry in row["classes"]}
        picture = side_by_side(pixels, shown(kept, row), scale, alpha, how, found, name=display(Path(row["path"]).name))
        drawn = io.BytesIO()
        picture.save(drawn, "PNG", compress_level=3)  # 22 ms; 6 takes 35 for a third less
        kept.draw(path, key, drawn.getvalue())

    return [make]


def _thumbnail(kept: ExplainFolder, row: Row, side: int, ranges: Ranges) -> list[Callable[[Pixels], None]]:
    path = thumbnail(kept, row, side)
    key = digest(VERSION, LOADER, path.name, ranges.to_json(), PIL.__version__, __version__)
    return [] if kept.has_drawn(path, key) else [partial(_make_thumbnail, kept, path, key, side)]


def _make_thumbnail(kept: ExplainFolder, path: Path, key: str, side: int, pixels: Pixels) -> None:
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    drawn = io.BytesIO()
    if path.suffix == ".png":
        picture.save(drawn, "PNG", optimize=True)
    else:
        picture.save(drawn, "JPEG", quality=80)
    kept.draw(path, key, drawn.getvalue())
