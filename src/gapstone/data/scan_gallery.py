"""OUT/scan.html: what a scan holds for one picture, shown as pictures, so that a person can judge it.

No script, no font, no address: pictures stand in it as data URIs. Each group has a leader that the others are like; how
much, stands under them: the number that `--duplicate-threshold` is compared with.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import pages
from gapstone.data import scan_report
from gapstone.data.image_info import THUMBNAIL, thumbnail
from gapstone.data.inspect_files import TIME_LIMIT, Progress
from gapstone.data.memory_limits import worker_memory_limit
from gapstone.data.near_duplicates import PHOTO_BARS
from gapstone.data.scan import Scan
from gapstone.data.sources import Source
from gapstone.data.thumbnail_similarity import compare
from gapstone.images.load import MAX_PIXELS, ImageError, load, read_bytes
from gapstone.storage.atomic import write_atomic
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_pool import Lost, run_workers

Small = tuple[NDArray[np.uint8], NDArray[np.uint8]] | None
"""(H, W, 3) pixels and a thumbnail (1, THUMBNAIL); None for what could not be read again."""

MOST_GROUPS = 100  # on the page; all are in scan.csv
MOST_PICTURES = 8  # of a group
SIDE = 160  # px


@dataclass(frozen=True)
class GalleryPicture:
    name: str
    label: str
    split: str
    uri: str
    likeness: str
    """To the group's leader; "" for the leader itself."""


@dataclass(frozen=True)
class Group:
    what: str
    problem: bool
    more: int
    pictures: tuple[GalleryPicture, ...]


def write(source: Source, scan: Scan, folder: Path, progress: Progress, max_pixels: int = MAX_PIXELS) -> Path | None:
    """Make scan.html; None, and no such file, where no picture is there twice.

    >>> write(source, scan, Path("runs/check-flowers"), bars("Drawing duplicates"))
    PosixPath('runs/check-flowers/scan.html')
    """
    path = folder / "scan.html"
    groups = _ranked(scan)
    if not groups:
        with suppress(FileNotFoundError):
            path.unlink()
        return None
    orders = [_order(scan, group) for group in groups[:MOST_GROUPS]]
    wanted = [i for order in orders for i in order[:MOST_PICTURES]]
    small: dict[int, Small] = {}
    for done, (i, one) in enumerate(_smaller(source, scan, wanted, max_pixels), start=1):
        small[i] = one
        progress(done, len(wanted))
    shown = [_group(scan, order, small) for order in orders]
    page = (
        pages(__package__)
        .get_template("scan.html.j2")
        .render(
            given=scan.given,
            groups=shown,
            count=len(groups),
            pictures=sum(map(len, groups)),
            lines=scan_report.text(scan).split("\n"),
        )
    )
    write_atomic(path, page.encode("utf-8", "backslashreplace"))
    return path


def _ranked(scan: Scan) -> list[list[int]]:
    """The groups, those that harm a comparison first: two labels, then more than one split, then the larger ones."""

    def rank(group: list[int]) -> tuple[bool, bool, int, int]:
        return not _labels(scan, group) > 1, not _splits(scan, group) > 1, -len(group), group[0]

    return sorted(scan.shared_groups(), key=rank)


def _labels(scan: Scan, group: list[int]) -> int:
    return len(set(scan.labels[group].tolist()))


def _splits(scan: Scan, group: list[int]) -> int:
    return len({scan.splits[i] for i in group})


def _order(scan: Scan, group: list[int]) -> list[int]:
    """The leader, then one of each label and split: what is wrong with the group is to be seen; then the others."""
    leader = int(scan.group[group[0]])
    first: dict[tuple[int, str | None], int] = {}
    for i in [leader, *group]:
        first.setdefault((int(scan.labels[i]), scan.splits[i]), i)
    return list(dict.fromkeys([leader, *first.values(), *group]))


def _group(scan: Scan, order: list[int], small: dict[int, Small]) -> Group:
    exact = len({scan.facts[i].pixels for i in order}) == 1
    said = ["the same pixels" if exact else "nearly the same"]
    said += ["under two labels" if _labels(scan, order) == 2 else "under several labels"] * (_labels(scan, order) > 1)
    said += [f"in {' and '.join(sorted({str(scan.splits[i]) for i in order}))}"] * (_splits(scan, order) > 1)
    leader = small[order[0]]
    pictures = []
    for i in order[:MOST_PICTURES]:
        likeness = ""
        if i != order[0] and leader is not None and (one := small[i]) is not None:
            likeness = f"{max(float(compare(leader[1], one[1], True, bar.rows)[0][0]) for bar in PHOTO_BARS):.4f}"
        pictures.append(
            GalleryPicture(scan.names[i], scan.classes[scan.labels[i]], scan.splits[i] or "", _uri(small[i]), likeness)
        )
    more = max(0, len(order) - MOST_PICTURES)
    return Group(f"{len(order):,} files, {', '.join(said)}", len(said) > 1, more, tuple(pictures))


def _smaller(source: Source, scan: Scan, wanted: list[int], max_pixels: int) -> Iterator[tuple[int, Small]]:
    """(item, what is shown of it), decoded in other processes; None for a file that was exchanged since the scan."""
    if source.array is not None:
        for i in wanted:
            yield i, _read(shrink(source.pixels(i)))
        return
    answers = run_workers(
        "gapstone.data.scan_gallery:smaller",
        [(str(source.items[i].path), scan.facts[i].sha256) for i in wanted],
        max_pixels,
        time_limit=TIME_LIMIT,
        memory_limit=worker_memory_limit(max_pixels),
        read=_read,
    )
    for task, answer in answers:
        yield wanted[task], None if isinstance(answer, Lost) else answer


def smaller(max_pixels: int, task: tuple[str, str]) -> tuple[NDArray[np.uint8], bytes] | None:
    """In a worker: (at most SIDE pixels a side, the thumbnail that is compared), None where it cannot be read."""
    try:
        data = read_bytes(task[0], max_pixels, task[1])
        return shrink(load(data, max_pixels=max_pixels).pixels)
    except ImageError:
        return None


def shrink(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes]:
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image), thumbnail(np.ascontiguousarray(pixels))


def _read(answer: Any) -> Small:
    """What `smaller` answered. Raises MessageError."""
    match answer:
        case None:
            return None
        case [np.ndarray() as pixels, bytes() as alike] if len(alike) == THUMBNAIL:
            if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and max(pixels.shape) <= SIDE:
                return pixels, np.frombuffer(alike, np.uint8)[None]
    raise MessageError("what is no small picture")


def _uri(small: Small) -> str:
    if small is None:
        return ""
    # small ones as they are: a JPEG of 28 pixels is all noise
    kind = "png" if max(small[0].shape) <= SIDE // 2 else "jpeg"
    file = io.BytesIO()
    Image.fromarray(small[0]).save(file, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
