"""A table of boxes: whose they are, and what is wrong with it, by line."""

import numpy as np
import pytest
from PIL import Image

from gapstone.data.object_boxes import read_objects
from gapstone.data.open_source import open_source
from gapstone.data.sources import DataError, Source

SIZES = [(40, 30)] * 5


@pytest.fixture
def source(tmp_path) -> Source:
    """cat/0.png, cat/1.png, dog/0.png, dog/1.png, dog/ünï 2.png: 40×30 pixels each."""
    for name in ("cat/0", "cat/1", "dog/0", "dog/1", "dog/ünï 2"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
    return open_source(tmp_path / "photos")


def table(folder, *lines, header="path,x0,y0,x1,y1", name="boxes.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes("\n".join([header, *lines]).encode(encoding))
    return path


def test_paths_are_found_from_the_table_from_data_and_by_name(source, tmp_path):
    absolute = tmp_path / "photos" / "cat" / "1.png"
    lines = ("cat/0.png,1,2,11,12", f"{absolute},1,2,3,4", "dog/ünï 2.png,0,0,40,30", "photos/dog/0.png,5,5,6.5,7")
    expected = {
        (0, 0): ((1, 2, 11, 12),),
        (1, 0): ((1, 2, 3, 4),),
        (2, 1): ((5, 5, 6.5, 7),),
        (4, 1): ((0, 0, 40, 30),),
    }
    for folder in (tmp_path, tmp_path / "photos" / "cat"):  # in the second, photos/dog/0.png is nothing
        found = read_objects(table(folder, *lines), source, SIZES)
        want = expected if folder == tmp_path else {k: v for k, v in expected.items() if k != (2, 1)}
        assert found.boxes == want
        assert found.left_aside == (() if want == expected else ("1 row of images that are not in DATA",))


def test_paths_and_classes_as_another_system_wrote_them(source, tmp_path):
    decomposed = "u\u0308ni\u0308"
    lines = (r"photos\cat\0.png,1,2,11,12", rf"dog\{decomposed} 2.png,0,0,40,30")
    assert sorted(read_objects(table(tmp_path, *lines), source, SIZES).boxes) == [(0, 0), (4, 1)]


def test_the_name_finds_images_that_are_no_files(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=np.zeros((3, 20, 20), np.uint8), labels=[0, 1, 1])
    array = open_source(path)
    found = read_objects(table(tmp_path, f"{array.items[2].name},1,1,5,5"), array, [(20, 20)] * 3)
    assert found.boxes == {(2, 1): ((1, 1, 5, 5),)}


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig"), (",", "utf-8-sig")])
def test_every_kind_of_csv(source, tmp_path, delimiter, encoding):
    header = delimiter.join(("Path", " X0", "y0", "x1", "y1", "remark"))
    line = delimiter.join(("cat/0.png", "1", "2", "11", "12", "ours"))
    assert read_objects(table(tmp_path, line, "", header=header, encoding=encoding), source, SIZES).boxes == {
        (0, 0): ((1, 2, 11, 12),)
    }


def test_only_boxes_of_the_images_own_class_count(source, tmp_path):
    lines = ("cat/0.png,cat,1,2,11,12", "cat/0.png,dog,1,2,11,12", "cat/0.png,,5,5,9,9", "elsewhere.png,bird,1,1,2,2")
    found = read_objects(table(tmp_path, *lines, header="path,class,x0,y0,x1,y1"), source, SIZES)
    assert found.boxes == {(0, 0): ((1, 2, 11, 12), (5, 5, 9, 9))}
    assert found.described() == "1 row of images that are not in DATA and 1 box of another class than the image's"


def test_each_class_of_an_image_has_its_own_boxes(tmp_path):
    path = tmp_path / "data.npz"
    labels = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    np.savez(path, images=np.zeros((4, 20, 20), np.uint8), labels=labels, classes=np.array(["cat", "dog", "fox"]))
    source = open_source(path)
    both, one, none, _ = (item.name for item in source.items)
    lines = (f"{both},dog,1,1,5,5", f"{both},cat,2,2,6,6", f"{both},dog,3,3,9,9", f"{both},fox,1,1,2,2",
             f"{one},,4,4,8,8", f"{none},,1,1,2,2", f"{none},cat,1,1,2,2")  # fmt: skip
    found = read_objects(table(tmp_path, *lines, header="path,class,x0,y0,x1,y1"), source, [(20, 20)] * 4)
    assert found.boxes == {(0, 0): ((2, 2, 6, 6),), (0, 1): ((1, 1, 5, 5), (3, 3, 9, 9)), (1, 1): ((4, 4, 8, 8),)}
    assert list(found.boxes) == sorted(found.boxes)
    assert found.left_aside == ("3 boxes of another class than the image's",)
    with pytest.raises(DataError, match=r"line 2: the picture has several classes \(cat, dog\), .* column class"):
        read_objects(table(tmp_path, f"{both},,1,1,5,5", header="path,class,x0,y0,x1,y1"), source, [(20, 20)] * 4)


def test_what_reaches_beyond_the_picture_is_cut_off(source, tmp_path):
    assert read_objects(table(tmp_path, "cat/0.png,-5,2,99,31"), source, SIZES).boxes == {(0, 0): ((0, 2, 40, 30),)}


WIDE = "path,class,x0,y0,x1,y1,width,height"


@pytest.mark.parametrize(
    ("header", "lines", "says"),
    [
        ("path,xmin,ymin,xmax,ymax", ["cat/0.png,1,2,3,4"], "first line must name.* x0, y0, x1, y1 are missing"),
        ("path,x0,y0,x1", ["cat/0.png,1,2,3"], "y1 is missing"),
        (WIDE, [], "header but no rows"),
        ("path,x0,y0,x1,y1", ["cat/0.png,1,2,3,4", "cat/1.png,1,two,3,4"], "line 3: y0 is 'two'; expected a number"),
        ("path,x0,y0,x1,y1", ["cat/0.png,1,2,nan,4"], "line 2: x1 is 'nan'"),
        ("path,x0,y0,x1,y1", ["cat/0.png,1,2,3"], "line 2: 4 cells, but 5 columns"),
        ("path,x0,y0,x1,y1", ["cat/0.png,10,2,8,9"], r"line 2: x0 = 10 and x1 = 8: .*Then x1 = 18"),
        ("path,x0,y0,x1,y1", ["cat/0.png,1,2,8,2"], "line 2: y0 = 2 and y1 = 2"),
        ("path,x0,y0,x1,y1", ["cat/0.png,40,2,50,9"], "line 2: .*wholly outside its picture of 40×30"),
        (WIDE, ["cat/0.png,catt,1,2,8,9,40,30"], "line 2: DATA has no class 'catt'; did you mean 'cat'"),
        (WIDE, ["cat/0.png,zebra,1,2,8,9,40,30"], "line 2: DATA has no class 'zebra'; DATA has cat, dog"),
        (WIDE, ["cat/0.png,cat,1,2,8,9,80,60"], "line 2: width and height say 80×60.* is 40×30"),
        (WIDE, ["cat/0.png,cat,1,2,8,9,30,40"], r"line 2: .*upright \(EXIF\)"),
        ("path,x0,y0,x1,y1", ["cat/7.png,1,2,8,9", "no,1,1,2,2"], "none of its 2 rows .*'cat/7.png'.*'cat/0.png'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(source, tmp_path, header, lines, says):
    with pytest.raises(DataError, match=says) as raised:
        read_objects(table(tmp_path, *lines, header=header), source, SIZES)
    assert str(raised.value).startswith(f"--boxes '{tmp_path}/boxes.csv'")


def test_no_utf8(source, tmp_path):
    with pytest.raises(DataError, match="line 2: no UTF-8"):
        read_objects(table(tmp_path, "dog/ünï 2.png,1,2,3,4", encoding="cp437"), source, SIZES)


def test_real_boxes(real_images):
    folder = real_images("microcontrollers")
    source = open_source(folder)
    sizes = [(800, 600)] * len(source)
    found = read_objects(folder / "boxes.csv", source, sizes)
    assert len(found.boxes) == len(source) == 130
    assert found.left_aside[0].startswith("46 rows")  # photos of several boards, which are no part of DATA
    first = next(i for i, item in enumerate(source.items) if item.name.endswith("IMG_20181228_101826.jpg"))
    assert found.boxes[first, source.items[first].labels[0]] == ((317, 265, 556, 342),)
