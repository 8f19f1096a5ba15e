"""Words for splits, as people write them; folders that look like splits are never classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import DataError
from gapstone.data.split import split
from gapstone.data.split_names import split_name

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("Training_Set test_set notes", "train test -"),
        ("TrainingSet TestSet", "train test"),
        ("trainset testdata valset", "train test val"),
        ("TRAIN TESTING Valid", "train test val"),
        ("train2017 val2017", "train val"),
        ("ILSVRC2012_img_train ILSVRC2012_img_val", "train val"),
        ("01-train 02-validation 03-test", "train val test"),
        ("flowers_train flowers_test", "train test"),
        ("train dev", "train val"),
        ("train eval", "train val"),
        ("train dev eval", "train val test"),
        ("train eval test", "train val test"),
        ("train Hold-Out", "train test"),
        ("train holdout test", "train val test"),
        ("trainval test", "train test"),
        ("학습 검증 테스트", "train val test"),
        ("train_station test_tube", "- -"),
        ("bus train car", "- train -"),
        ("pretrain latest contest", "- - -"),
    ],
)
def test_spellings(names: str, splits: str) -> None:
    found = split_name(names.split())
    assert [found.get(name, "-") for name in names.split()] == splits.split()


@pytest.mark.parametrize("words", ["training_set test_set", "train dev", "train eval", "Train HoldOut", "train1 test1"])
def test_folders_of_splits_in_any_spelling(class_folder: Make, words: str) -> None:
    train, other = words.split()
    s = open_source(class_folder({f"{train}/cats": 3, f"{train}/dogs": 3, f"{other}/cats": 1, f"{other}/dogs": 1}))
    assert (s.kind, s.classes, s.splits[0], len(s.splits)) == ("split folder", ("cats", "dogs"), "train", 2)


def test_a_split_in_a_folder_of_its_own_name(class_folder: Make) -> None:
    """As Kaggle's cats and dogs unpack."""
    of = {f"{s}/{s}/{c}": n for s, n in (("training_set", 3), ("test_set", 1)) for c in ("cats", "dogs")}
    s = open_source(class_folder(of))
    assert (s.classes, s.splits, len(s)) == (("cats", "dogs"), ("train", "test"), 8)
    assert any("within training_set/training_set and test_set/test_set" in note for note in s.notes)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"set_a/cats": 1, "set_a/dogs": 1, "set_b/cats": 1, "set_b/dogs": 1}, "set_a and set_b each hold the folders"),
        ({"webcam/mug": 1, "webcam/pen": 1, "dslr/mug": 1, "dslr/pen": 1}, "Are they splits"),
        ({"train_day/cats": 1, "train_day/dogs": 1, "test_night/cats": 1, "test_night/birds": 1}, "looks like a split"),
        ({"train/cats": 1, "train/dogs": 1, "images": 1}, "looks like a split"),
        ({"cats/train": 1, "cats/test": 1, "dogs/train": 1, "dogs/test": 1}, "splits outside and the classes inside"),
        ({"training_set": 2, "test_set": 2}, "no folder per class"),
        ({"bus": 2, "train": 2, "test": 2}, "no folder per class"),
        ({"val/cats": 1, "val/dogs": 1, "test/cats": 1, "test/dogs": 1}, "none to train on"),
        ({"train/a": 1, "train/b": 1, "training/a": 1, "test/a": 1}, "mean the same split"),
    ],
)
def test_what_looks_like_splits_is_asked_about(class_folder: Make, counts: dict[str, int], says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        open_source(class_folder(counts))
    assert "\n" not in str(error.value)


def test_folders_within_classes_are_merged_and_noted(class_folder: Make) -> None:
    s = open_source(class_folder({"cat/siamese": 1, "cat/other": 1, "dog/poodle": 1, "dog/beagle": 1, "dog": 1}))
    assert (s.classes, len(s)) == (("cat", "dog"), 5)
    assert any("count as the outer class: cat (other and siamese), dog (beagle and poodle)" in n for n in s.notes)


@pytest.mark.parametrize("other", ["empty", "empty classes", "flat", "one folder"])
@pytest.mark.parametrize("word", ["val", "test"])
def test_a_held_out_folder_without_labels_is_carved_anew(class_folder: Make, other: str, word: str) -> None:
    root = class_folder({"train/cat": 10, "train/dog": 10})
    folder = {"empty": root / word, "empty classes": root / word / "cat", "flat": root / word}.get(
        other, root / word / "unknown"
    )
    folder.mkdir(parents=True)
    if other in ("flat", "one folder"):
        Image.new("RGB", (8, 8)).save(folder / "1.png")
    s = open_source(root)
    assert (s.classes, s.splits, len(s)) == (("cat", "dog"), ("train",), 20)
    said = {"flat": "labels are unknown", "one folder": "labels are unknown", "empty": f"{word} is empty"}
    assert any(said.get(other, "without any file") in note for note in s.notes)
    parts = split(s, scan(s, workers=1))
    assert len(parts.train) + len(parts.validation) + len(parts.test) == 20
    assert f"{len(parts.test)} of 20 images" in parts.described
    assert "chosen by their content as the locked test set" in parts.described


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("train train train", "train"),
        ("Train DEV Testing", "train val test"),
        ("training_set training_set test_set", "train test"),
        ("train train eval", "train val"),
    ],
)
def test_split_columns(tmp_path: Path, words: str, kinds: str) -> None:
    """Of a table and of an .npz: 12 images of two classes, the words in turn."""
    column = words.split() * 8
    images = np.random.default_rng(0).integers(0, 256, (len(column), 8, 8), np.uint8)
    labels = [f"c{i // 3 % 2}" for i in range(len(column))]
    np.savez(tmp_path / "d.npz", images=images, labels=labels, split=column)
    np.savez(tmp_path / "b.npz", images=images, labels=np.array(labels, "S"), split=np.array(column, "S"))
    rows = []
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{labels[i]},{column[i]}")
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    for name in ("d.npz", "b.npz", "t.csv"):
        s = open_source(tmp_path / name)
        assert (s.splits, s.classes) == (tuple(kinds.split()), ("c0", "c1"))
        parts = split(s, scan(s, workers=1))
        assert min(len(parts.train), len(parts.validation), len(parts.test)) > 0
