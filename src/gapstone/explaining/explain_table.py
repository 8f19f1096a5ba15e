"""What a person sees in the terminal: the first pictures, what could not be read, where everything is."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.explaining.common_folder import shared, within
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.explaining.map_pass import PassResult

MOST = 40  # rows: more scroll past unread
MOST_WRONG = 20

Row = dict[str, Any]


def show(
    console: Console,
    labels: Sequence[str],
    looked: PassResult,
    rows: Callable[[], Iterator[Row]],
    missing: Sequence[str],
    out: Path,
    request: ExplainRequest,
) -> None:
    """Print it."""
    first: list[Row] = []
    wrong: list[Row] = []
    for row in rows():
        if "error" in row and len(wrong) < MOST_WRONG:
            wrong.append(row)
        elif "error" not in row and len(first) < MOST:
            first.append(row)
        elif len(first) == MOST and len(wrong) == min(MOST_WRONG, looked.errors):
            break
    if first:
        console.print(_table(first, labels, request))
    if looked.pictures > len(first):
        _say(console, f"… and {looked.pictures - len(first):,} more pictures.")
    if wrong:
        _say(console, f"{looked.errors:,} could not be explained:", "red")
        for row in wrong:
            _say(console, f"  {row['name']}: {row['error']}")
        if looked.errors > len(wrong):
            _say(console, f"  … and {looked.errors - len(wrong):,} more.")
    for pattern in missing:
        _say(console, f"{display(pattern)}: no file matches this pattern.", "red")
    _say(console, _where(out, request))


def _where(out: Path, request: ExplainRequest) -> str:
    place = display(out)
    parts = [f"All numbers: {place}/explained.json", f"Maps{' and drawings' * request.drawings}: {place}/maps"]
    if request.html:
        parts.append(f"Page: {place}/index.html")
    return "\n".join(parts)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)


def _table(rows: Sequence[Row], labels: Sequence[str], request: ExplainRequest) -> Table:
    """Names without the folder they share, so that they can be told apart on a narrow terminal."""
    folder: str | None = None
    for row in rows:
        folder = shared(folder, row["name"])
    title = Text(f"in {display(folder)}") if folder else None
    table = Table("image", "prediction (confidence)", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    if request.classes is not None:
        table.add_column("asked")
    if request.threshold is not None:
        table.add_column("box of " + ("the first asked" if request.classes is not None else "the prediction"))
    for row in rows:
        cells = [Text(within(row["name"], folder))]
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
    """Labels with their probabilities, the first in bold."""
    text = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in classes))
    text.stylize("bold", 0, len(display(classes[0][0])))
    return text


def _box(entry: Row) -> Text:
    if not entry["positive"]:
        return Text("no positive evidence", "dim")
    return Text("; ".join(f"x {b['x0']}–{b['x1']}, y {b['y0']}–{b['y1']}" for b in entry["boxes"]))
