"""Reads boxes from COCO's JSON: `images`, `annotations` with a bbox [x, y, width, height] each, `categories`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapstone.console.formatting import count_noun, display
from gapstone.data.box_rows import Box, BoxFile, BoxRow, pixels
from gapstone.data.memory_limits import check_table
from gapstone.data.sources import DataError
from gapstone.storage.paths import open_input

_LISTS = {"images": "file_name", "annotations": "bbox", "categories": "name"}
"""The lists of such a file, and what each of their entries needs beside its id."""


def read_coco(what: str, path: Path) -> BoxFile:
    """The annotations of the file, without those of crowds (`iscrowd`) and of empty boxes, which are counted.

    Raises:
        DataError: it is none of COCO's files of instances; the message names the entry: `annotations[7]`.
    """
    with open_input(what, path) as file:
        check_table(what, os.fstat(file.fileno()).st_size)
        try:
            document = json.load(file)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise DataError(f"{what} is no JSON: {display(str(error), 120)}.") from error
    has = sorted(document) if isinstance(document, dict) else []
    if not all(isinstance(document.get(name), list) for name in _LISTS if has) or not has:
        shown = f"an object with {display(', '.join(has[:8]))}" if has else f"a {type(document).__name__}"
        raise DataError(
            f"{what} is none of COCO's files of instances: expected an object with the lists images, annotations and "
            f"categories, not {shown}."
        )
    images, names = (_by_id(what, name, document[name]) for name in ("images", "categories"))
    rows: list[BoxRow] = []
    crowds = empty = 0
    for k, annotation in enumerate(document["annotations"]):
        where = f"{what}, annotations[{k}]"
        entry = _entry(where, "bbox", annotation)
        image, name = (_named(where, key, entry, of) for key, of in (("image_id", images), ("category_id", names)))
        box = _box(where, entry["bbox"])
        if entry.get("iscrowd"):
            crowds += 1
        elif box[2] == box[0] or box[3] == box[1]:
            empty += 1
        else:
            size = _size(where, "width", image), _size(where, "height", image)
            rows.append(BoxRow(where, (str(image["file_name"]),), str(name["name"]).strip(), box, size))
    if not rows:
        raise DataError(f"{what} holds no box of a single object.")
    left_aside = [f"{count_noun(crowds, 'crowd')} (iscrowd)"] if crowds else []
    left_aside += [f"{count_noun(empty, 'box', 'boxes')} without width or height"] if empty else []
    return BoxFile(rows, True, tuple(left_aside))


def _by_id(what: str, name: str, entries: list[Any]) -> dict[int | str, Mapping[str, Any]]:
    found: dict[int | str, Mapping[str, Any]] = {}
    for k, value in enumerate(entries):
        where = f"{what}, {name}[{k}]"
        entry = _entry(where, _LISTS[name], value)
        key = entry.get("id")
        if not isinstance(key, int | str):
            raise DataError(f"{where} has no id.")
        if key in found:
            raise DataError(f"{where} has the id {display(str(key), 40)}, as another of the {name} has.")
        found[key] = entry
    return found


def _entry(where: str, needed: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.get(needed) in (None, "", []):
        has = f"it has {display(', '.join(map(str, value)), 80)}" if isinstance(value, dict) else "it is no object"
        raise DataError(f"{where} has no {needed}; {has}.")
    return value


def _named(
    where: str, key: str, entry: Mapping[str, Any], of: Mapping[int | str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    number = entry.get(key)
    if not isinstance(number, int | str) or number not in of:
        among = "images" if key == "image_id" else "categories"
        raise DataError(f"{where}: its {key} is {display(str(number), 40)}, which none of the {among} has.")
    return of[number]


def _box(where: str, values: Any) -> Box:
    """(x0, y0, x1, y1). Raises DataError for a negative width or height: those would be corners."""
    if not isinstance(values, list) or len(values) != 4:
        raise DataError(f"{where}: its bbox is {display(str(values), 80)}; expected [x, y, width, height].")
    x, y, width, height = (
        pixels(where, name, v) for name, v in zip(("x", "y", "width", "height"), values, strict=True)
    )
    if width < 0 or height < 0:
        raise DataError(f"{where}: its bbox is {values}, of negative size; expected [x, y, width, height].")
    return x, y, x + width, y + height


def _size(where: str, name: str, image: Mapping[str, Any]) -> int | None:
    return int(pixels(where, f"the {name} of its image", image[name])) if image.get(name) else None
