"""`gs.compare` of DATA that is an object of Python, and of the same images as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import gapstone as gs
from tests.own_code import DropoutNet, Shifted

OPTIONS: dict[str, Any] = {"heads": ["gap"], "seeds": 1, "epochs": 1, "quick": True, "keep": "none", "progress": False}


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of each of ten classes the first images, in the order that a folder of them has."""
    images, labels = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(labels == k)[:10] for k in range(10)])
    return np.rint(images[rows].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels[rows]


def test_the_same_images_in_any_form_give_the_same_numbers(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path
) -> None:
    images, labels = digits
    split = np.where(np.arange(100) % 5 == 4, "test", "train")
    rows = []
    for k in range(100):
        path = tmp_path / "data" / split[k] / str(labels[k]) / f"{k:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[k]).save(path)
        rows.append({"path": path, "label": labels[k], "split": split[k]})
    pairs = [(Image.fromarray(image), int(label)) for image, label in zip(images, labels, strict=True)]
    order = np.argsort(split == "train", kind="stable")  # a folder's: test before train
    forms: dict[str, Any] = {
        "folder": tmp_path / "data",
        "frame": pd.DataFrame([rows[k] for k in order]),
        "arrays": {"images": images[order], "labels": labels[order], "split": split[order]},
        "dataset": {part: [pairs[k] for k in np.flatnonzero(split == part)] for part in ("train", "test")},
    }
    found = {form: gs.compare(data, **OPTIONS, out=tmp_path / form).results for form, data in forms.items()}
    assert {form: results["data"]["kind"] for form, results in found.items()} == {
        "folder": "split folder", "frame": "frame", "arrays": "arrays", "dataset": "dataset"
    }  # fmt: skip
    metrics = [results["heads"][0]["metrics"] for results in found.values()]
    assert metrics[1:] == metrics[:1] * 3
    # again: nothing is trained, unless an image is another
    trained: list[object] = []
    gs.compare(forms["arrays"], **OPTIONS, out=tmp_path / "arrays", on_trial=trained.append)
    assert not trained
    images[order[0], 0, 0] += 1
    edited = forms["arrays"] | {"images": images[order]}
    gs.compare(edited, **OPTIONS, out=tmp_path / "arrays", on_trial=trained.append)
    assert len(trained) == 1


def test_a_datasets_own_transforms(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path) -> None:
    plain = Shifted(*digits, most=0)
    options = OPTIONS | {"backbone": DropoutNet, "limit": 60, "workers": 1}
    trained: list[object] = []
    still = gs.compare(plain, **options, augmented=plain, out=tmp_path / "still").results
    none = gs.compare(digits, **options, augment="none", out=tmp_path / "none").results
    # transforms that change nothing are no augmentation, to the last bit
    assert still["heads"][0]["metrics"] == none["heads"][0]["metrics"]
    assert still["settings"]["augment"] == "random transforms of the user's own, drawn anew in each epoch"
    moved = Shifted(*digits, most=2)
    first = gs.compare(plain, **options, augmented=moved, out=tmp_path / "moved", on_trial=trained.append).results
    assert len(trained) == 1
    assert first["heads"][0]["metrics"] != none["heads"][0]["metrics"]
    gs.compare(plain, **options, augmented=moved, out=tmp_path / "moved", on_trial=trained.append)
    assert len(trained) == 1
    again = gs.compare(plain, **options, augmented=moved, out=tmp_path / "again").results
    assert again["heads"][0]["metrics"] == first["heads"][0]["metrics"]
    with pytest.raises(ValueError, match=r"is frozen here: it sees each image once, as it is\. Train it \(finetune, "):
        gs.compare(plain, **options | {"backbone": DropoutNet()}, augmented=moved, freeze=True, out=tmp_path / "frozen")


def test_gs_train_draws_from_augmented(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path) -> None:
    plain, moved = Shifted(*digits, most=0), Shifted(*digits, most=2)
    options: dict[str, Any] = {"backbone": DropoutNet, "limit": 60, "epochs": 1, "progress": False}
    none = gs.train(plain, **options, augment="none", out=tmp_path / "none.safetensors")
    still = gs.train(plain, **options, augmented=plain, out=tmp_path / "still.safetensors")
    drawn = gs.train(plain, **options, augmented=moved, out=tmp_path / "moved.safetensors")
    weights = [model.head.state_dict()["classifier.0.weight"] for model in (none, still, drawn)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
