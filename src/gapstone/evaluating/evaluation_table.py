"""Prints an evaluation: the verdict, a column for each model, and what qualifies the numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.comparing.report.number_text import NOTHING, milliseconds, plain, short
from gapstone.console.formatting import count_noun, display, span
from gapstone.statistics.metrics import METRICS


def show(results: Mapping[str, Any], page: Path | None, console: Console, as_json: bool = False) -> None:
    """Print the results (the content of evaluated.json) as a table, or as JSON on standard output."""
    if as_json:  # in ASCII: safe whatever the terminal's encoding
        print(json.dumps(results, indent=1, allow_nan=False))
        return
    console.print()
    console.print(Text(display(results["verdict"]), "bold"), soft_wrap=True)
    for finding in results["findings"]:
        console.print(Text(display(finding)), soft_wrap=True)
    show_metrics(results, console)
    if page is not None:
        console.print(f"\nReport: {display(page)}", highlight=False, markup=False, soft_wrap=True)


def show_metrics(results: Mapping[str, Any], console: Console) -> None:
    """Print the table and what qualifies its numbers."""
    console.print()
    console.print(_table(results))
    console.print()
    for remark in results["remarks"]:
        console.print(Text(display(remark), "yellow"), soft_wrap=True)


def _table(results: Mapping[str, Any]) -> Table:
    models, metrics = results["models"], results["metrics"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(count_noun(results["data"]["images"], "test image"), no_wrap=True)
    for entry in models:
        table.add_column(Text(display(entry["name"])), justify="right", overflow="fold")
    for place, metric in enumerate(metrics):
        title = Text(display(metric["short"]), "" if place else "bold")
        table.add_row(title, *(valued(metric, entry["metrics"][metric["name"]]) for entry in models))
    table.add_row("ECE", *(plain(entry["calibration"]["ece"], 3) for entry in models))
    if any(entry["shifted"] for entry in models):
        moved = "balanced, moved" if results["data"].get("multi_label") else "moved images"
        table.add_row(moved, *(valued(METRICS["accuracy"].to_json(), entry["shifted"]) for entry in models))
    table.add_row("parameters", *(short(entry["parameters"]) for entry in models))
    if any(entry["ms_per_image"] for entry in models):
        table.add_row("ms per image", *(milliseconds(entry["ms_per_image"]) for entry in models))
    return table


def valued(metric: Mapping[str, Any], stat: Mapping[str, Any] | None) -> str:
    """A metric, an entry of "metrics", with its interval.

    >>> valued(METRICS["accuracy"].to_json(), {"mean": 0.931, "ci95": [0.902, 0.953]})
    '93.1 (90.2 to 95.3)'
    """
    if stat is None or stat["mean"] is None:
        return NOTHING
    factor, digits = metric["factor"], metric["digits"]
    text = plain(factor * stat["mean"], digits)
    if stat["ci95"] is None:
        return text
    low, high = (factor * end for end in stat["ci95"])
    return f"{text} ({span(low, high, digits)})"
