"""Reads boxes from a folder of Pascal VOC's XML files, one for each image.

A corner there is the number of a pixel, counted from 1: a box from 1 to 10 is ten pixels wide, and here from 0 to 10.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from gapstone.console.formatting import count_noun, display
from gapstone.data.box_rows import BoxFile, BoxRow, pixels
from gapstone.data.file_names import bytes_of, is_system
from gapstone.data.sources import DataError
from gapstone.storage.paths import open_input

_LARGEST = 16 << 20
"""Bytes of an XML file: one of a picture with 10,000 objects has 3 MB."""


def read_voc(what: str, path: Path) -> BoxFile:
    """The objects of all .xml files in a folder and its sub-folders, or of one file.

    An image is looked for by `filename`, beside the XML file first, then by the name of the XML file.

    Raises:
        DataError: there is no such file, or one is broken; the message names it, and the object by its number.
    """
    files = [path] if path.is_file() else list(_xml_files(path))
    if not files:
        raise DataError(_none(what))
    rows = [row for file in files for row in _objects(what, path, file)]
    if not rows:
        raise DataError(f"{what}: no object in {count_noun(len(files), '.xml file')}.")
    return BoxFile(rows, True)


def check_voc_folder(what: str, folder: Path) -> None:
    """Raises DataError if the folder has no .xml file; before the images are looked at, which takes minutes."""
    if next(_xml_files(folder), None) is None:
        raise DataError(_none(what))


def _none(what: str) -> str:
    return (
        f"{what} is a folder without .xml files; expected a folder of Pascal VOC's (Annotations/1.xml), a .json "
        "file of COCO's, or a .csv file."
    )


def _xml_files(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not is_system(name)), key=bytes_of)
        yield from (
            Path(base, name)
            for name in sorted(names, key=bytes_of)
            if name.lower().endswith(".xml") and not is_system(name)
        )


def _objects(what: str, folder: Path, file: Path) -> Iterator[BoxRow]:
    where = what if file == folder else f"{what}, {display(file.relative_to(folder).as_posix())}"
    root = _parsed(where, file)
    if root.tag != "annotation":
        raise DataError(f"{where} begins with <{display(root.tag, 40)}>; expected Pascal VOC's <annotation>.")
    name = _text(root, "filename")
    relative = file.parent if file == folder else file.parent.relative_to(folder)
    base = PureWindowsPath(name).name
    beside = (str(relative / base), name) if base == name else (name, str(relative / base))
    paths = (*(beside if name else ()), str(relative / file.stem))
    width, height = (_size(where, root, side) for side in ("width", "height"))
    for number, thing in enumerate(root.findall("object"), 1):
        here = f"{where}, object {number}"
        class_name, box = _text(thing, "name"), thing.find("bndbox")
        if not class_name or box is None:
            raise DataError(f"{here} has no {'bndbox' if class_name else 'name'}; expected a name and a bndbox.")
        x0, y0, x1, y1 = (pixels(here, corner, _text(box, corner)) for corner in ("xmin", "ymin", "xmax", "ymax"))
        if x1 < x0 or y1 < y0:
            raise DataError(f"{here}: its bndbox is from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}): of negative size.")
        difficult = _text(thing, "difficult").lower() in ("1", "true", "yes")
        yield BoxRow(here, paths, class_name, (x0 - 1, y0 - 1, x1, y1), (width, height), difficult)


def _parsed(where: str, file: Path) -> Element:
    """The root of an XML file. One that declares a document type is refused: only such can have entities."""

    def refuse(*_: object) -> None:
        raise DataError(f"{where} declares a document type (<!DOCTYPE), which Pascal VOC's have not; take it out.")

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    with open_input(where, file) as opened:
        data = opened.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise DataError(f"{where} has more than {_LARGEST >> 20} MiB; expected the objects of one picture.")
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"{where} is no XML: {display(str(error))}.") from error
    except DataError:
        raise
    except (LookupError, ValueError) as error:  # of its encoding
        raise DataError(f"{where} is no XML that can be read: {display(str(error))}.") from error
    return builder.close()


def _text(parent: Element, name: str) -> str:
    return (parent.findtext(name) or "").strip()


def _size(where: str, root: Element, side: str) -> int | None:
    """A side of the picture; None where it is not said, or 0, as some programs write."""
    text = _text(root, f"size/{side}")
    return (int(pixels(where, side, text)) or None) if text else None
