"""Several labels per image, in every form of DATA that holds them, and what is said where it does not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gapstone.data import scan_report
from gapstone.data.check_data import check
from gapstone.data.decoded_store import build
from gapstone.data.open_source import open_source
from gapstone.data.scan import content_digest, scan
from gapstone.data.sources import DataError, Source
from gapstone.images.preprocessing import Preprocessing
from tests.schemas import check_refuses_damage

Make = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """`table("path,label", "0.png,cat|dog")`: a CSV file beside the pictures 0.png to 5.png."""

    def make(*lines: str) -> Path:
        for i in range(6):
            (tmp_path / f"{i}.png").write_bytes(bytes([i]))
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "t.csv"

    return make


def labels_of(source: Source) -> dict[str, set[str]]:
    return {item.name: {source.classes[k] for k in item.labels} for item in source.items}


def test_cells_with_several_labels(table: Make) -> None:
    source = open_source(table("path,label", "0.png,cat|dog", "1.png,", "2.png,dog", "3.png, dog | cafe\u0301 "))
    assert source.multi_label
    assert source.classes == ("café", "cat", "dog")
    assert source.labels.dtype == np.bool_
    assert source.labels.astype(int).tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert source.hints == (
        "Several labels per image (label cells such as 'cat|dog'): 1.25 on average; 1 of 4 images without any.",
    )
    once = open_source(table("path,label", "0.png,a|b", "1.png,cafe\u0301|caf\u00e9", "2.png,a|a", "3.png,No Finding"))
    assert labels_of(once)["1.png"] == {"café"}
    assert once.notes == (
        "2 cells with the same label twice, counted once",
        "'No Finding' is never together with another class: if it means that an image has none, leave its cell empty "
        "instead",
        "1 class(es) written in two ways of Unicode (NFC, NFD), counted as one: 'café'",
    )


def test_the_option_joins_the_rows_of_a_path(table: Make) -> None:
    rows = (
        "path,label,split,patient",
        "0.png,cat,train,7",
        "./0.png,dog,Train,7",
        "1.png,dog,train,8",
        "2.png,,test,9",
    )
    source = open_source(table(*rows), multi_label=True, group="patient")
    assert labels_of(source) == {"0.png": {"cat", "dog"}, "1.png": {"dog"}, "2.png": set()}
    assert [item.row for item in source.items] == [2, 4, 5]
    assert source.grouping is not None
    assert source.grouping.names == ("7", "8", "9")
    assert source.notes == (
        "1 path in several rows, read as one image with all of their labels",
        "--group patient: every image is a group of its own, so it changes nothing",
    )
    with pytest.raises(DataError, match=r"line 5: the label is empty.*--multi-label"):
        open_source(table(*rows))
    with pytest.raises(DataError, match=r"line 3: patient is '8', but line 2 says '7' of the same path, './0.png'"):
        open_source(table(*rows[:2], "./0.png,dog,train,8"), multi_label=True, group="patient")
    with pytest.raises(DataError, match=r"line 3: split is 'test', but line 2 says 'train'"):
        open_source(table(*rows[:2], "./0.png,dog,test,7"), multi_label=True)


def test_without_the_option_rows_of_a_path_stay(table: Make) -> None:
    source = open_source(table("path,label", "0.png,cat", "0.png,dog"))
    assert not source.multi_label
    assert source.labels.tolist() == [0, 1]
    assert source.labels.dtype == np.int64


def test_other_separators_are_pointed_out(table: Make) -> None:
    source = open_source(table("path,label", "0.png,cat;dog", "1.png,dog", "2.png,cat"))
    assert source.hints == (
        "The label 'cat;dog' is read as one class. Several labels of an image are separated by |: 'cat|dog'.",
    )
    assert open_source(table("path,label", "0.png,black/white", "1.png,dog")).hints == ()


def test_columns_of_0_and_1(table: Make) -> None:
    lines = (
        "path,patient,zebra,person,Ä,none,age,split",
        "0.png,5,1,0.0,TRUE,0,51,train",
        "1.png,5,1,1,false,0,0,train",
    )
    source = open_source(table(*lines, "2.png,7,0,0,False,0,70,train", "3.png,8,1,1,true,0,1,val"))
    assert source.multi_label
    assert source.classes == ("zebra", "person", "Ä")  # in the order of the table
    assert source.labels.astype(int).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert source.splits == ("train", "val")
    assert "column 'age' is not read (path, label and split are)" in source.notes
    assert "1 class without any image left out: 'none'" in source.notes
    assert source.hints[0].startswith(
        "Several labels per image (4 columns of 0 and 1 instead of label: zebra, person, Ä, none): 1.75 on average; "
        "1 of 4 images without any."
    )
    grouped = open_source(tmp := table(*lines, "2.png,7,0,0,0,0,70,train"), group="person")
    assert grouped.classes == ("zebra", "Ä")
    assert tmp.exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("path,label", "0.png,cat||dog"), r"line 2: the label 'cat\|\|dog' has nothing between two \|"),
        (("path,label", "0.png,|cat", "1.png,dog"), r"line 2: the label '\|cat' has nothing"),
        (("path,label", "0.png,a|b,c"), "line 2: 3 cells, but 2 columns"),
        (("path,label", "0.png,a|a", "1.png,a"), "only one class, 'a'.*one of two labels, such as yes and no"),
        (("path,a,b", "0.png,1,0", "1.png,1,-1", "2.png,0,1"), "line 3: column 'b' is '-1'.*CelebA: write 0"),
        (("path,a,b", "0.png,1,-1.0", "1.png,1,1.0", "2.png,0,-1.0"), r"line 2: column 'b' is '-1.0'.*CelebA"),
        (("path,a,b", "0.png,1,0", "1.png,1,", "2.png,0,1"), "line 3: column 'b' is ''.*leave the image out"),
        (("path,a,b", "0.png,1,0", "1.png,1,2", "2.png,0,1"), "line 3: column 'b' is '2'.*If the column is no class"),
        (("path,a,b", "0.png,1,NaN", "1.png,1,1"), "line 2: column 'b' is 'NaN'"),
        (("path,a,b", "0.png,1,0", "1.png,0,1"), "every row has exactly one.*--multi-label"),
        (("path,a,a", "0.png,1,0", "1.png,1,1"), "the column 'a' is there twice"),
        (("path,a", "0.png,1", "1.png,0"), "must name the columns path,label.*at least two classes"),
        (("path,target,b", "0.png,1,0", "1.png,0,1"), r"is 'target' the label, or .* 0 and 1 \(target, b\)"),
        (("path,a,b", "0.png,0,0", "1.png,0,0"), "has no class"),
        (("path,a,b,split", "0.png,1,0,train", "1.png,1,1,test"), "no train images of 'b', though test has them"),
    ],
)
def test_tables_that_cannot_be_used(table: Make, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(table(*lines))


def test_all_without_labels_and_forms_of_one_label_are_refused(table: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class"):
        open_source(table("path,label", "0.png,", "1.png,"), multi_label=True)
    with pytest.raises(DataError, match=r"--multi-label.* DATA 'digits' \(digits\) has one for each by its form"):
        open_source("digits", multi_label=True)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float64])
def test_arrays_of_truth_values(tmp_path: Path, kind: type) -> None:
    file, images = tmp_path / "d.npz", np.zeros((3, 4, 4), np.uint8)
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0]], kind)
    np.savez(file, images=images, labels=labels, classes=["x", "y", "z"], split=["train", "train", "test"])
    source = open_source(file)
    assert source.classes == ("x", "z")
    assert source.labels.tolist() == [[True, True], [False, False], [True, False]]
    assert source.notes == ("1 class without any image left out: 'y'",)
    np.savez(file, images=images, labels=labels)
    assert open_source(file).classes == ("0", "2")


@pytest.mark.parametrize(
    ("labels", "classes", "says"),
    [
        ([[1, 0], [0, 2], [1, 1]], None, r"labels\[1, 1\] is '2'; .* hold 0 or 1"),
        ([[1, 0], [0, np.nan], [1, 1]], None, r"labels\[1, 1\] is 'nan'"),
        ([["a", "b"]] * 3, None, r"labels\[0, 0\] is 'a'"),
        ([[1, 0], [0, 1], [1, 0]], None, r"one 1 in every row.*labels.argmax\(1\).*--multi-label"),
        ([[1, 0]], None, r"labels of shape \(1, 2\); expected \(3,\), or \(3, K\)"),
        ([[1, 0], [1, 1]], None, r"labels of shape \(2, 2\)"),
        ([[1, 0], [1, 1], [0, 0]], ["a"], r"labels has shape \(3, 2\), but classes has 1 names"),
        (["a|b", "|a", ""], None, r"labels\[1\]: the label '\|a' has nothing"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, labels: list, classes: list | None, says: str) -> None:
    arrays = {"images": np.zeros((3, 4, 4), np.uint8), "labels": labels} | ({"classes": classes} if classes else {})
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=says):
        open_source(tmp_path / "d.npz")


def test_the_option_makes_any_array_multi_label(tmp_path: Path) -> None:
    file, images = tmp_path / "d.npz", np.zeros((3, 4, 4), np.uint8)
    for labels in ([[1, 0], [0, 1], [1, 0]], [0, 1, 0], ["0", "1", "0"]):
        np.savez(file, images=images, labels=labels)
        assert open_source(file, multi_label=True).labels.tolist() == [[True, False], [False, True], [True, False]]
    np.savez(file, images=images, labels=["b|a", "a", ""], classes=["b", "a"])
    assert open_source(file).labels.tolist() == [[True, True], [False, True], [False, False]]


@pytest.mark.parametrize("link", [os.symlink, os.link, shutil.copyfile])
def test_files_in_several_class_folders(class_folder: Make, link: Callable[[Path, Path], object]) -> None:
    root = class_folder({"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1})
    link(root / "train/cat/1.png", root / "train/dog/other name.png")
    shutil.copyfile(root / "train/cat/0.png", root / "train/cat/copy.png")  # of one class: a duplicate
    link(root / "train/dog/0.png", root / "test/cat/leak.png")  # of another split: the scan tells it
    (root / "train/dog/empty.png").touch()
    (root / "train/cat/empty.png").touch()
    plain = open_source(root)
    assert (plain.multi_label, len(plain)) == (False, 12)
    source = open_source(root, multi_label=True)
    several = {name: labels for name, labels in labels_of(source).items() if len(labels) != 1}
    assert several == {"train/cat/1.png": {"cat", "dog"}}
    assert len(source) == 11
    assert "1 file linked or copied into several class folders, read as one image with all of them" in source.notes
    if link is os.link:
        assert len(scan(source).across_splits) == 1
        assert scan(plain).hints == (
            "2 pictures under several labels, of 4 files, left out. If that is no mistake, as an image may have "
            "several labels: --multi-label takes its files for one image with all.",
        )


def test_single_label_keys_and_hashes_are_as_before(tmp_path: Path) -> None:
    images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4)
    np.savez(tmp_path / "d.npz", images=images, labels=[0, 1, 0, 1])
    source, several = (open_source(tmp_path / "d.npz", multi_label=flag) for flag in (False, True))
    how = Preprocessing(1, (4, 4), (4, 4), (0.5,), (0.25,))
    found = scan(source)
    # what was written before labels had two forms, with the later version of decoding in the key
    assert build(source, range(4), how, tmp_path / "s", scan=found).key == "9f20e52d0139c4ca90e84ec61e541f2d"
    assert content_digest(source, found, np.arange(4)) == "52ebcefe5f05a6a1"
    store = build(several, range(4), how, tmp_path / "m", scan=scan(several))
    assert store.key != "9f20e52d0139c4ca90e84ec61e541f2d"
    assert store.labels.tolist() == several.labels.tolist()
    assert content_digest(several, found, np.arange(4)) != "52ebcefe5f05a6a1"


def test_check_tells_what_multi_label_images_hold(picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    images = np.stack([picture(i) for i in range(12)])
    labels = ["cat|dog"] * 4 + ["cat|dog|owl"] * 2 + ["owl"] * 3 + [""] * 2 + ["dog"]
    images[8:10] = images[7]  # one picture with two sets of labels
    np.savez(tmp_path / "t.npz", images=images, labels=labels)
    out = tmp_path / "out"
    found = check(str(tmp_path / "t.npz"), out)
    assert found.conflicts == [[7, 8, 9]]
    about = json.loads((out / "scan.json").read_text())
    assert about["conflicts"] == [{"names": ["image #7", "image #8", "image #9"], "labels": ["owl", "owl", ""]}]
    assert about["several_labels"] == {
        "mean": 16 / 9,
        "images_by_number": {"0": 1, "1": 2, "2": 4, "3": 2},
        "pairs": [
            {"classes": ["cat", "dog"], "images": 6},
            {"classes": ["cat", "owl"], "images": 2},
            {"classes": ["dog", "owl"], "images": 2},
        ],
    }
    check_refuses_damage("scan", about)
    text = (out / "scan.txt").read_text()
    assert "12 images in 3 classes (npz, several labels per image)" in text
    assert "labels per image: 1.78 on average (none: 1, 1: 2, 2: 4, 3: 2)" in text
    assert "most often together: cat and dog (6 images); cat and owl (2 images); dog and owl (2 images)" in text
    assert "one picture with different sets of labels: 1 picture, 3 files" in text
    assert "image #9 (no label)" in text
    assert (out / "scan.csv").read_text().splitlines()[1].startswith("image #0,cat|dog,")
    assert "with different sets of labels" in (out / "scan.html").read_text()
    assert found.class_counts() == {"all": [6, 7, 3]}
    assert "several_labels" not in scan(open_source("digits")).to_json()
    assert scan_report.text(found) + "\n" == text
