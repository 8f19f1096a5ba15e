"""Prints an evaluation: the verdict, a column for each model, and what qualifies the numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.compare.report.number_text import NOTHING, milliseconds, plain, short
from gapstone.console.formatting import count_noun, display, span
from gapstone.statistics.metrics import find_metric


def show(results: Mapping[str, Any], page: Path | None, console: Console, as_json: bool = False) -> None:
    """Print the results (the content of evaluated.json) as a table, or as JSON on standard output."""
    if as_json:  # in ASCII: safe whatever the terminal's encoding
        print(json.dumps(results, indent=1, allow_nan=False))
        return
    console.print()
    console.print(Text(display(results["verdict"]), "bold"), soft_wrap=True)
    for finding in results["findings"]:
        console.print(Text(display(finding)), soft_wrap=True)
    console.print()
    console.print(_table(results))
    console.print()
    for remark in results["remarks"]:
        console.print(Text(display(remark), "yellow"), soft_wrap=True)
    if page is not None:
        console.print(f"\nReport: {display(page)}", highlight=False, markup=False, soft_wrap=True)


def _table(results: Mapping[str, Any]) -> Table:
    models, deciding = results["models"], results["settings"]["metric"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(count_noun(results["data"]["images"], "test image"), no_wrap=True)
    for entry in models:
        table.add_column(Text(display(entry["name"])), justify="right", overflow="fold")
    names = [deciding, *(name for name in models[0]["metrics"] if name != deciding)]
    for name in names:
        if all(name in entry["metrics"] for entry in models):
            style = "bold" if name == deciding else ""
            table.add_row(
                Text(find_metric(name).short, style), *(valued(name, entry["metrics"][name]) for entry in models)
            )
    for title, value in (
        ("ECE", lambda entry: plain(entry["calibration"]["ece"], 3)),
        ("moved images", lambda entry: _moved(entry, deciding)),
        ("parameters", lambda entry: short(entry["parameters"])),
        ("ms per image", lambda entry: milliseconds(entry["ms_per_image"])),
    ):
        table.add_row(title, *(value(entry) for entry in models))
    return table


def valued(metric: str, stat: Mapping[str, Any] | None) -> str:
    """A metric with its interval.

    >>> valued("accuracy", {"mean": 0.931, "ci95": [0.902, 0.953]})
    '93.1 (90.2 to 95.3)'
    """
    if stat is None or stat["mean"] is None:
        return NOTHING
    unit = find_metric(metric).unit
    text = plain(unit.factor * stat["mean"], unit.digits)
    if stat["ci95"] is None:
        return text
    low, high = (unit.factor * end for end in stat["ci95"])
    return f"{text} ({span(low, high, unit.digits)})"


def _moved(entry: Mapping[str, Any], deciding: str) -> str:
    by_class = find_metric(deciding).by_class
    return valued("balanced_accuracy" if by_class else "accuracy", entry["shifted"])
