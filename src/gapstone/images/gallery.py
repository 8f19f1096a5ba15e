"""OUT/scan.html: what a scan holds for one picture, shown as pictures, so that a person can judge it.

No script, no font, no address: pictures stand in it as data URIs. Each group has a leader that the others are like; how
much, stands under them: the number that `--duplicate-threshold` is compared with.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from gapstone.shown import finalize
from gapstone.whole import write_whole

from .facts import thumbnail
from .likeness import compare
from .load import ImageError
from .near import PHOTO_BARS
from .scan import Scan
from .sources import Source
from .survey import Progress

MOST_GROUPS = 100  # on the page; all are in scan.csv
MOST_PICTURES = 8  # of a group
SIDE = 160  # px


@dataclass(frozen=True)
class Picture:
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
    pictures: tuple[Picture, ...]


def write(source: Source, scan: Scan, folder: Path, progress: Progress) -> Path | None:
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
    environment = Environment(
        loader=FunctionLoader(lambda name: (files(__package__) / "templates" / name).read_text("utf-8")),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = []
    for done, group in enumerate(groups[:MOST_GROUPS], start=1):
        shown.append(_group(source, scan, group))
        progress(done, min(len(groups), MOST_GROUPS))
    page = environment.get_template("scan.html.j2").render(
        given=scan.given, groups=shown, count=len(groups), pictures=sum(map(len, groups)), lines=scan.text().split("\n")
    )
    write_whole(path, page.encode("utf-8", "backslashreplace"))
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


def _group(source: Source, scan: Scan, group: list[int]) -> Group:
    leader = int(scan.group[group[0]])
    # one of each label and each split first: what is wrong with the group is to be seen
    first: dict[tuple[int, str | None], int] = {}
    for i in [leader, *group]:
        first.setdefault((int(scan.labels[i]), scan.splits[i]), i)
    order = list(dict.fromkeys([leader, *first.values(), *group]))
    exact = len({scan.facts[i].pixels for i in group}) == 1
    said = ["the same pixels" if exact else "nearly the same"]
    said += ["under two labels" if _labels(scan, group) == 2 else "under several labels"] * (_labels(scan, group) > 1)
    said += [f"in {' and '.join(sorted({str(scan.splits[i]) for i in group}))}"] * (_splits(scan, group) > 1)
    pictures = tuple(_pictures(source, scan, order[:MOST_PICTURES]))
    more = max(0, len(order) - MOST_PICTURES)
    return Group(f"{len(group):,} files, {', '.join(said)}", len(said) > 1, more, pictures)


def _pictures(source: Source, scan: Scan, order: list[int]) -> Iterator[Picture]:
    led = None
    for i in order:
        uri = likeness = ""
        # a file that was exchanged since has no picture
        with suppress(ImageError):
            pixels = source.pixels(i, sha256=scan.facts[i].sha256)
            small = np.frombuffer(thumbnail(np.ascontiguousarray(pixels)), np.uint8)[None]
            if led is None:
                led = small
            else:
                alike = max(float(compare(led, small, True, bar.rows)[0][0]) for bar in PHOTO_BARS)
                likeness = f"{alike:.4f}"
            uri = _uri(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
        yield Picture(scan.names[i], scan.classes[scan.labels[i]], scan.splits[i] or "", uri, likeness)


def _uri(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    # small ones as they are: a JPEG of 28 pixels is all noise
    image.save(file, "PNG" if max(image.size) <= SIDE // 2 else "JPEG", quality=80)
    kind = "png" if max(image.size) <= SIDE // 2 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
