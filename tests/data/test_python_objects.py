"""DATA as an object of Python: a DataFrame, a Dataset of torch or torchvision, a list; what is none is told so."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gapstone.data.dataset_values import DatasetValues
from gapstone.data.decoded_store import StoreError, build
from gapstone.data.open_source import open_source
from gapstone.data.python_objects import described
from gapstone.data.scan import scan
from gapstone.data.sources import DataError
from gapstone.images.preprocessing import Preprocessing

Make = Callable[..., Path]
RANDOM = np.random.default_rng(0)
COLOUR = [RANDOM.integers(0, 256, (8 + k, 9, 3), np.uint8) for k in range(6)]  # of different sizes
PAIRS = [(image, k % 2) for k, image in enumerate(COLOUR)]


class Images(torch.utils.data.Dataset[Any]):
    """A map-style Dataset as people write them."""

    def __init__(self, pairs: Any = PAIRS, change: Callable[[Any], Any] = lambda image: image) -> None:
        self.pairs, self.change = pairs, change

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, k: int) -> Any:
        image, label = self.pairs[k]
        return self.change(image), label


def test_a_frame_is_read_as_its_csv_is(class_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folder({"a": 4})
    frame = pd.DataFrame({
        "path": [Path(f"data/a/{n}.png") for n in range(4)], "label": ["x", "y", "x", "y"],
        "split": ["train", "train", "test", "test"], "patient": [1, 1, 2, 3],
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    from_csv, s = open_source(tmp_path / "t.csv", group="patient"), open_source(frame, group="patient")
    assert (s.given, s.kind) == ("a DataFrame of 4 rows", "frame")
    assert [(i.name, i.labels, i.split) for i in s.items] == [(i.name, i.labels, i.split) for i in from_csv.items]
    assert s.grouping == from_csv.grouping
    assert scan(s, cache=None, workers=1).facts == scan(from_csv, cache=None, workers=1).facts


def test_labels_in_a_frame(class_folder: Make) -> None:
    root = class_folder({"a": 3})
    paths = [root / f"a/{n}.png" for n in range(3)]
    assert open_source(pd.DataFrame({"file": paths, "y": [3.0, 1.0, 3.0]})).classes == ("1", "3")
    lists = open_source(pd.DataFrame({"path": paths, "label": [["cat", "dog"], [], ["dog"]]}))
    assert (lists.multi_label, lists.labels.tolist()) == (True, [[True, True], [False, False], [False, True]])
    columns = open_source(pd.DataFrame({"path": paths, "cat": [True, False, True], "dog": [1, 1, 0]}))
    assert columns.labels.tolist() == [[True, True], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": ["x.png", None], "label": ["a", "b"]}, "row 1: the path is empty"),
        ({"path": ["x.png", "y.png"], "label": ["a", np.nan]}, "row 1: the label is empty"),
        ({"path": ["x.png", "y.png"], "label": ["a", "b"]}, "none of its 2 paths .* relative to the working folder"),
        ({"path": [], "label": []}, "a DataFrame of 0 rows' has no rows"),
        ({"where": ["x.png"], "label": ["a"]}, "must name the columns path,label"),
    ],
)
def test_frames_that_cannot_be_used(columns: dict[str, list[Any]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(pd.DataFrame(columns))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        Image.fromarray,
        lambda image: torch.tensor(image).permute(2, 0, 1),
        lambda image: torch.tensor(image).permute(2, 0, 1) / 255,
        lambda image: image.transpose(2, 0, 1),
    ],
)
def test_images_of_a_dataset(change: Callable[[Any], Any]) -> None:
    s = open_source(Images(change=change))
    assert (s.given, s.kind, s.classes, len(s)) == ("Images of 6 images", "dataset", ("0", "1"), 6)
    assert all(np.array_equal(s.pixels(k), COLOUR[k]) for k in range(6))
    found = scan(s, cache=None)
    assert [fact.size for fact in found.facts] == [(9, 8 + k) for k in range(6)]
    assert [item.name for item in s.items][:2] == ["image #0", "image #1"]


def test_gray_images_of_a_list() -> None:
    s = open_source([(Image.fromarray(image).convert("L"), "ab"[k]) for image, k in PAIRS])
    assert (s.given, s.classes) == ("a list of 6 images", ("a", "b"))
    assert scan(s, cache=None).channels == 1


def test_splits_subsets_and_class_names() -> None:
    train, other = Images(), Images()
    train.classes = other.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    whole = torch.utils.data.ConcatDataset([train, other])
    parts = {"test": torch.utils.data.Subset(torch.utils.data.Subset(train, [1, 3, 4]), [2, 0]), "train": whole}
    s = open_source(parts)
    assert (s.given, s.splits) == ("ConcatDataset of 12 (train) and 2 (test) images", ("train", "test"))
    assert s.classes == ("cat", "dog")
    assert [item.name for item in s.items][-3:] == ["train #11", "test #0", "test #1"]
    assert np.array_equal(s.pixels(12), COLOUR[4])
    assert s.labels.tolist()[-2:] == [0, 1]


def test_names_that_do_not_fit_are_left_out() -> None:
    data = Images()
    data.classes = ["only one"]  # type: ignore[attr-defined]
    s = open_source(data)
    assert s.classes == ("0", "1")
    assert s.notes == ("the 1 names in its attribute classes do not fit its labels: not read",)


def test_parts_whose_classes_have_other_numbers() -> None:
    cats, dogs = Images(), Images()
    cats.classes, dogs.classes = ["cat", "dog"], ["dog", "cat"]  # type: ignore[attr-defined]
    for parts in ({"train": cats, "test": dogs}, torch.utils.data.ConcatDataset([cats, dogs])):
        with pytest.raises(DataError, match=r"'cat', 'dog' and 'dog', 'cat'\. Give all parts the same classes"):
            open_source(parts)
    in_words = [(image, ["dog", "cat"][label]) for image, label in PAIRS]
    cats.pairs = dogs.pairs = in_words
    assert open_source({"train": cats, "test": dogs}).classes == ("cat", "dog")


def test_floats_of_more_than_256_levels_are_rounded_and_that_is_said() -> None:
    s = open_source(Images(change=lambda image: image / 255 * 0.9))
    assert s.notes == ("6 images: floats of more than 256 levels, rounded to 0…255",)
    assert np.array_equal(s.pixels(0), np.rint(COLOUR[0] * 0.9))


def test_several_labels_of_a_dataset() -> None:
    vectors = [torch.tensor(v) for v in ([1, 0, 1], [0, 0, 0], [0, 1, 1])]
    s = open_source([{"image": COLOUR[k], "label": v} for k, v in enumerate(vectors)])
    assert s.multi_label
    assert s.labels.tolist() == [[bool(n) for n in v] for v in vectors]


def test_an_image_folder_gives_its_files(class_folder: Make) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    root = class_folder({"cat": 2, "dog": 2})
    s, folder = open_source(datasets.ImageFolder(str(root))), open_source(root)
    assert [(i.name, i.labels, i.path) for i in s.items] == [(i.name, i.labels, i.path) for i in folder.items]
    resized = datasets.ImageFolder(str(root), transform=lambda image: image.resize((5, 4)))
    assert open_source(resized).pixels(0).shape == (4, 5, 3)
    parts = open_source({"train": datasets.ImageFolder(str(root)), "val": datasets.ImageFolder(str(root))})
    assert parts.items[0].name == "train/cat/0.png"


def test_beyond_the_memory_it_is_read_again_and_has_to_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapstone.data.dataset_values._KEPT", COLOUR[0].nbytes)
    data = Images()
    s = open_source(data)
    assert isinstance(s.array, DatasetValues)
    assert list(s.array.kept) == [0]
    assert all(np.array_equal(s.pixels(k), COLOUR[k]) for k in range(6))
    found = scan(s, cache=None)
    data.change = lambda image: 255 - image
    preprocessing = Preprocessing(3, (8, 8), (8, 8), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(StoreError, match="image #1: is another image"):
        build(s, range(6), preprocessing, tmp_path / "store", scan=found)


def test_items_that_cannot_be_read_are_listed() -> None:
    def fail(image: Any) -> Any:
        if image is COLOUR[3]:
            raise OSError("broken\nfile")
        return image

    s = open_source(Images(change=fail))
    assert len(s) == 5
    assert s.hints == ("1 item cannot be read, left out: image #3 (OSError: broken file)",)
    with pytest.raises(DataError, match="its item 0 cannot be read: ZeroDivisionError"):
        open_source(Images(change=lambda image: 1 / 0))


def test_the_progress_of_reading() -> None:
    seen: list[object] = []
    open_source(Images(), start_progress=lambda what: seen.append(what) or (lambda *n: seen.append(n)))
    assert seen == ["Reading the Dataset", *((n, 6) for n in range(1, 7))]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, r"DATA is None(.|\n)*\(images, labels\)"),
        (5, "an object of type builtins.int"),
        (iter(PAIRS), "has no lasting order"),
        (COLOUR[0], r"Labels are missing: \(images, labels\)"),
        (torch.utils.data.DataLoader(Images()), "give its Dataset: loader.dataset"),
        ([], "a list of 0 images' has no items"),
        ({"train": Images(), "later": Images()}, "keys 'train', 'later'"),
        ({"pixels": COLOUR[0], "y2": [1]}, "keys 'pixels', 'y2'; expected images and labels"),
        ({"train": Images(), "test": pd.DataFrame()}, "make one with a column split"),
        ([(image, k, 5) for image, k in PAIRS], "its items are 3 parts"),
        ([{"pixels": 0}], "its items have the keys pixels"),
        ([("x.png", 0)], "image #0 is str"),
        ([(np.zeros((40, 40, 50), np.uint8), 0)], r"uint8 of shape \(40, 40, 50\)"),
        (Images(change=lambda image: torch.tensor(image / 64.0 - 2)), "normalised; .* Leave out Normalize"),
        ([(COLOUR[0], "a"), (COLOUR[1], 1)], "labels are of the type int, str"),
        ([(COLOUR[0], [0, 1]), (COLOUR[1], [1])], "labels are of the type list"),
        ([(COLOUR[0], 0.5), (COLOUR[1], 1.0)], "labels is float64"),
    ],
)  # fmt: skip
def test_objects_that_cannot_be_used(data: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(data)


def test_what_data_is_called() -> None:
    assert described(Path("a/b")) == "a/b"
    assert described({"images": np.zeros((4, 2, 2)), "labels": [0] * 4}) == "arrays of 4 images"
    assert described({"train": Images()}) == "Images of 6 images"
    assert dataclasses.is_dataclass(open_source(PAIRS))
