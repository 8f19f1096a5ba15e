"""OUT/index.html: a self-contained page. Pictures and maps are data URIs; nothing is loaded from the network.

Each map is a small PNG that the page places over the picture where its cells lie; all maps share one scale. A PNG has
a pixel per cell, or POINTS × POINTS interpolated pixels per cell for smooth maps. The page is written picture by
picture, with one in memory. A short script sorts, filters and pages; without it all pictures are shown.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import display, pages
from gapstone.drawing import colours
from gapstone.drawing.colourbar import strip, ticks
from gapstone.drawing.evidence import Evidence, percent, signed
from gapstone.drawing.overlay import DARKEST, LIGHTEST
from gapstone.drawing.upsample import How
from gapstone.explaining.draw_maps import OWN_PIXELS, shown_evidence, thumbnail_path, thumbnail_side
from gapstone.explaining.explain_folder import ExplainFolder
from gapstone.explaining.image_table import common_folder, relative_to
from gapstone.explaining.map_pass import PassResult
from gapstone.storage.atomic import atomic_file

MOST = 6000  # pictures on a page: about 50 MB; explained.json has all of them
MOST_ERRORS = 500  # errors that are listed
MOST_CHOICES = 300  # classes in the menu of predictions; with more there is only the text filter
POINTS = 4  # pixels per cell and axis of a smooth map

NONE = "no class"
"""What the page says of a picture that a multi-label model answers none of its classes for."""

Row = dict[str, Any]


def write(
    folder: ExplainFolder,
    head: dict[str, Any],
    result: PassResult,
    undrawn: Mapping[str, str],
) -> None:
    """Write index.html from the results of the two passes. The same results give the same bytes.

    `head` are the fields of explained.json without its pictures. Pictures in `undrawn` (path → reason) that have no
    thumbnail are listed as errors.
    """
    predictions: Counter[str] = Counter()
    listed: list[Row] = []
    additive = exact = True
    names: list[str] = []
    cropped = False
    held: dict[str, None] = {}
    reference: str | None = None  # of one model and one option: the same for all
    side = thumbnail_side(min(result.pictures, MOST))
    errors = result.errors

    def displayable() -> Iterator[Row]:
        for row in folder.rows(result.batches):
            reason = undrawn.get(row["path"])
            if reason and "error" not in row and not thumbnail_path(folder, row, side).exists():
                yield {"name": row["name"], "error": f"it could not be drawn: {reason}"}
            else:
                yield row

    for row in displayable():
        if "error" in row:
            listed += [row] if len(listed) < MOST_ERRORS else []
            errors += "path" not in row
            continue
        predictions.update(_predicted(row, head["labels"]) or [NONE])
        names.append(row["name"])
        additive &= all(entry["additive"] for entry in row["classes"])
        held |= dict.fromkeys(name for entry in row["classes"] for name in entry["held"])
        reference = row["reference"]
        exact &= row["placement"]["exact"]
        cropped |= not _all_seen(row)
    common = common_folder(names)
    script = (files(__package__) / "templates" / "page.js").read_text("utf-8")
    template = pages(__package__).get_template("page.html.j2")
    text = template.generate(
        head=head,
        cards=_cards(folder, head, displayable(), side, common),
        folder=common,
        pictures=result.pictures - (errors - result.errors),
        most=MOST,
        errors=errors,
        listed=listed,
        answers=sorted(predictions.items(), key=lambda item: (-item[1], item[0]))
        if len(predictions) <= MOST_CHOICES
        else [],
        bar=_png(strip(512, 16, head["largest"], head["options"]["alpha"], None)),
        grey=_grey(),
        ticks=ticks(head["largest"], None),
        additive=additive,
        held=list(held),
        reference=reference,
        exact=exact,
        cropped=cropped,
        script=script,
    )
    with atomic_file(folder.out / "index.html") as temporary, temporary.open("wb") as file:
        for piece in text:
            file.write(piece.encode("utf-8", "backslashreplace"))


def _grey() -> str:
    """Return the CSS filter of the drawings' grey underlay, DARKEST + v · (LIGHTEST − DARKEST)."""
    slope, offset = (LIGHTEST - DARKEST) / 255, DARKEST / 255
    return f"contrast({slope / (slope + 2 * offset):.3f}) brightness({slope + 2 * offset:.3f})"


def _cards(folder: ExplainFolder, head: dict[str, Any], rows: Iterator[Row], side: int, common: str) -> Iterator[Row]:
    """Yield what the template shows of each picture."""
    for row in islice((row for row in rows if "error" not in row), MOST):
        picture = thumbnail_path(folder, row, side)
        kind = "png" if picture.suffix == ".png" else "jpeg"
        evidences = shown_evidence(folder, row)
        height, width = row["size"]
        yield {
            "name": relative_to(row["name"], common),
            "answer": ", ".join(_predicted(row, head["labels"])) or NONE,
            "answers": json.dumps([display(name) for name in _predicted(row, head["labels"]) or [NONE]]),
            "probability": row["probability"],
            "percent": "" if "predictions" in row else percent(row["probability"]),
            "uri": _uri(picture.read_bytes(), kind),
            "ratio": f"{width}/{height}",
            "pixelated": max(height, width) <= OWN_PIXELS,
            "whole": _all_seen(row),
            "notes": row["notes"],
            "tiles": [
                _tile(e, entry, head["largest"], head["options"]["how"], head["options"]["alpha"])
                for e, entry in zip(evidences, row["classes"], strict=True)
            ],
        }


def _predicted(row: Row, labels: Sequence[str]) -> list[str]:
    """The labels that a picture is answered with: one, or of a multi-label model any number."""
    return [labels[k] for k in row.get("predictions", [row["prediction"]])]


def _all_seen(row: Row) -> bool:
    """Tell whether the network saw the whole picture, not a crop of it."""
    spans = zip(row["placement"]["seen"], row["size"], strict=True)
    return all(low < 0.5 and high > n - 0.5 for (low, high), n in spans)


def _tile(e: Evidence, entry: Row, largest: float, how: How, alpha: float) -> Row:
    """Return what the template shows of a map; rectangles are (left, top, width, height) in %, `at` in % of `seen`."""
    uri, (top, left, high, wide) = _map(e, largest, how, alpha)
    (y0, y1), (x0, x1) = e.placement.seen
    height, width = e.size
    return {
        "label": e.label,
        "uri": uri,
        "seen": _percent(x0, y0, x1 - x0, y1 - y0, width, height),
        "at": _percent(left - x0, top - y0, wide, high, x1 - x0, y1 - y0),
        "boxes": [
            _percent(b["x0"], b["y0"], b["x1"] - b["x0"], b["y1"] - b["y0"], width, height)
            for b in entry.get("boxes", ())
        ],
        "probability": percent(e.probability),
        "logit": e.logit_text,
        "positive": signed(entry["positive"]),
        "negative": signed(entry["negative"]) if entry["negative"] else None,
        "bias": signed(e.bias),
        "nothing": entry["positive"] == 0,
        "unexplained": None if e.additive else f"{e.completeness:.2g}",
    }


def _percent(
    left: float, top: float, wide: float, high: float, width: float, height: float
) -> tuple[float, float, float, float]:
    across, down = 100 / width, 100 / height
    return round(left * across, 3), round(top * down, 3), round(wide * across, 3), round(high * down, 3)


def _map(e: Evidence, largest: float, how: How, alpha: float) -> tuple[str, tuple[float, float, float, float]]:
    """Return the map as a PNG, and the rectangle that it covers: top, left, height, width in pixels of the picture.

    All cells in it have the same size; the page crops what lies beyond the picture.
    """
    values, ((top, bottom), (left, right)) = e.placement.covering(e.map)
    if how == "smooth":
        values = _interpolate(_interpolate(values, 0), 1)
    return _png(Image.fromarray(colours.rgba(values, largest, alpha))), (top, left, bottom - top, right - left)


def _interpolate(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Interpolate to POINTS values per cell: linear between the centres of cells, constant beyond the outer ones."""
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
