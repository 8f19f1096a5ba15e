"""The summary of `explain` in the terminal: a table of the first pictures, the errors, the paths of the results."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.explaining.common_folder import common_folder, relative_to
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.explaining.map_pass import PassResult

MOST = 40  # rows of the table
MOST_ERRORS = 20

Row = dict[str, Any]


def show(
    console: Console,
    labels: Sequence[str],
    result: PassResult,
    rows: Callable[[], Iterator[Row]],
    missing: Sequence[str],
    out: Path,
    request: ExplainRequest,
) -> None:
    """Print the summary.

    Args:
        console: Where to print.
        labels: The labels of the model.
        result: The summary of the first pass.
        rows: Gives an iterator over all rows.
        missing: Patterns that match no file.
        out: The folder of results.
        request: The options.
    """
    first: list[Row] = []
    errors: list[Row] = []
    for row in rows():
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
    _print(console, _output_paths(out, request))


def _output_paths(out: Path, request: ExplainRequest) -> str:
    place = display(out)
    parts = [f"All numbers: {place}/explained.json", f"Maps{' and drawings' * request.drawings}: {place}/maps"]
    if request.html:
        parts.append(f"Page: {place}/index.html")
    return "\n".join(parts)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)


def _table(rows: Sequence[Row], labels: Sequence[str], request: ExplainRequest) -> Table:
    """Return the table; names are relative to their common folder, so that they fit a narrow terminal."""
    folder: str | None = None
    for row in rows:
        folder = common_folder(folder, row["name"])
    title = Text(f"in {display(folder)}") if folder else None
    table = Table("image", "prediction (confidence)", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    if request.classes is not None:
        table.add_column("asked")
    if request.threshold is not None:
        table.add_column("box of " + ("the first asked" if request.classes is not None else "the prediction"))
    for row in rows:
        cells = [Text(relative_to(row["name"], folder))]
        classes = [(entry["label"], entry["probability"]) for entry in row["classes"]]
        best = (labels[row["prediction"]], row["probability"])
        if request.classes is not None:
            cells += [_bold([best]), _bold(classes)]
        else:
            cells.append(_bold(classes))
        if request.threshold is not None:
            cells.append(_box(row["classes"][0]))
        table.add_row(*cells)
    return table


def _bold(classes: Sequence[tuple[str, float]]) -> Text:
    """Return labels with their probabilities, the first label in bold."""
    text = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in classes))
    text.stylize("bold", 0, len(display(classes[0][0])))
    return text


def _box(entry: Row) -> Text:
    if not entry["positive"]:
        return Text("no positive evidence", "dim")
    return Text("; ".join(f"x {b['x0']}–{b['x1']}, y {b['y0']}–{b['y1']}" for b in entry["boxes"]))
