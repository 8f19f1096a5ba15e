"""Writes OUT/scan.html, which shows the groups of duplicates as images, so that a person can judge them.

The page has no script, font or address: it holds the images as data URIs. Each group has a leader; under each other
image stands its similarity to the leader, which is the number that `--duplicate-threshold` is compared with.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import pages
from gapstone.data import scan_report
from gapstone.data.image_info import THUMBNAIL, thumbnail
from gapstone.data.inspect_files import TIME_LIMIT, Progress
from gapstone.data.label_forms import SEPARATOR
from gapstone.data.memory_limits import worker_memory_limit
from gapstone.data.near_duplicates import PHOTO_THRESHOLDS
from gapstone.data.scan import Scan
from gapstone.data.sources import Source, Tasks
from gapstone.data.thumbnail_similarity import compare
from gapstone.images.as_picture import as_picture
from gapstone.images.load import MAX_PIXELS, Encoded, ImageError, load, read_bytes
from gapstone.statistics.labels import is_multi_label
from gapstone.storage.atomic import write_atomic
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_pool import Lost, run_workers

Small = tuple[NDArray[np.uint8], NDArray[np.uint8]] | None
"""(H, W, 3) pixels and a thumbnail (1, THUMBNAIL); None for a file that could not be read again."""

MOST_GROUPS = 100  # on the page; all are in scan.csv
MOST_PICTURES = 8  # per group
SIDE = 160  # pixels


def write(source: Source, scan: Scan, folder: Path, progress: Progress, max_pixels: int = MAX_PIXELS) -> Path | None:
    """Write scan.html; if there are no duplicates, remove it and return None.

    >>> write(source, scan, Path("runs/check-flowers"), bars("Drawing duplicates"))
    PosixPath('runs/check-flowers/scan.html')
    """
    path = folder / "scan.html"
    groups = _ranked_groups(scan)
    if not groups:
        with suppress(FileNotFoundError):
            path.unlink()
        return None
    orders = [_order(scan, group) for group in groups[:MOST_GROUPS]]
    shown = [i for order in orders for i in order[:MOST_PICTURES]]
    small: dict[int, Small] = {}
    for done, (i, picture) in enumerate(_shrink_all(source, scan, shown, max_pixels), start=1):
        small[i] = picture
        progress(done, len(shown))
    page = (
        pages(__package__)
        .get_template("scan.html.j2")
        .render(
            given=scan.given,
            groups=[_group(scan, order, small) for order in orders],
            count=len(groups),
            pictures=sum(map(len, groups)),
            lines=scan_report.text(scan).split("\n"),
        )
    )
    write_atomic(path, page.encode("utf-8", "backslashreplace"))
    return path


def _ranked_groups(scan: Scan) -> list[list[int]]:
    """The groups, the most harmful first: those with several labels, then with several splits, then the larger ones."""

    def rank(group: list[int]) -> tuple[bool, bool, int, int]:
        return scan.count_labels(group) <= 1, _count_splits(scan, group) <= 1, -len(group), group[0]

    return sorted(scan.shared_groups(), key=rank)


def _count_splits(scan: Scan, group: list[int]) -> int:
    return len({scan.splits[i] for i in group})


def _order(scan: Scan, group: list[int]) -> list[int]:
    """The leader, then an image of each label and split, so that the problem is visible, then the others."""
    leader = int(scan.group[group[0]])
    first: dict[tuple[tuple[int, ...], str | None], int] = {}
    for i in [leader, *group]:
        first.setdefault((scan.label_sets[i], scan.splits[i]), i)
    return list(dict.fromkeys([leader, *first.values(), *group]))


def _group(scan: Scan, order: list[int], small: dict[int, Small]) -> dict[str, Any]:
    """What the page shows of a group; `likeness` is the similarity to its leader."""
    exact = len({scan.facts[i].pixels for i in order}) == 1
    phrases = ["the same pixels" if exact else "nearly the same"]
    if (labels := scan.count_labels(order)) > 1:
        several = "under two labels" if labels == 2 else "under several labels"
        phrases.append("with different sets of labels" if is_multi_label(scan.labels) else several)
    if _count_splits(scan, order) > 1:
        phrases.append(f"in {' and '.join(sorted({str(scan.splits[i]) for i in order}))}")
    leader = small[order[0]]
    pictures = []
    for i in order[:MOST_PICTURES]:
        likeness = ""  # of the leader itself
        if i != order[0] and leader is not None and (picture := small[i]) is not None:
            correlations = (compare(leader[1], picture[1], True, each.rows)[0][0] for each in PHOTO_THRESHOLDS)
            likeness = f"{max(map(float, correlations)):.4f}"
        facts = {"name": scan.names[i], "label": _label(scan, i), "split": scan.splits[i] or ""}
        pictures.append(facts | {"uri": _uri(small[i]), "likeness": likeness})
    return {
        "what": f"{len(order):,} files, {', '.join(phrases)}",
        "problem": len(phrases) > 1,
        "more": max(0, len(order) - MOST_PICTURES),
        "pictures": pictures,
    }


def _label(scan: Scan, i: int) -> str:
    return scan.label_text(i).replace(SEPARATOR, ", ") if scan.label_sets[i] else "no label"


def _shrink_all(source: Source, scan: Scan, items: list[int], max_pixels: int) -> Iterator[tuple[int, Small]]:
    """Yield (item, its small image), decoded in other processes; None for a file that has changed since the scan."""
    if source.array is not None:
        for i in items:
            yield i, _read(shrink(source.pixels(i)))
        return
    answers = run_workers(
        "gapstone.data.scan_gallery:smaller",
        Tasks(items, lambda i: (source.file(i), scan.facts[i].sha256)),
        max_pixels,
        time_limit=TIME_LIMIT,
        memory_limit=worker_memory_limit(max_pixels),
        read=_read,
    )
    for task, answer in answers:
        yield items[task], None if isinstance(answer, Lost) else answer


def smaller(max_pixels: int, task: tuple[Encoded, str]) -> tuple[NDArray[np.uint8], bytes] | None:
    """In a worker process, shrink an image: (pixels, thumbnail); None if it cannot be read or has changed."""
    try:
        data = read_bytes(task[0], max_pixels, task[1])
        return shrink(load(data, max_pixels=max_pixels).pixels)
    except ImageError:
        return None


def shrink(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes]:
    """(RGB pixels of at most SIDE a side, the thumbnail of the original)."""
    image = as_picture(pixels).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image), thumbnail(np.ascontiguousarray(pixels))


def _read(answer: Any) -> Small:
    """Check an answer of `smaller`. Raises MessageError."""
    match answer:
        case None:
            return None
        case [np.ndarray() as pixels, bytes() as data] if len(data) == THUMBNAIL:
            if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and max(pixels.shape) <= SIDE:
                return pixels, np.frombuffer(data, np.uint8)[None]
    raise MessageError("what is no small picture")


def _uri(small: Small) -> str:
    if small is None:
        return ""
    # small images as PNG: a JPEG of 28 pixels is all noise
    kind = "png" if max(small[0].shape) <= SIDE // 2 else "jpeg"
    file = io.BytesIO()
    Image.fromarray(small[0]).save(file, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
