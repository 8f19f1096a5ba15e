"""Boxes of COCO and of Pascal VOC: to the pixel, whose they are, and what is wrong, by its place."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from gapstone.data.object_boxes import ObjectBoxes, read_objects
from gapstone.data.open_source import open_source
from gapstone.data.sources import DataError, Source

SIZE = (40, 30)
Object = tuple[str, str, tuple[float, float, float, float]]
"""(the picture's path, the class, x0, y0, x1, y1 as gapstone has them)."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """cat/0.png, cat/1.png, dog/0.png, dog/2.png of 40×30 pixels."""
    for name in ("cat/0", "cat/1", "dog/0", "dog/2"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(path)
    return open_source(tmp_path / "photos")


def coco(path: Path, objects: Sequence[Object], size: tuple[int, int] = SIZE, **changes: Any) -> Path:
    """The objects as a COCO file."""
    pictures = list(dict.fromkeys(picture for picture, _, _ in objects))
    names = list(dict.fromkeys(name for _, name, _ in objects))
    document = {
        "images": [{"id": 7 + k, "file_name": p, "width": size[0], "height": size[1]} for k, p in enumerate(pictures)],
        "annotations": [
            {
                "id": k,
                "image_id": 7 + pictures.index(picture),
                "category_id": 90 - names.index(name),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
            for k, (picture, name, (x0, y0, x1, y1)) in enumerate(objects)
        ],
        "categories": [{"id": 90 - k, "name": name} for k, name in enumerate(names)],
    }
    path.write_text(json.dumps(document | changes), encoding="utf-8")
    return path


def voc(folder: Path, objects: Sequence[Object], size: tuple[int, int] = SIZE, more: str = "") -> Path:
    """The objects as a folder of VOC's XML files, in which the far corner is the last pixel, counted from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(dict.fromkeys(picture for picture, _, _ in objects)):
        inner = "".join(
            f"<object><name>{escape(name)}</name>{more}<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for of, name, (x0, y0, x1, y1) in objects
            if of == picture
        )
        sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{escape(picture)}</filename>{sides}{inner}</annotation>"
        (folder / f"a{number}.xml").write_text(text, encoding="utf-8")
    return folder


Write = Callable[..., Path]
FORMATS = pytest.mark.parametrize("write", [coco, voc])


def read(path: Path, source: Source, size: tuple[int, int] = SIZE) -> ObjectBoxes:
    return read_objects(path, source, [size] * len(source))


@FORMATS
def test_to_the_pixel(source: Source, tmp_path: Path, write: Write) -> None:
    objects = [
        ("cat/0.png", "cat", (0, 0, 40, 30)),
        ("cat/0.png", "cat", (39, 29, 40, 30)),  # the last pixel alone
        ("cat/1.png", "dog", (1, 1, 9, 9)),
        ("dog/2.png", "dog", (3, 4, 10, 7)),
    ]
    found = read(write(tmp_path / "boxes.json", objects), source)
    assert found.boxes == {(0, 0): ((0, 0, 40, 30), (39, 29, 40, 30)), (3, 1): ((3, 4, 10, 7),)}
    assert found.described() == "1 box of another class than the image's"


def test_a_corner_of_voc_is_a_pixel_from_1(source: Source, tmp_path: Path) -> None:
    voc(tmp_path / "xml", [("cat/0.png", "cat", (0, 0, 1, 1))])
    text = (tmp_path / "xml/a0.xml").read_text()
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax>" in text
    assert read(tmp_path / "xml", source).boxes == {(0, 0): ((0, 0, 1, 1),)}


@FORMATS
def test_a_name_alone_finds_the_only_picture_of_that_name(source: Source, tmp_path: Path, write: Write) -> None:
    objects = [
        ("1.png", "cat", (1, 2, 3, 4)),
        ("JPEGImages/2.png", "dog", (1, 2, 3, 4)),
        ("9.png", "cat", (1, 1, 2, 2)),
    ]
    found = read(write(tmp_path / "boxes.json", objects), source)
    assert list(found.boxes) == [(1, 0), (3, 1)]
    assert found.left_aside == ("1 box of images that are not in DATA",)
    with pytest.raises(DataError, match=r"'0.png' may be any of 2 in DATA: 'cat/0.png', 'dog/0.png'"):
        read(write(tmp_path / "a.json", [("0.png", "cat", (1, 2, 3, 4)), *objects]), source)
    with pytest.raises(DataError, match=r"'a/1.png' and 'b/1.png' may both be 'cat/1.png'"):
        read(write(tmp_path / "b.json", [(f"{of}/1.png", "cat", (1, 2, 3, 4)) for of in "ab"]), source)


@FORMATS
def test_a_picture_that_another_path_means_is_not_found_by_its_name(
    source: Source, tmp_path: Path, write: Write
) -> None:
    found = read(
        write(tmp_path / "boxes.json", [("x/1.png", "cat", (1, 2, 3, 4)), ("cat/1.png", "cat", (5, 6, 7, 8))]), source
    )
    assert found.boxes == {(1, 0): ((5, 6, 7, 8),)}


def test_voc_is_found_beside_its_picture_and_by_the_name_of_the_xml_file(source: Source, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for folder in ("cat", "dog"):
        voc(photos / folder, [("0.png", folder, (1, 2, 3, 4))])
    text = (photos / "dog/a0.xml").read_text()
    (photos / "dog/2.xml").write_text(text.replace("<filename>0.png</filename>", "<filename>C:\\x\\2.bmp</filename>"))
    assert list(read(photos, source).boxes) == [(0, 0), (2, 1), (3, 1)]
    assert list(read(photos / "dog/2.xml", source).boxes) == [(3, 1)]


@FORMATS
def test_classes_that_data_has_not(source: Source, tmp_path: Path, write: Write) -> None:
    where = (1, 2, 3, 4)
    found = read(
        write(tmp_path / "boxes.json", [("cat/0.png", name, where) for name in ("Cat", "person", "car", "cat")]), source
    )
    assert found.boxes == {(0, 0): (where, where)}
    assert found.described() == "2 boxes of classes that DATA has not"
    assert found.notes == ("Classes of the boxes read as those of DATA: Cat as cat.",)
    with pytest.raises(
        DataError, match=r"none of its 2 classes is one of DATA: it has 'person', 'car'; DATA has 'cat'"
    ):
        read(write(tmp_path / "boxes.json", [("cat/0.png", name, where) for name in ("person", "car")]), source)


@FORMATS
def test_each_class_of_an_image_has_its_own_boxes(tmp_path: Path, write: Write) -> None:
    arrays: Mapping[str, Any] = {
        "images": np.zeros((2, 30, 40), np.uint8), "labels": [[1, 1], [0, 1]], "classes": np.array(["cat", "dog"]),
    }  # fmt: skip
    np.savez(tmp_path / "d.npz", **arrays)
    several = open_source(tmp_path / "d.npz")
    both, one = (item.name for item in several.items)
    found = read(
        write(
            tmp_path / "boxes.json",
            [(both, "dog", (1, 2, 3, 4)), (both, "cat", (5, 6, 7, 8)), (one, "cat", (1, 1, 2, 2))],
        ),
        several,
    )
    assert found.boxes == {(0, 0): ((5, 6, 7, 8),), (0, 1): ((1, 2, 3, 4),)}
    assert found.described() == "1 box of another class than the image's"


def test_crowds_and_empty_boxes_of_coco_are_left_aside(source: Source, tmp_path: Path) -> None:
    objects = [("cat/0.png", "cat", box) for box in ((1.5, 2, 3, 4.25), (5, 6, 7, 8), (9, 9, 9, 12))]
    path = coco(tmp_path / "i.json", objects)
    document = json.loads(path.read_text())
    document["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    found = read(path, source)
    assert found.boxes == {(0, 0): ((1.5, 2, 3, 4.25),)}
    assert found.left_aside == ("1 crowd (iscrowd)", "1 box without width or height")


def test_difficult_objects_are_kept(source: Source, tmp_path: Path) -> None:
    folder = voc(tmp_path / "xml", [("cat/0.png", "cat", (1, 2, 3, 4))], more="<difficult>1</difficult>")
    found = read(folder, source)
    assert found.boxes == {(0, 0): ((1, 2, 3, 4),)}
    assert found.notes == ("1 object marked as difficult: they count as the others do.",)


def test_a_size_of_0_is_none(source: Source, tmp_path: Path) -> None:
    folder = voc(tmp_path / "xml", [("cat/0.png", "cat", (1, 2, 3, 4))], size=(0, 0))
    assert read(folder, source).boxes == {(0, 0): ((1, 2, 3, 4),)}


ONE: list[Object] = [("cat/0.png", "cat", (1, 2, 3, 4))]
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotation><filename>&b;</filename></annotation>'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<annotation>", "a0.xml is no XML: no element found"),
        ("", "a0.xml is no XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "is no XML that can be read: unknown encoding"),
        ('<?xml version="1.0" encoding="shift_jis"?><annotation/>', "multi-byte encodings are not supported"),
        (BOMB, r"a0.xml declares a document type \(<!DOCTYPE\)"),
        (OUTSIDE, "declares a document type"),
        ("<html/>", "begins with <html>; expected Pascal VOC's <annotation>"),
        ("<annotation/>", "no object in 1 .xml file"),
        ("<annotation><object><name>cat</name></object></annotation>", "a0.xml, object 1 has no bndbox"),
        ("<annotation><object/></annotation>", "a0.xml, object 1 has no name"),
    ],
)
def test_broken_xml(source: Source, tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "xml"
    folder.mkdir()
    (folder / "a0.xml").write_text(text)
    with pytest.raises(DataError, match=says) as raised:
        read(folder, source)
    assert str(raised.value).startswith(f"--boxes '{tmp_path}/xml'")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<xmin>2<", "<xmin>two<", "object 1: xmin is 'two'; expected a number of pixels"),
        ("<xmax>3<", "<xmax>1<", r"object 1: its bndbox is from \(2, 3\) to \(1, 4\): of negative size"),
        ("<ymax>4<", "<ymax>nan<", "ymax is 'nan'"),
        ("<width>40<", "<width>80<", "width and height say 80×30, but the picture 'cat/0.png' is 40×30"),
        ("<xmin>2</xmin>", "", "xmin is ''"),
    ],
)
def test_a_broken_object_of_voc(source: Source, tmp_path: Path, old: str, new: str, says: str) -> None:
    path = voc(tmp_path / "xml", ONE) / "a0.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"a0.xml.*{says}"):
        read(tmp_path / "xml", source)


IMAGE, CATEGORY = {"id": 7, "file_name": "cat/0.png"}, {"id": 90, "name": "cat"}


def annotation(**changes: Any) -> dict[str, Any]:
    return {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4]} | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": None}, "none of COCO's files of instances.* not an object with annotations, categories, images"),
        ({"images": [IMAGE, IMAGE]}, r"images\[1\] has the id 7, as another of the images has"),
        ({"images": [{"id": 7}]}, r"images\[0\] has no file_name; it has id"),
        ({"categories": ["cat"]}, r"categories\[0\] has no name; it is no object"),
        (
            {"annotations": [annotation(image_id=8)]},
            r"annotations\[0\]: its image_id is 8, which none of the images has",
        ),
        ({"annotations": [annotation(category_id=[1])]}, r"its category_id is \[1\], which none of the categories has"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"its bbox is \[1, 2, 3\]; expected \[x, y, width, height\]"),
        ({"annotations": [annotation(bbox=[1, 2, "a", 3])]}, "width is 'a'; expected a number of pixels"),
        ({"annotations": [annotation(bbox=[9, 9, 3, -3])]}, r"its bbox is \[9, 9, 3, -3\], of negative size"),
        ({"annotations": [annotation(bbox=[50, 9, 3, 3])]}, r"annotations\[0\]: the box \(50, 9, 53, 12\) lies wholly"),
        ({"annotations": [annotation(bbox=[])]}, r"annotations\[0\] has no bbox; it has image_id"),
        ({"images": [IMAGE | {"file_name": "9.png"}]}, "none of its 1 box is of an image in DATA"),
        ({"annotations": []}, "holds no box of a single object"),
    ],
)
def test_broken_coco(source: Source, tmp_path: Path, changes: Mapping[str, Any], says: str) -> None:
    whole = {"images": [IMAGE], "annotations": [annotation()], "categories": [CATEGORY]}
    path = coco(tmp_path / "i.json", ONE, **(whole | changes))
    with pytest.raises(DataError, match=says) as raised:
        read(path, source)
    assert str(raised.value).startswith(f"--boxes '{path}'")


@pytest.mark.parametrize(
    ("text", "says"),
    [("[]", "not a list"), ("{", "is no JSON"), ("[" * 99_999, "is no JSON")],
    ids=["list", "cut", "deep"],
)
def test_no_coco(source: Source, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "i.json", source)


def test_a_folder_without_xml(source: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder without .xml files; expected a folder of Pascal VOC's"):
        read(tmp_path / "photos", source)


@FORMATS
def test_real_boxes_are_those_of_the_table(real_images: Callable[[str], Path], tmp_path: Path, write: Write) -> None:
    folder = real_images("microcontrollers")
    microcontrollers = open_source(folder)
    with (folder / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    corners = ("x0", "y0", "x1", "y1")
    boxes = [(row["path"], row["class"], tuple(int(row[name]) for name in corners)) for row in rows]
    found = read(write(tmp_path / "boxes.json", boxes, (800, 600)), microcontrollers, (800, 600))
    of_table = read(folder / "boxes.csv", microcontrollers, (800, 600))
    assert found.boxes == of_table.boxes
    assert found.left_aside == ("46 boxes of images that are not in DATA",)
