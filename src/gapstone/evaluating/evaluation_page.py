"""Writes what an evaluation found: evaluated.json, the predictions, and one page with pictures of the worst answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader

from gapstone.comparing.report import charts, number_text
from gapstone.comparing.report.charts import ChartStyle
from gapstone.comparing.report.report_page import FILTERS, MARKS, MOST_LISTED, AxisScale
from gapstone.comparing.report.report_pictures import encode
from gapstone.console.formatting import pages
from gapstone.data.sources import Source
from gapstone.drawing.confusion_picture import FEW, confusion_picture, most_confused
from gapstone.drawing.found_picture import found_picture
from gapstone.evaluating.evaluated_model import map_picture
from gapstone.evaluating.evaluated_predictions import write_predictions
from gapstone.evaluating.evaluation_table import valued
from gapstone.evaluating.gather_evaluation import AnsweredModel
from gapstone.evaluating.multi_label_answers import shown_classes
from gapstone.images.as_picture import seen_as
from gapstone.storage.atomic import write_atomic
from gapstone.storage.sealed_json import write_sealed

MOST_MAPS = 4
"""Models whose maps are drawn."""
MOST_CLASS_MAPS = 4
"""Of an image, where it has several labels."""
MOST_ROWS = 40
"""Classes whose recall is listed; all stand in evaluated.json."""


def write_evaluation(
    out: Path, source: Source, evaluations: Sequence[AnsweredModel], results: Mapping[str, Any]
) -> Path:
    """Write evaluated.json, the predictions and report.html into `out`; return the page's path."""
    write_predictions(out, source, evaluations)
    write_sealed(out / "evaluated.json", results, "evaluated")
    path = out / "report.html"
    write_atomic(path, fill(results, evaluations).encode("utf-8", "backslashreplace"))  # names may not be UTF-8
    return path


def fill(results: Mapping[str, Any], evaluations: Sequence[AnsweredModel]) -> str:
    """The page as text."""
    environment = _environment()
    models = [_model(number, entry) for number, entry in enumerate(results["models"])]
    created = datetime.fromisoformat(results["created"])
    metric, multi_label = results["metrics"][0], results["data"].get("multi_label", False)
    page = {
        "results": results,
        "created": f"{created.day} {created:%B %Y, %H:%M}",
        "models": models,
        "deciding": metric,
        "rows": [
            (one, place == 0, [valued(one, entry["metrics"][one["name"]]) for entry in models])
            for place, one in enumerate(results["metrics"])
        ],
        "scale": _forest(results["pairs"], metric),
        "by_model": {entry["name"]: entry for entry in models},
        "multi_label": multi_label,
        "charts": _charts(models, multi_label),
        "recalls": _recalls(results, models),
        "confusions": [] if multi_label else [_confusion(entry, results["data"]) for entry in models],
        "found": [(entry, found_picture(entry["by_class"])) for entry in models] if multi_label else [],
        "class_rows": _class_rows(models) if multi_label else [],
        "worst": _worst(results, evaluations),
        "false_colours": seen_as(evaluations[0].model.preprocessing.channels),
        "marks": MARKS,
        "most_listed": MOST_LISTED,
        "left_out": _left_out(results["data"]["left_out"]),
    }
    return environment.get_template("evaluation.html.j2").render({**results, **page})


def _environment() -> Environment:
    environment = pages(__package__)
    assert isinstance(environment.loader, ChoiceLoader)
    environment.loader = ChoiceLoader([*environment.loader.loaders, PackageLoader("gapstone.comparing.report")])
    environment.filters |= {name: getattr(number_text, name) for name in FILTERS}
    return environment


def _model(number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    look = ChartStyle(number)
    reliability = entry["calibration"]["bins"]
    return {**entry, "head_spec": entry["head"], "head": entry["name"], "look": look, "key": look.key(),
            "reliability": reliability}  # fmt: skip


def _charts(models: Sequence[dict[str, Any]], multi_label: bool) -> dict[str, Any]:
    score = "balanced_accuracy" if multi_label else "accuracy"
    words = score.replace("_", " ")
    axes = ("probability", "share with the class") if multi_label else ("confidence", "accuracy")
    return {
        "shift": charts.robustness(models, "shift", "pixels", score, ("moved by, in pixels", words)),
        "same": charts.robustness(
            models, "shift", "pixels", "same_prediction", ("moved by, in pixels", "same prediction as before")
        ),
        "sizes": charts.robustness(models, "sizes", "scale", score, ("size of the input", words)),
        "reliability": [(entry, charts.reliability(entry["reliability"], i, *axes)) for i, entry in enumerate(models)],
    }


def _forest(pairs: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> AxisScale | None:
    ends = [metric["factor"] * end for pair in pairs for end in pair["ci95"] or [pair["difference"]]]
    reach = 2 * (metric["margin"] or 0.0)
    return AxisScale([*ends, -reach, reach]) if ends else None


def _recalls(results: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class, the worst first where there are many."""
    if any(entry["recall"] is None for entry in models):
        return []
    rows = [
        {"label": label, "images": cells[0]["images"], "cells": cells}
        for label, *cells in zip(results["data"]["classes"], *(entry["recall"] for entry in models), strict=True)
        if cells[0]["images"]
    ]
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: min(cell["mean"] for cell in row["cells"]))
    return rows[:MOST_ROWS]


def _class_rows(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each class of several labels, those with the lowest average precision where there are many."""
    rows = [
        {"label": first["class"], "images": first["images"], "cells": [first, *others]}
        for first, *others in zip(*(entry["by_class"] for entry in models), strict=True)
    ]
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: min(_or_last(cell["average_precision"]["mean"]) for cell in row["cells"]))
    return rows[:MOST_ROWS]


def _or_last(value: float | None) -> float:
    return 2.0 if value is None else value


def _confusion(entry: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A model's picture of confusion and its most frequent mistakes; classes that DATA has not share a column."""
    counts, other = np.asarray(entry["confusion"]), np.asarray(entry["other_classes"])
    classes, images = list(data["classes"]), list(data["counts"])
    if other.any():
        counts = np.pad(np.column_stack([counts, other]), ((0, 1), (0, 0)))
        classes, images = [*classes, "any other class"], [*images, FEW]
    return {
        "head": entry,
        "wrong": int(counts.sum() - np.trace(counts)),
        "picture": confusion_picture(counts, classes, images),
        "pairs": most_confused(counts, classes),
        "few": min(images) < FEW,
    }


def _worst(results: Mapping[str, Any], evaluations: Sequence[AnsweredModel]) -> list[dict[str, Any]]:
    """The worst answers with their picture, and where each model looked for its answer and for the true class."""
    entries, shown = results["worst"], evaluations[:MOST_MAPS]
    rows = np.array([entry["row"] for entry in entries], np.int64)
    if not len(rows):
        return []
    encoded = [encode(list(one.model.pixels(rows))) for one in shown]
    cards = [
        {**entry, "picture": encoded[0][number], "looked": [_looked(one, entry["row"]) for one in shown]}
        for number, entry in enumerate(entries)
    ]
    largest = [
        max((float(np.abs(found["map"]).max()) for card in cards for found in card["looked"][k] or ()), default=0)
        or 1.0
        for k in range(len(shown))
    ]
    for number, card in enumerate(cards):
        card["maps"] = [
            {
                "model": one.name,
                "picture": encoded[k][number],
                "maps": [
                    (found["role"], found["label"], *map_picture(found, largest[k], one.model.preprocessing.size))
                    for found in card["looked"][k] or ()
                ],
            }
            for k, one in enumerate(shown)
        ]
    return cards


def _looked(one: AnsweredModel, row: int) -> list[dict[str, Any]] | None:
    """Its maps for the class answered and the true one; with several labels, for those missed, false and found."""
    if one.answered.multi_label:
        chosen = shown_classes(one.answered, row, MOST_CLASS_MAPS)
    else:
        answer, true = int(one.answered.answer[row]), int(one.answered.labels[row])
        chosen = [(answer, "")] if answer == true else [(answer, ""), (true, "true")]
    maps = one.model.maps(row, [k for k, _ in chosen])
    if maps is None:
        return None
    return [{**m, "label": one.labels[k], "role": role} for m, (k, role) in zip(maps, chosen, strict=True)]


REASONS = {
    "unusable": "damaged, or under two labels",
    "trained_on": "the models were trained on them or on copies",
    "duplicates": "copies of another one (--duplicates drop)",
    "limit": "more than --limit",
}


def _left_out(counts: Mapping[str, int]) -> list[tuple[int, str]]:
    return [(counts[name], why) for name, why in REASONS.items() if counts[name]]
