"""OUT/explained.json: one document with one line per picture, written without holding all pictures in memory.

Each picture has the fields of `gapstone.maps.map_files`, schema 1, with its maps in an .npz file, and more:

    {"schema": 3, "model", "gapstone", "labels": […],
     "largest": 0.83,                       the scale of all drawings: contribution of a cell, in logit units
     "options": {"classes", "top", "all", "box", "how", "alpha", "native", "plain"},
     "missing": ["*.gif"],                  patterns that match nothing
     "pictures": [
       {"name": "photos/cat.jpg", "sha256": "…", "notes": ["the first of 41 frames is used"],
        "prediction": 3, "label": "cat", "probability": 0.93,  of all classes, not only of --classes
        "size", "placement", "reference": "the mean of all classes",   null: nothing was subtracted
        "npz": "maps/cat-5c1f0b7a9e21.npz",
        "small": "maps/cat-5c1f0b7a9e21-small.png",            only of a picture that was streamed: it, small
        "drawing": "maps/cat-5c1f0b7a9e21.png",                null with --no-drawings, or if "undrawn" is there
        "classes": [{"index", "label", …, "boxes": [{"x0", "y0", "x1", "y1"}]}]},
       {"name": "photos/bad.jpg", "error": "the file is empty (0 bytes)"}]}

Of a multi-label model there is "multi_label": true after "labels", and a picture has "predictions": [3, 7] and
"labels": ["cat", "dog"] instead of prediction, label and probability: all that are predicted, most probable first, []
where none is.

Paths are relative to OUT, so that the folder can be moved. `classes` are those shown, most probable first or in the
order of `--classes`; with `--all` the .npz holds the others too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapstone.explaining.explain_folder import unique_name
from gapstone.storage.atomic import atomic_file

Row = dict[str, Any]


def write(path: Path, head: dict[str, Any], rows: Iterable[Row]) -> None:
    """Write the document atomically: its fields (`head`), then one picture per row."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps(head, allow_nan=False)[:-1] + ', "pictures": [')
        separator = "\n"
        for row in rows:
            file.write(separator + json.dumps(row, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def public_row(row: Row, labels: Sequence[str], drawings: bool, undrawn: Mapping[str, str]) -> Row:
    """Return a row of the first pass as the document has it. `undrawn`: why pictures could not be drawn, by path."""
    if "error" in row:
        return {"name": row["name"], "error": row["error"]}
    facts = {name: value for name, value in row.items() if name not in ("path", "classes")}
    reason = undrawn.get(row["path"]) if drawings else None
    drawing = f"maps/{unique_name(Path(row['path']))}.png" if drawings and not reason else None
    if reason:
        facts["undrawn"] = reason
    if "predictions" in row:
        del facts["prediction"], facts["probability"]
        facts["labels"] = [labels[k] for k in row["predictions"]]
    else:
        facts["label"] = labels[row["prediction"]]
    return facts | {"drawing": drawing, "classes": row["classes"]}
