"""OUT/explained.json: one document, each picture on a line of its own, written and read without holding all of them.

The pictures are those of `gapstone.maps.map_files`, schema 1, with their maps in .npz files, and more:

    {"schema": 2, "model", "gapstone", "labels": […],
     "largest": 0.83,                       the scale of all drawings: contribution of a cell, in logit units
     "options": {"classes", "top", "all", "box", "how", "alpha"},
     "missing": ["*.gif"],                  patterns that match nothing
     "pictures": [
       {"name": "photos/cat.jpg", "sha256": "…", "notes": ["the first of 41 frames is used"],
        "prediction": 3, "label": "cat", "probability": 0.93,  the most probable of all classes, whatever was asked for
        "size", "placement", "npz": "maps/cat-5c1f0b7a9e21.npz",
        "drawing": "maps/cat-5c1f0b7a9e21.png",                null with --no-drawings, and where "undrawn" says why
        "classes": [{"index", "label", …, "boxes": [{"x0", "y0", "x1", "y1"}]}]},
       {"name": "photos/bad.jpg", "error": "the file is empty (0 bytes)"}]}

Paths in it are relative to OUT, so that the folder can be moved. `classes` are those shown, most probable first or as
`--classes` says; with `--all` the .npz holds the others too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from gapstone.explaining.explain_folder import name_of
from gapstone.storage.atomic import atomic_file

Row = dict[str, Any]


def write(path: Path, head: dict[str, Any], rows: Iterable[Row]) -> None:
    """The document, whole or not at all."""
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="ascii", newline="\n") as file:
        _write(file, head, rows)


def _write(file: TextIO, head: dict[str, Any], rows: Iterable[Row]) -> None:
    start = json.dumps(head, allow_nan=False)
    file.write(start[:-1] + ', "pictures": [')
    between = "\n"
    for row in rows:
        file.write(between + json.dumps(row, allow_nan=False))
        between = ",\n"
    file.write("\n]}\n")


def public(row: Row, labels: Sequence[str], drawings: bool, failed: Mapping[str, str]) -> Row:
    """A row as the document has it; failed: by path, why a picture could not be drawn."""
    if "error" in row:
        return {"name": row["name"], "error": row["error"]}
    facts = {name: value for name, value in row.items() if name not in ("path", "classes")}
    why = failed.get(row["path"]) if drawings else None
    drawing = f"maps/{name_of(Path(row['path']))}.png" if drawings and not why else None
    if why:
        facts["undrawn"] = why
    return facts | {"label": labels[row["prediction"]], "drawing": drawing, "classes": row["classes"]}
