"""`read_objects` reads a table of the boxes of the images' objects, in pixels of the upright original images.

The table has the columns path,x0,y0,x1,y1 and, optionally, class, width and height. x1 and y1 are the far edges: the
width of a box is x1 − x0.
"""

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed, spellings
from gapstone.data.read_table import below_header, read_rows
from gapstone.data.sources import DataError, Source
from gapstone.storage.csv_file import cell

Box = tuple[float, float, float, float]
NEEDED = ("path", "x0", "y0", "x1", "y1")
KNOWN = (*NEEDED, "class", "width", "height")


@dataclass(frozen=True)
class ObjectBoxes:
    """The boxes of a source's images.

    ```python
    objects = read_objects(Path("boxes.csv"), source, [info.size for info in scan(source).facts])
    objects.boxes[7, 2]            # ((317.0, 265.0, 556.0, 342.0),): of source.items[7] and source.classes[2]
    ```
    """

    boxes: dict[tuple[int, int], tuple[Box, ...]]
    """By number of the item and of the class; only boxes of classes that the image has."""
    others: int
    """Number of rows of another class than their image's."""
    strangers: int
    """Number of rows of images that are not in the source."""

    def described(self) -> str:
        """The rows that were left out, as half a sentence; empty if there are none.

        >>> objects.described()
        '49 rows name images that are not in DATA'
        """
        texts = []
        if self.strangers:
            texts.append(f"{count_noun(self.strangers, 'row')} of images that are not in DATA")
        if self.others:
            texts.append(f"{count_noun(self.others, 'box', 'boxes')} of another class than the image's")
        return " and ".join(texts)


def read_objects(path: Path, source: Source, sizes: Sequence[tuple[int, int]]) -> ObjectBoxes:
    """Read the table of boxes.

    A path is looked up in the table's folder, then in DATA, then among the images' names. A box without a class is of
    its image's only class. A box that reaches beyond its image is clipped. `sizes` are the (width, height) of every
    item, as in `Scan.facts`; (0, 0) if it is unreadable.

    Raises:
        DataError: the message names the line: missing columns, no number, an empty box, a box outside its image, an
            image of another size than width and height say, an unknown class, no class where the image has several,
            or no path at all that is in DATA.
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
    column_of = {name: columns.index(name) for name in KNOWN if name in columns}
    find = _Finder(path, source)
    boxes: dict[tuple[int, int], list[Box]] = {}
    others = count = 0
    strangers: list[str] = []
    for line, cells in below_header(what, rows):
        count += 1
        where = f"{what}, line {line}"
        values = {name: cells[i].strip() for name, i in column_of.items()}
        box = _box(where, values)
        item = find(values["path"])
        if item is None:
            strangers.append(values["path"])
            continue
        label = _label(where, values.get("class", ""), item, source)
        box = _clip(where, box, values, sizes[item])
        if label not in source.items[item].labels:
            others += 1
        else:
            boxes.setdefault((item, label), []).append(box)
    if len(strangers) == count:
        raise DataError(
            f"{what}: none of its {count:,} rows is of an image in DATA {display(source.given)!r}. The first is "
            f"{display(strangers[0])!r}; a path is relative to the table's folder or to DATA, whose first image is "
            f"{source.items[0].name!r}."
        )
    return ObjectBoxes({key: tuple(boxes[key]) for key in sorted(boxes)}, others, len(strangers))


class _Finder:
    """Finds the number of the item that a path of the table means; None if there is none."""

    def __init__(self, table: Path, source: Source) -> None:
        data = Path(source.given).expanduser()
        self.folders = (table.absolute().parent, data.absolute() if data.is_dir() else data.absolute().parent)
        self.names = {item.name: i for i, item in enumerate(source.items)}
        self.paths = {os.path.realpath(item.path): i for i, item in enumerate(source.items) if item.path is not None}

    def __call__(self, path: str) -> int | None:
        if not path or "\x00" in path:
            return None
        # the path itself, then the path before write_csv guarded it in predictions.csv or scan.csv
        for name in dict.fromkeys((*spellings(path), *spellings(cell(path)))):
            for folder in self.folders:
                if (item := self.paths.get(os.path.realpath(folder / name))) is not None:
                    return item
            if (item := self.names.get(display(name))) is not None:
                return item
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


def _clip(where: str, box: Box, values: dict[str, str], size: tuple[int, int]) -> Box:
    """The box, clipped to its image."""
    if size == (0, 0):  # unreadable: the comparison leaves the image out and reports it
        return box
    width, height = size
    stated = tuple(
        int(_number(where, name, values[name])) if values.get(name) else side
        for name, side in (("width", width), ("height", height))
    )
    if stated != size:
        turned = stated == size[::-1]
        hint = " The picture is shown upright (EXIF); the boxes must be of it as shown." if turned else ""
        raise DataError(
            f"{where}: width and height say {stated[0]}×{stated[1]}, but the picture {display(values['path'])!r} is "
            f"{width}×{height}.{hint}"
        )
    x0, y0, x1, y1 = box
    clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise DataError(
            f"{where}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies wholly outside its picture of {width}×{height} "
            "pixels. Boxes are in pixels of the original picture, upright, not fractions and not of a resized copy."
        )
    return clipped


def _label(where: str, name: str, item: int, source: Source) -> int:
    """The number of the class of that name, or where there is none of the item's only class; −1 if it has no class."""
    if not name:
        labels = source.items[item].labels
        if len(labels) > 1:
            own = ", ".join(source.classes[k] for k in labels)
            raise DataError(
                f"{where}: the picture has several classes ({own}), and nothing says whose this box is; name it in a "
                "column class."
            )
        return labels[0] if labels else -1
    for written in (name, cell(name)):
        if (shown := display(composed(written))) in source.classes:
            return source.classes.index(shown)
    close = difflib.get_close_matches(shown, source.classes, 3)
    few = ", ".join(source.classes[:8]) + "…" * (len(source.classes) > 8)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"DATA has {few}."
    raise DataError(f"{where}: DATA has no class {shown!r}; {hint}")
