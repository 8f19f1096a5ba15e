"""`read_objects` reads where the objects of the images are: boxes in pixels of the upright original images."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.box_rows import Box, BoxFile, BoxRow
from gapstone.data.boxes_coco import read_coco
from gapstone.data.boxes_csv import read_csv_boxes
from gapstone.data.boxes_voc import read_voc
from gapstone.data.file_names import composed, similar_names
from gapstone.data.item_finder import ItemFinder
from gapstone.data.sources import DataError, Source, few
from gapstone.storage.csv_file import cell


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
    left_aside: tuple[str, ...] = ()
    """What was left out, each in words: '49 rows of images that are not in DATA'."""
    notes: tuple[str, ...] = ()
    """Sentences on how the others were read."""

    def described(self) -> str:
        """What was left out, as half a sentence; empty if nothing was.

        >>> objects.described()
        '49 rows of images that are not in DATA and 1 box of another class than the image's'
        """
        *others, last = self.left_aside or ("",)
        return f"{', '.join(others)}{' and ' if others else ''}{last}"


def read_objects(path: Path, source: Source, sizes: Sequence[tuple[int, int]]) -> ObjectBoxes:
    """Read a table of boxes (.csv), a COCO file (.json), or Pascal VOC's folder of .xml files.

    A path is looked up in the file's folder, then in DATA, then among the images' names; in COCO and VOC, also by the
    name of the file alone, if only one image has it. A box without a class is of its image's only class. A box that
    reaches beyond its image is clipped. `sizes` are the (width, height) of every item, as in `Scan.facts`; (0, 0) if it
    is unreadable.

    Raises:
        DataError: the message names the place, such as the line: what cannot be read, an empty box, a box outside its
            image, an image of another size than the file says, an unknown class, no class where the image has several,
            or no path at all that is in DATA. A COCO or VOC file may have classes that DATA has not, but not only such.
    """
    what = f"--boxes {display(path)!r}"
    file = _read(what, path)
    finder = ItemFinder(path, source)
    items = finder.find(row.paths for row in file.rows)
    if file.standard:
        items = finder.by_file_name(items, what)
    if all(item is None for item in items.values()):
        raise DataError(
            f"{what}: none of its {file.counted(len(file.rows))} is of an image in DATA "
            f"{display(source.given)!r}. The first is {display(file.rows[0].paths[0])!r}; a path is relative to "
            f"the folder of the boxes or to DATA, whose first image is {source.items[0].name!r}."
        )
    standard, notes = _standard_classes(what, file, source) if file.standard else ({}, [])
    boxes: dict[tuple[int, int], list[Box]] = {}
    strangers = others = unknown = difficult = 0
    for row in file.rows:
        if (item := items[row.paths]) is None:
            strangers += 1
            continue
        label = standard[row.class_name] if file.standard else _label(row, item, source)
        if label is None:
            unknown += 1
            continue
        box = _clip(row, sizes[item])
        if label not in source.items[item].labels:
            others += 1
        else:
            boxes.setdefault((item, label), []).append(box)
            difficult += row.difficult
    if difficult:
        notes.append(f"{count_noun(difficult, 'object')} marked as difficult: they count as the others do.")
    left_aside = [*file.left_aside]
    for count, words in ((strangers, "of images that are not in DATA"), (unknown, "of classes that DATA has not")):
        left_aside += [f"{file.counted(count)} {words}"] if count else []
    left_aside += [f"{count_noun(others, 'box', 'boxes')} of another class than the image's"] if others else []
    return ObjectBoxes({key: tuple(boxes[key]) for key in sorted(boxes)}, tuple(left_aside), tuple(notes))


def _read(what: str, path: Path) -> BoxFile:
    if path.is_dir() or path.suffix.lower() == ".xml":
        return read_voc(what, path)
    return read_coco(what, path) if path.suffix.lower() == ".json" else read_csv_boxes(what, path)


def _clip(row: BoxRow, size: tuple[int, int]) -> Box:
    """The box, clipped to its image."""
    box, where = row.box, row.where
    if size == (0, 0):  # unreadable: the comparison leaves the image out and reports it
        return box
    width, height = size
    stated = tuple(side if said is None else said for said, side in zip(row.size, size, strict=True))
    if stated != size:
        turned = stated == size[::-1]
        hint = " The picture is shown upright (EXIF); the boxes must be of it as shown." if turned else ""
        raise DataError(
            f"{where}: width and height say {stated[0]}×{stated[1]}, but the picture {display(row.paths[0])!r} is "
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


def _standard_classes(what: str, file: BoxFile, source: Source) -> tuple[dict[str, int | None], list[str]]:
    """(the number of each class of a COCO or VOC file, None where DATA has not got it; sentences).

    A class that differs from one of DATA only in case, blanks or separators is that one.
    """
    numbers = {name: k for k, name in enumerate(source.classes)}
    shown = {name: display(composed(name)) for name in dict.fromkeys(row.class_name for row in file.rows)}
    found = {name: numbers.get(written) for name, written in shown.items()}
    unknown = [written for name, written in shown.items() if found[name] is None]
    alike: dict[str, str] = {}
    for group in similar_names([*source.classes, *unknown]):
        of_data = [name for name in group if name in numbers]
        if len(of_data) == 1:
            alike |= {name: of_data[0] for name in group if name not in numbers}
    found = {name: numbers[alike[shown[name]]] if shown[name] in alike else found[name] for name in shown}
    if all(number is None for number in found.values()):
        raise DataError(
            f"{what}: none of its {count_noun(len(shown), 'class', 'classes')} is one of DATA: it has "
            f"{few(list(shown.values()))}; DATA has {few(source.classes)}. Name them alike. (Where a box is of its "
            "image's class, whatever it is called, give a table path,x0,y0,x1,y1 without the column class.)"
        )
    pairs = [f"{name} as {of_data}" for name, of_data in alike.items()]
    return found, [f"Classes of the boxes read as those of DATA: {few(pairs, quote=False)}."] if pairs else []


def _label(row: BoxRow, item: int, source: Source) -> int:
    """The number of the class of that name, or where there is none of the item's only class; −1 if it has no class."""
    name = row.class_name
    if not name:
        labels = source.items[item].labels
        if len(labels) > 1:
            own = ", ".join(source.classes[k] for k in labels)
            raise DataError(
                f"{row.where}: the picture has several classes ({own}), and nothing says whose this box is; name it in "
                "a column class."
            )
        return labels[0] if labels else -1
    for written in (name, cell(name)):
        if (shown := display(composed(written))) in source.classes:
            return source.classes.index(shown)
    close = difflib.get_close_matches(shown, source.classes, 3)
    first = ", ".join(source.classes[:8]) + "…" * (len(source.classes) > 8)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"DATA has {first}."
    raise DataError(f"{row.where}: DATA has no class {shown!r}; {hint}")
