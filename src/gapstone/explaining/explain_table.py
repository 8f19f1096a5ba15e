"""The summary of `explain` in the terminal: a table of the first pictures, the errors, the paths of the results."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.explaining.explain_folder import ExplainFolder
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.explaining.image_table import class_list, image_table
from gapstone.explaining.map_pass import PassResult

MOST = 40  # rows of the table
MOST_ERRORS = 20

Row = dict[str, Any]


def show(
    console: Console,
    labels: Sequence[str],
    result: PassResult,
    folder: ExplainFolder,
    missing: Sequence[str],
    request: ExplainRequest,
) -> None:
    """Print the summary; `missing` are patterns that match no file."""
    first: list[Row] = []
    errors: list[Row] = []
    for row in folder.rows(result.batches):
        if "error" in row and len(errors) < MOST_ERRORS:
            errors.append(row)
        elif "error" not in row and len(first) < MOST:
            first.append(row)
        elif len(first) == MOST and len(errors) == min(MOST_ERRORS, result.errors):
            break
    if first:
        console.print(_table(first, labels, request))
    if result.pictures > len(first):
        _print(console, f"… and {result.pictures - len(first):,} more pictures.")
    if errors:
        _print(console, f"{result.errors:,} could not be explained:", "red")
        for row in errors:
            _print(console, f"  {row['name']}: {row['error']}")
        if result.errors > len(errors):
            _print(console, f"  … and {result.errors - len(errors):,} more.")
    for pattern in missing:
        _print(console, f"{display(pattern)}: no file matches this pattern.", "red")
    out = display(folder.out)
    _print(console, f"All numbers: {out}/explained.json\nMaps{' and drawings' * request.drawings}: {out}/maps")
    for reference in dict.fromkeys(row["reference"] for row in first if row["reference"]):
        _print(console, f"Maps, logits and biases are minus {reference} (--plain: as they are).")
    if request.html:
        _print(console, f"Page: {out}/index.html")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)


def _table(rows: Sequence[Row], labels: Sequence[str], request: ExplainRequest) -> Table:
    multi_label = "predictions" in rows[0]
    table, names = image_table([row["name"] for row in rows], multi_label)
    if request.classes is not None:
        table.add_column("asked")
    if request.threshold is not None:
        first = "the first asked" if request.classes is not None else "the first" if multi_label else "the prediction"
        table.add_column(f"box of {first}")
    for name, row in zip(names, rows, strict=True):
        cells = [name]
        classes = [(entry["label"], entry["probability"]) for entry in row["classes"]]
        if request.classes is not None and multi_label:
            cells.append(Text(", ".join(display(labels[k]) for k in row["predictions"]) or "none"))
        elif request.classes is not None:
            cells.append(class_list([(labels[row["prediction"]], row["probability"])]))
        cells.append(class_list(classes, multi_label))
        if request.threshold is not None:
            cells.append(_box(row["classes"][0]))
        table.add_row(*cells)
    return table


def _box(entry: Row) -> Text:
    if not entry["positive"]:
        return Text("no positive evidence", "dim")
    return Text("; ".join(f"x {b['x0']}–{b['x1']}, y {b['y0']}–{b['y1']}" for b in entry["boxes"]))
