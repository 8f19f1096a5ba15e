"""Reads boxes from a table with the columns path,x0,y0,x1,y1 and, optionally, class, width and height.

x1 and y1 are the far edges: the width of a box is x1 − x0.
"""

from pathlib import Path

from gapstone.console.formatting import display
from gapstone.data.box_rows import BoxFile, BoxRow, far_edges, pixels
from gapstone.data.read_table import below_header, read_rows
from gapstone.data.sources import DataError
from gapstone.storage.csv_file import cell

_NEEDED = ("path", "x0", "y0", "x1", "y1")
_KNOWN = (*_NEEDED, "class", "width", "height")


def read_csv_boxes(what: str, path: Path) -> BoxFile:
    """The rows of the table. Raises DataError, which names the line: missing columns, no number, an empty box."""
    rows = read_rows(what, path)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    if missing := [name for name in _NEEDED if name not in columns]:
        raise DataError(
            f"{what}: its first line must name the columns path,x0,y0,x1,y1 (and, if you like, class, width, height); "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from "
            f"{display(','.join(columns)[:80]) or 'an empty line'!r}."
        )
    column_of = {name: columns.index(name) for name in _KNOWN if name in columns}
    found = []
    for line, cells in below_header(what, rows):
        where = f"{what}, line {line}"
        values = {name: cells[i].strip() for name, i in column_of.items()}
        x0, y0, x1, y1 = (pixels(where, name, values[name]) for name in ("x0", "y0", "x1", "y1"))
        width, height = (
            int(pixels(where, name, values[name])) if values.get(name) else None for name in ("width", "height")
        )
        # the path itself, then the path before write_csv guarded it in predictions.csv or scan.csv
        paths = tuple(dict.fromkeys((values["path"], cell(values["path"]))))
        box = far_edges(where, (x0, y0, x1, y1))
        found.append(BoxRow(where, paths, values.get("class", ""), box, (width, height)))
    return BoxFile(found)
