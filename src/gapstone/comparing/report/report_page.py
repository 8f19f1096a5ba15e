"""Writes OUT/report.html from OUT/results.json and OUT/pictures.npz.

    write(folder) = fill(templates/report.html.j2, results, charts as SVG, pictures as data URIs)

The page is one file without scripts, fonts or addresses.
"""

import io
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from math import floor, log10
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gapstone.comparing.remarks import learned_with
from gapstone.comparing.report import number_text, report_pictures
from gapstone.comparing.report.report_charts import CHARTS, draw, heads_of, reliability
from gapstone.comparing.speed_differences import against, caution
from gapstone.console.formatting import pages
from gapstone.drawing.confusion_picture import FEW, confusion_picture
from gapstone.drawing.found_picture import found_picture
from gapstone.drawing.metric_table import metric_table
from gapstone.images.as_picture import seen_as
from gapstone.storage.atomic import write_atomic
from gapstone.storage.sealed_json import read_sealed, read_vouched

MOST_ROWS = 30  # classes whose recall is listed
MOST_LISTED = 200  # entries of one list; all are in scan.json
FILTERS = (
    "percent",
    "plus_minus",
    "plain",
    "signed",
    "short",
    "p_value",
    "seconds",
    "count_noun",
    "milliseconds",
    "span",
    "metric_value",
    "metric_interval",
    "change",
    "ends",
)
"""Functions of `number_text` that the templates use."""
MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈", "cannot tell": "?"}


def write(folder: Path) -> Path:
    """Write report.html beside the results in `folder`; return its path.

        >>> write(Path("runs/demo"))
        PosixPath('runs/demo/report.html')

    The same results give the same page, byte for byte. Raises FileNotFoundError without results, DamagedError.
    """
    results = read_sealed(folder / "results.json", "results")
    npz = io.BytesIO(read_vouched(folder, "pictures.npz", results)) if results["files"] else None
    learned = partial(learned_with, results)
    page = fill(results, *report_pictures.read(npz, results["data"]["classes"], len(results["heads"]), learned))
    path = folder / "report.html"
    write_atomic(path, page.encode("utf-8", "backslashreplace"))  # names may not be UTF-8
    return path


def fill(
    results: dict[str, Any], maps: report_pictures.Maps | None, worst: Sequence[report_pictures.ReportPicture]
) -> str:
    """The page as text."""
    environment = pages(__package__)
    environment.filters |= {name: getattr(number_text, name) for name in FILTERS}
    # results of earlier versions lack some entries
    results = {"shift_pairs": [], "localisation": None, "localisation_pairs": []} | results
    settings, heads = results["settings"], heads_of(results)
    created = datetime.fromisoformat(results["created"])
    metric = results["metrics"][0]["words"]
    pictures = dict(enumerate(worst))
    multi_label = results["data"].get("multi_label", False)
    page = {
        "false_colours": seen_as(results["data"]["channels"]),
        "results": results,
        "created": f"{created.day} {created:%B %Y, %H:%M}",
        "heads": heads,
        "done": [head for head in heads if head["test_accuracy"]["mean"] is not None],
        "failed": [trial for trial in results["trials"] if trial["status"] == "failed"],
        "scale": _forest(results["pairs"]),
        "shift_scale": _forest(results["shift_pairs"]),
        "localisation_scale": _forest(results["localisation_pairs"]),
        "localised_classes": _localised_classes(heads),
        "tuned": any(head["localisation"] and head["localisation"]["tuned"] for head in heads),
        "dumbbells": _dumbbells(heads),
        "multi_label": multi_label,
        "most_maps": report_pictures.MOST_MAPS,
        "metric": metric,
        "intervals": number_text.about_intervals(heads, settings, metric, number_text.by_chance(results["data"])),
        "tested": number_text.images_of_groups(results["data"]),
        "by_chance": number_text.by_chance(results["data"]),
        "busy": caution(results["heads"]),
        "timing": against(results["heads"], settings["baseline"]),
        "charts": _charts(results, heads),
        "curve": _curve(results, heads),
        "tuning": settings.get("tuning"),  # results of earlier versions have none
        "maps": maps,
        "ticks": _ticks(maps.largest) if maps else [],
        "worst": [{**entry, "image": pictures.get(entry["picture"])} for entry in results["worst"]],
        "recalls": _recalls(results["data"]["classes"], heads),
        "confusions": [_confusion(head, results["data"]) for head in heads if head["confusion"]],
        "class_rows": _class_rows(heads) if multi_label else [],
        "class_pictures": {head["head"]: found_picture(head["classes"]) for head in heads} if multi_label else {},
        "metric_table": _metric_table(results, heads),
        "repeats": number_text.repeats(settings),
        "sensitivity": number_text.sensitivity(results["pairs"]),
        "marks": MARKS,
        "most_listed": MOST_LISTED,
    }
    return environment.get_template("report.html.j2").render(results | page)


def _localised_classes(heads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class with boxes, with several labels per image, and at the end the mean of the classes."""
    shown = [head["localisation"]["classes"] for head in heads if (head["localisation"] or {}).get("classes")]
    rows: list[dict[str, Any]] = [
        {"label": entries[0]["class"], "images": entries[0]["images"], "cells": entries}
        for entries in zip(*shown, strict=True)
    ]
    if rows:
        keys = ("gt_known", "pointing")
        means = [{key: sum(entry[key] for entry in entries) / len(entries) for key in keys} for entries in shown]
        rows.append({"label": None, "images": None, "cells": means})
    return rows


def _curve(results: dict[str, Any], heads: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What is measured against labelled images, and a row for each head."""
    if (curve := results.get("curve")) is None:  # results of earlier versions have none
        return None
    found = {(pair["a"], pair["per_class"]): pair["verdict"] for pair in curve["pairs"]}
    points = [point["per_class"] for point in curve["points"]]
    rows = [
        (head, [(stat, found.get((head["head"], n))) for n, stat in zip(points, entry["score"], strict=True)])
        for head, entry in zip(heads, curve["heads"], strict=True)
    ]
    return {**curve, "rows": rows}


def _charts(results: dict[str, Any], heads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{name: draw(results, heads, name) for name in CHARTS},
        "reliability": [(head, reliability(results, i)) for i, head in enumerate(heads) if head["reliability"]],
    }


class AxisScale:
    """Maps numbers to positions on a horizontal axis, in per cent of its width, with round ticks."""

    def __init__(self, numbers: Sequence[float], least: float | None = None, most: float | None = None) -> None:
        low, high = min(numbers), max(numbers)
        room = 0.06 * ((high - low) or 1)
        self.low = low - room if least is None else max(least, low - room)
        self.high = high + room if most is None else min(most, high + room)

    def at(self, number: float) -> str:
        return f"{100 * (min(max(number, self.low), self.high) - self.low) / (self.high - self.low):.2f}%"

    def width(self, low: float, high: float) -> str:
        return f"{float(self.at(high)[:-1]) - float(self.at(low)[:-1]):.2f}%"

    def ticks(self) -> list[float]:
        rough = (self.high - self.low) / 7
        size = 10 ** floor(log10(rough))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
        first = floor(self.low / step) + 1
        ticks = [round(step * k, 10) + 0.0 for k in range(first, first + 16)]
        return [tick for tick in ticks if tick <= self.high]


def _forest(pairs: Sequence[dict[str, Any]]) -> AxisScale | None:
    ends = [end for pair in pairs for end in pair["ci95"] or [pair["difference"]] if end is not None]
    if not ends:
        return None
    margin = pairs[0]["margin"] or max(abs(end) for end in ends) / 2
    return AxisScale([*ends, -2 * margin, 2 * margin])


def _dumbbells(heads: Sequence[dict[str, Any]]) -> AxisScale | None:
    found = [mean for head in heads for mean in head["beside_training"].values()]
    means = [100 * mean for mean in found if mean is not None]
    return AxisScale([*means, max(means) - 5], least=0, most=100.5) if means else None


def _ticks(largest: float) -> list[tuple[float, str]]:
    """Positions on the colour bar (0 … 100) and their values; the scale is a cube root on both sides of 0."""
    digits = 2 if largest < 10 else 1
    return [(50 + 50 * root, number_text.signed(root**3 * largest, digits)) for root in (-1.0, -0.5, 0.0, 0.5, 1.0)]


def _recalls(classes: Sequence[str], heads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class, of the heads that finished; none for many classes."""
    recalls = [head["recall"] for head in heads if head["recall"]]
    if not recalls or len(classes) > MOST_ROWS:
        return []
    return [
        {"label": label, "images": cells[0]["images"], "cells": cells}
        for label, *cells in zip(classes, *recalls, strict=True)
    ]


def _class_rows(heads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class that images may have several of: its average precision under each head that finished."""
    every = [head["classes"] for head in heads if head["classes"]]
    return [
        {"label": first["class"], "images": first["images"], "cells": [cell["average_precision"] for cell in cells]}
        for cells in zip(*every, strict=True)
        for first in cells[:1]
    ]


def _metric_table(results: dict[str, Any], heads: Sequence[dict[str, Any]]) -> Markup:
    rows = [
        (Markup('<span class="head">{}{}</span>').format(head["key"], head["head"]), head["metrics"]) for head in heads
    ]
    return metric_table(rows, results["metrics"])


def _confusion(head: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The picture of what a head takes for what, and its most confused classes."""
    counts, images = head["confusion"], data["counts"]["test"]
    wrong = sum(map(sum, counts)) - sum(row[k] for k, row in enumerate(counts))
    return {
        "head": head,
        "wrong": wrong,
        "picture": confusion_picture(counts, data["classes"], images),
        "few": any(0 < number < FEW for number in images),
    }
