"""Images and labels in arrays: which arrays they are, and the forms that these may have."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapstone.data.array_source import find_arrays
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import DataError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 8, 9), np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 8, 9, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1, 2, 2])


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("images labels", [(None, "images", "labels")]),
        ("X y", [(None, "X", "y")]),
        ("images targets", [(None, "images", "targets")]),
        ("data labels classes", [(None, "data", "labels")]),
        ("x_test y_test x_train y_train", [("train", "x_train", "y_train"), ("test", "x_test", "y_test")]),
        (
            "train_images train_labels val_images val_labels test_images test_labels",
            [(s, f"{s}_images", f"{s}_labels") for s in ("train", "val", "test")],
        ),
        ("images labels x y x_train y_train", [(None, "images", "labels")]),
        ("x_train y_train x_test", [("train", "x_train", "y_train")]),
    ],
)
def test_usual_names(names: str, parts: list[tuple[str, str, str]]) -> None:
    assert list(find_arrays("DATA", names.split()).parts) == parts


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("x data y", "is 'x' or 'data' meant"),
        ("x_train x_test y_test", "no 'labels' array of the train"),
        ("a b", "no 'images'"),
    ],
)
def test_names_that_are_not_clear(names: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        find_arrays("DATA", names.split())


def test_what_medmnist_holds(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "m.npz",
        train_images=COLOUR, train_labels=LABELS[:, None],
        test_images=COLOUR[:2], test_labels=LABELS[:2, None],
    )  # fmt: skip
    s = open_source(tmp_path / "m.npz")
    assert (s.kind, s.classes, s.splits) == ("npz", ("0", "1", "2"), ("train", "test"))
    assert s.labels.tolist() == [*LABELS, 0, 1]
    assert np.array_equal(s.pixels(7), COLOUR[1])
    assert s.notes == ("arrays read: train_images and test_images as images, train_labels and test_labels as labels",)


@pytest.mark.parametrize(
    "data",
    [
        (COLOUR, LABELS),
        (COLOUR, LABELS.tolist()),
        (torch.tensor(COLOUR), torch.tensor(LABELS)),
        (COLOUR.transpose(0, 3, 1, 2), LABELS),
        (torch.tensor(COLOUR).permute(0, 3, 1, 2) / 255, torch.tensor(LABELS)[:, None]),
        (COLOUR / np.float32(255), LABELS),
        ((COLOUR / 255).astype(np.float16), LABELS),
        {"images": COLOUR, "labels": LABELS},
        {"X": torch.tensor(COLOUR, requires_grad=False), "y": LABELS},
    ],
)
def test_the_same_images_in_other_arrays(data: object) -> None:
    s = open_source(data)
    assert (s.given, s.kind, s.classes) == ("arrays of 6 images", "arrays", ("0", "1", "2"))
    assert s.labels.tolist() == LABELS.tolist()
    assert all(np.array_equal(s.pixels(i), COLOUR[i]) for i in range(6))
    assert not any("rounded" in note for note in s.notes)


def test_floats_of_more_than_256_levels_are_rounded_and_that_is_said() -> None:
    s = open_source((COLOUR / 255 * 0.9, LABELS))
    assert s.notes == ("images: floats of more than 256 levels, rounded to 0…255",)
    assert np.array_equal(s.pixels(0), np.rint(COLOUR[0] * 0.9))


def test_arrays_have_classes_splits_and_groups() -> None:
    split = ["train"] * 4 + ["test"] * 2
    data = {
        "images": GRAY,
        "labels": [0, 1, 0, 1, 0, 1],
        "classes": ["cat", "dog"],
        "split": split,
        "patient": list("aabbcc"),
    }
    s = open_source(data, group="patient")
    assert (s.classes, s.splits) == (("cat", "dog"), ("train", "test"))
    assert s.grouping is not None
    assert s.grouping.names == tuple("aabbcc")
    assert scan(s, cache=None).channels == 1


def test_pairs_by_split() -> None:
    s = open_source({"train": (COLOUR, LABELS), "test": (COLOUR[:3], LABELS[:3])})
    assert (s.given, s.splits, len(s)) == ("arrays of 6 (train) and 3 (test) images", ("train", "test"), 9)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (([GRAY[0], COLOUR[0]], [0, 1]), "images of different sizes give a Dataset"),
        ((GRAY > 99, LABELS), r"images is bool; expected .* Of a mask: .astype\('uint8'\)"),
        (
            (np.zeros((6, 5, 8, 9), np.uint8), LABELS),
            r"\(6, 5, 8, 9\): 5 channels that come first, or 9 that come last",
        ),
        ((np.zeros((6, 20, 8, 30), np.uint8), LABELS), r"images has shape \(6, 20, 8, 30\); expected"),
        ((np.full((6, 20, 20, 4), 255, np.uint8), LABELS), r"as alpha is: give images\[..., :3\]"),
        ({"images": GRAY, "labels": LABELS, "channels": "middle"}, "channels is 'middle'; expected 'first' or 'last'"),
        (
            {"train": (GRAY, LABELS), "test": (GRAY.astype(np.uint16), LABELS)},
            "images of 2 types, .* expected one type",
        ),
        ((GRAY, LABELS[:5]), "6 images, but labels of shape"),
        ({"train": (COLOUR, LABELS), "test": (GRAY, LABELS)}, "images of two shapes"),
        ({"images": GRAY}, "no 'labels' array; it has images"),
    ],
)
def test_arrays_that_cannot_be_used(data: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(data)
