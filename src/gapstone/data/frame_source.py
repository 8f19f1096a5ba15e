"""Opens sources that are a DataFrame of paths and labels, as the table in a CSV file; pandas itself is not imported."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display
from gapstone.data.groups import NOTHING_ASKED, AskedColumns
from gapstone.data.label_forms import SEPARATOR
from gapstone.data.sources import DataError, Source
from gapstone.data.table_sources import Table, open_table


def open_frame(given: str, frame: Any, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open a DataFrame with the columns `path,label[,split]`; `open_table` says what they may be called.

    Paths are relative to the working folder. A label may be a list of labels.
    """
    what = f"DATA {display(given)!r}"
    if not len(frame):
        raise DataError(f"{what} has no rows.")
    header = [str(name).strip() for name in frame.columns]
    columns = [list(frame.iloc[:, k]) for k in range(len(header))]
    body = [
        (row, [_cell(what, row, name, value) for name, value in zip(header, values, strict=True)])
        for row, values in enumerate(zip(*columns, strict=True))
    ]
    return open_table(
        Table(given, "frame", header, body, Path.cwd(), "the working folder", "row {}"), asked, multi_label
    )


def _cell(what: str, row: int, column: str, value: object) -> str:
    """A value as the cell of a CSV file; what is missing (None, NaN, NA) is empty."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)  # whole numbers beside a missing one are floats
    if isinstance(value, Iterable) and not isinstance(value, str | bytes) and not hasattr(value, "__fspath__"):
        parts = list(map(str, value))
        if wrong := next((part for part in parts if SEPARATOR in part), None):
            raise DataError(
                f"{what}, row {row}: {display(column)} holds {display(wrong)!r}: no {SEPARATOR} in a label."
            )
        return SEPARATOR.join(parts)
    return str(value)
