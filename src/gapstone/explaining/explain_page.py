"""OUT/index.html: one page that needs nothing else. Pictures and maps stand in it as data URIs; it asks no network.

Every map is a small picture of its own that the page lays where its cells lie, on one scale with all others; its cells,
or four by four points between their centres where maps are smooth. The page is written picture by picture: however many
there are, one is in memory. A few lines of script sort, filter and page; without them all pictures are shown.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import pages
from gapstone.drawing import colours, logit_text
from gapstone.drawing.colourbar import strip, ticks
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.overlay import DARKEST, LIGHTEST
from gapstone.explaining.common_folder import shared, within
from gapstone.explaining.draw_maps import OWN_PIXELS, shown, thumbnail, thumbnail_side
from gapstone.explaining.explain_folder import ExplainFolder
from gapstone.explaining.map_pass import PassResult
from gapstone.storage.atomic import atomic_file

MOST = 6000  # pictures on a page: some 50 MB; all are in explained.json
MOST_WRONG = 500  # listed
MOST_CHOICES = 300  # answers to choose from; with more, the filter finds them
POINTS = 4  # per cell and axis, of a smooth map

Row = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """One class's map over the picture, as the page draws it; places in % of the picture or of what was seen."""

    label: str
    uri: str
    seen: tuple[float, float, float, float]
    """left, top, width, height, in % of the picture"""
    at: tuple[float, float, float, float]
    """of the map, in % of what was seen"""
    boxes: Sequence[tuple[float, float, float, float]]
    probability: str
    logit: str
    positive: str
    negative: str | None
    bias: str
    nothing: bool
    unexplained: str | None


@dataclass(frozen=True)
class Card:
    """One picture and its maps."""

    name: str
    answer: str
    probability: float
    percent: str
    uri: str
    ratio: str
    pixelated: bool
    whole: bool
    notes: Sequence[str]
    tiles: Sequence[Tile]


def write(
    kept: ExplainFolder,
    head: dict[str, Any],
    looked: PassResult,
    rows: Callable[[], Iterator[Row]],
    failed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make index.html of what the two passes left in the folder. The same results give the same page, byte for byte.

    failed: by path, why a picture could not be drawn; one without a thumbnail is listed instead of shown.
    """
    answers: Counter[str] = Counter()
    wrong: list[Row] = []
    additive = exact = True
    folder: str | None = None
    parts = False
    held: dict[str, None] = {}
    side = thumbnail_side(min(looked.pictures, MOST))
    errors = looked.errors

    def readable() -> Iterator[Row]:
        for row in rows():
            lost = "error" not in row and row["path"] in failed and not thumbnail(kept, row, side).exists()
            yield {"name": row["name"], "error": f"it could not be drawn: {failed[row['path']]}"} if lost else row

    for row in readable():
        if "error" in row:
            wrong += [row] if len(wrong) < MOST_WRONG else []
            errors += "path" not in row
            continue
        answers[head["labels"][row["prediction"]]] += 1
        folder = shared(folder, row["name"])
        additive &= all(entry["additive"] for entry in row["classes"])
        held |= dict.fromkeys(what for entry in row["classes"] for what in entry["held"])
        exact &= row["placement"]["exact"]
        parts |= not _all_seen(row)
    script = (files(__package__) / "templates" / "page.js").read_text("utf-8")
    template = pages(__package__).get_template("page.html.j2")
    text = template.generate(
        head=head,
        cards=_cards(kept, head, readable(), side, folder or ""),
        folder=folder,
        pictures=looked.pictures - (errors - looked.errors),
        most=MOST,
        errors=errors,
        wrong=wrong,
        answers=sorted(answers.items(), key=lambda item: (-item[1], item[0])) if len(answers) <= MOST_CHOICES else [],
        bar=_png(strip(512, 16, head["largest"], head["options"]["alpha"], None)),
        grey=_grey(),
        ticks=ticks(head["largest"], None),
        additive=additive,
        held=list(held),
        exact=exact,
        parts=parts,
        script=script,
    )
    with atomic_file(kept.out / "index.html") as unfinished, unfinished.open("wb") as file:
        for piece in text:
            file.write(piece.encode("utf-8", "backslashreplace"))


def _grey() -> str:
    """The drawings' grey underlay, DARKEST + v · (LIGHTEST − DARKEST), in the words of CSS."""
    slope, offset = (LIGHTEST - DARKEST) / 255, DARKEST / 255
    return f"contrast({slope / (slope + 2 * offset):.3f}) brightness({slope + 2 * offset:.3f})"


def _cards(kept: ExplainFolder, head: dict[str, Any], rows: Iterator[Row], side: int, folder: str) -> Iterator[Card]:
    number = 0
    for row in rows:
        if "error" in row:
            continue
        number += 1
        if number > MOST:
            return
        picture = thumbnail(kept, row, side)
        kind = "png" if picture.suffix == ".png" else "jpeg"
        evidences = shown(kept, row)
        height, width = row["size"]
        yield Card(
            name=within(row["name"], folder),
            answer=head["labels"][row["prediction"]],
            probability=row["probability"],
            percent=logit_text.percent(row["probability"]),
            uri=_uri(picture.read_bytes(), kind),
            ratio=f"{width}/{height}",
            pixelated=max(height, width) <= OWN_PIXELS,
            whole=_all_seen(row),
            notes=row["notes"],
            tiles=[
                _tile(e, entry, head["largest"], head["options"]["how"], head["options"]["alpha"])
                for e, entry in zip(evidences, row["classes"], strict=True)
            ],
        )


def _all_seen(row: Row) -> bool:
    spans = zip(row["placement"]["seen"], row["size"], strict=True)
    return all(low < 0.5 and high > n - 0.5 for (low, high), n in spans)


def _tile(e: Evidence, entry: Row, largest: float, how: Literal["smooth", "cells"], alpha: float) -> Tile:
    uri, (top, left, high, wide) = _map(e, largest, how, alpha)
    (y0, y1), (x0, x1) = e.placement.seen
    height, width = e.size
    return Tile(
        label=e.label,
        uri=uri,
        seen=_percent(x0, y0, x1 - x0, y1 - y0, width, height),
        at=_percent(left - x0, top - y0, wide, high, x1 - x0, y1 - y0),
        boxes=[
            _percent(b["x0"], b["y0"], b["x1"] - b["x0"], b["y1"] - b["y0"], width, height)
            for b in entry.get("boxes", ())
        ],
        probability=logit_text.percent(e.probability),
        logit=logit_text.signed(e.logit),
        positive=logit_text.signed(entry["positive"]),
        negative=logit_text.signed(entry["negative"]) if entry["negative"] else None,
        bias=logit_text.signed(e.bias),
        nothing=entry["positive"] == 0,
        unexplained=None if e.additive else f"{e.completeness:.2g}",
    )


def _percent(
    left: float, top: float, wide: float, high: float, width: float, height: float
) -> tuple[float, float, float, float]:
    across, down = 100 / width, 100 / height
    return round(left * across, 3), round(top * down, 3), round(wide * across, 3), round(high * down, 3)


def _map(
    e: Evidence, largest: float, how: Literal["smooth", "cells"], alpha: float
) -> tuple[str, tuple[float, float, float, float]]:
    """The map as a PNG, and the rectangle of the picture that it covers: top, left, height, width in its pixels.

    Cells are equally large there; what is beyond the picture, the page cuts off.
    """
    values, ((top, bottom), (left, right)) = e.placement.covering(e.map)
    if how == "smooth":
        values = _between(_between(values, 0), 1)
    return _png(Image.fromarray(colours.rgba(values, largest, alpha))), (top, left, bottom - top, right - left)


def _between(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """POINTS per cell, linear between the cells' centres, constant beyond the outer ones."""
    cells = values.shape[axis]
    at = ((np.arange(cells * POINTS) + 0.5) / POINTS - 0.5).clip(0, cells - 1)
    before = np.floor(at).astype(np.int64).clip(0, max(cells - 2, 0))
    share = (at - before).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    after = (before + 1).clip(0, cells - 1)
    mixed: NDArray[np.float32] = (1 - share) * values.take(before, axis) + share * values.take(after, axis)
    return mixed


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _uri(buffer.getvalue(), "png")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
