"""read_objects(boxes.csv, source) = where each image's own object is: boxes in pixels of the upright original picture.

A table with the columns path,x0,y0,x1,y1 and, if you like, class, width and height. x1 and y1 are the far edges: a box
is as wide as x1 − x0.
"""

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed, spellings
from gapstone.data.sources import DataError, Source
from gapstone.data.table_sources import read_rows
from gapstone.storage.csv_file import cell

Box = tuple[float, float, float, float]
NEEDED = ("path", "x0", "y0", "x1", "y1")
KNOWN = (*NEEDED, "class", "width", "height")


@dataclass(frozen=True)
class ObjectBoxes:
    """The boxes of a source's images.

    ```python
    found = read_objects(Path("boxes.csv"), source, [facts.size for facts in scan(source).facts])
    found.boxes[7]                      # ((317.0, 265.0, 556.0, 342.0),): of source.items[7], of its own class
    ```
    """

    boxes: dict[int, tuple[Box, ...]]
    """By item number. Only boxes of the class the image stands under: another class's object is not what is looked for.
    """
    others: int
    """Rows of another class than their image's."""
    strangers: int
    """Rows of images that are not in the source."""

    def described(self) -> str:
        """What was left aside, as a half sentence; empty where nothing was.

        >>> found.described()
        '49 rows name images that are not in DATA'
        """
        texts = []
        if self.strangers:
            texts.append(f"{count_noun(self.strangers, 'row')} of images that are not in DATA")
        if self.others:
            texts.append(f"{count_noun(self.others, 'box', 'boxes')} of another class than the image's")
        return " and ".join(texts)


def read_objects(path: Path, source: Source, sizes: Sequence[tuple[int, int]]) -> ObjectBoxes:
    """Read the table. A path is looked up from the table's own folder, then from DATA, then among the images' names.

    sizes: (width, height) of every item as `Scan.facts` has them; (0, 0) for what cannot be read. Without a class, a
    box is of its image's class. What reaches beyond its picture is cut off there.

    Raises DataError, with the line: no such columns, no number, a box without width or height or beside its picture, a
    picture of another size than width and height say, a class that DATA has not, or not one path that is in DATA.
    """
    what = f"--boxes {display(path)!r}"
    rows = read_rows(what, path)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    if missing := [name for name in NEEDED if name not in columns]:
        raise DataError(
            f"{what}: its first line must name the columns path,x0,y0,x1,y1 (and, if you like, class, width, height); "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from "
            f"{display(','.join(columns)[:80]) or 'an empty line'!r}."
        )
    at = {name: columns.index(name) for name in KNOWN if name in columns}
    find = _Finder(path, source)
    boxes: dict[int, list[Box]] = {}
    others, given = 0, [(line, cells) for line, cells in rows[1:] if any(cell.strip() for cell in cells)]
    strangers: list[str] = []
    for line, cells in given:
        where = f"{what}, line {line}"
        if len(cells) != len(columns):
            raise DataError(f"{where}: {len(cells)} cells, but {len(columns)} columns.")
        values = {name: cells[i].strip() for name, i in at.items()}
        box = _box(where, values)
        item = find(values["path"])
        if item is None:
            strangers.append(values["path"])
            continue
        label = _label(where, values.get("class", ""), source)
        box = _within(where, box, values, sizes[item])
        if label is not None and label != source.items[item].label:
            others += 1
        else:
            boxes.setdefault(item, []).append(box)
    if not given:
        raise DataError(f"{what} has a header but no rows.")
    if len(strangers) == len(given):
        raise DataError(
            f"{what}: none of its {len(given):,} rows is of an image in DATA {display(source.given)!r}. The first is "
            f"{display(strangers[0])!r}; a path is relative to the table's folder or to DATA, whose first image is "
            f"{source.items[0].name!r}."
        )
    return ObjectBoxes({item: tuple(boxes[item]) for item in sorted(boxes)}, others, len(strangers))


class _Finder:
    """The number of the item that a path means, or None."""

    def __init__(self, table: Path, source: Source) -> None:
        data = Path(source.given).expanduser()
        self.folders = (table.absolute().parent, data.absolute() if data.is_dir() else data.absolute().parent)
        self.names = {item.name: i for i, item in enumerate(source.items)}
        self.paths = {os.path.realpath(item.path): i for i, item in enumerate(source.items) if item.path is not None}

    def __call__(self, path: str) -> int | None:
        if not path or "\x00" in path:
            return None
        # as it is written, then as it was before write_csv guarded it in predictions.csv or scan.csv
        for name in dict.fromkeys((*spellings(path), *spellings(cell(path)))):
            for folder in self.folders:
                if (found := self.paths.get(os.path.realpath(folder / name))) is not None:
                    return found
            if (found := self.names.get(display(name))) is not None:
                return found
        return None


def _box(where: str, values: dict[str, str]) -> Box:
    x0, y0, x1, y1 = (_number(where, name, values[name]) for name in ("x0", "y0", "x1", "y1"))
    for low, high, names in ((x0, x1, "x"), (y0, y1, "y")):
        if high <= low:
            raise DataError(
                f"{where}: {names}0 = {low:g} and {names}1 = {high:g}: {names}1 is the far edge, more than {names}0. "
                f"(A width or height in its place? Then {names}1 = {low + high:g}.)"
            )
    return x0, y0, x1, y1


def _number(where: str, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is {display(text)!r}; expected a number of pixels.")
    return number


def _within(where: str, box: Box, values: dict[str, str], size: tuple[int, int]) -> Box:
    """The box, cut off at its picture's edges."""
    if size == (0, 0):  # unreadable: the comparison leaves the image out, and says so
        return box
    width, height = size
    told = tuple(
        int(_number(where, name, values[name])) if values.get(name) else side
        for name, side in (("width", width), ("height", height))
    )
    if told != size:
        turned = " The picture is shown upright (EXIF); the boxes must be of it as shown." if told == size[::-1] else ""
        raise DataError(
            f"{where}: width and height say {told[0]}×{told[1]}, but the picture {display(values['path'])!r} is "
            f"{width}×{height}.{turned}"
        )
    x0, y0, x1, y1 = box
    cut = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise DataError(
            f"{where}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies wholly outside its picture of {width}×{height} "
            "pixels. Boxes are in pixels of the original picture, upright, not fractions and not of a resized copy."
        )
    return cut


def _label(where: str, name: str, source: Source) -> int | None:
    if not name:
        return None
    for written in (name, cell(name)):
        if (shown := display(composed(written))) in source.classes:
            return source.classes.index(shown)
    close = difflib.get_close_matches(shown, source.classes, 3)
    few = ", ".join(source.classes[:8]) + "…" * (len(source.classes) > 8)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"DATA has {few}."
    raise DataError(f"{where}: DATA has no class {shown!r}; {hint}")
