"""`--sample-weight`: how much each image counts in training, from any table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gapstone as gs
from gapstone.data.open_source import open_source
from gapstone.data.sources import DataError
from gapstone.images.preprocessing import Preprocessing
from gapstone.training.balance import drawn_by_weight
from gapstone.training.train_options import TrainOptions
from gapstone.training.training_data import plan_training

Make = Callable[..., Path]
WEIGHTS = [1.0, 0.5, 2.0, 0.0]


@pytest.fixture
def table(class_folder: Make, tmp_path: Path) -> pd.DataFrame:
    class_folder({"a": 4})
    paths = [tmp_path / f"data/a/{n}.png" for n in range(4)]
    return pd.DataFrame({"path": paths, "label": list("xyxy"), "Weight": WEIGHTS, "patient": [1, 1, 2, 2]})


def test_from_tables_and_arrays(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "t.csv", index=False)
    images, labels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4), [0, 1, 0, 1]
    np.savez(tmp_path / "d.npz", images=images, labels=labels, weight=WEIGHTS)
    arrays = {"images": images, "labels": labels, "weight": np.array(WEIGHTS, np.float32)}
    for data in (table, tmp_path / "t.csv", tmp_path / "d.npz", arrays):
        source = open_source(data, sample_weight="weight")
        assert source.weights is not None
        assert source.weights.tolist() == WEIGHTS
        assert not any("weight" in note for note in source.notes)
    both = open_source(table, group="patient", sample_weight=" WEIGHT ")
    assert both.weights is not None
    assert both.grouping is not None
    assert both.grouping.described == "2 groups by --group patient, of 2 images"


def test_a_saved_dataset_and_shards(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    import io
    import json
    import tarfile

    from PIL import Image

    images = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in range(4)]
    datasets.Dataset.from_dict({"image": images, "label": ["x", "y"] * 2, "weight": WEIGHTS}).save_to_disk(
        tmp_path / "hf"
    )
    with tarfile.open(tmp_path / "train-000000.tar", "w") as shard:
        for k, image in enumerate(images):
            png = io.BytesIO()
            image.save(png, "PNG")
            fields = {"label": "xy"[k % 2], "weight": WEIGHTS[k]}
            for name, content in ((f"{k}.png", png.getvalue()), (f"{k}.json", json.dumps(fields).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    for data in (tmp_path / "hf", tmp_path / "train-000000.tar"):
        source = open_source(data, sample_weight="weight")
        assert source.weights is not None
        assert source.weights.tolist() == WEIGHTS


def test_without_the_option_it_is_named(table: pd.DataFrame) -> None:
    source = open_source(table)
    assert source.weights is None
    assert any("'weight' is not read" in note and "--sample-weight weight would" in note for note in source.notes)


def test_equal_weights_change_nothing(table: pd.DataFrame) -> None:
    source = open_source(table.assign(Weight=3), sample_weight="weight")
    assert source.weights is None
    assert "--sample-weight weight: all weights are 3, so they change nothing" in source.notes


@pytest.mark.parametrize(
    ("change", "column", "says"),
    [
        ({}, "age", "--sample-weight age: DATA .* has no column 'age'; it has path, label, weight, patient"),
        ({"Weight": [1, -1, 1, 1]}, "weight", r"the weight of .*1.png is '-1'; expected a number, 0 or more"),
        ({"Weight": [1, 1, None, 1]}, "weight", r"the weight of .*2.png is ''; expected"),
        ({"Weight": ["1", "much", "1", "1"]}, "weight", r"is 'much'; expected"),
        ({"Weight": [1, np.inf, 1, 1]}, "weight", r"is 'inf'; expected"),
        ({"Weight": 0}, "weight", "all weights are 0: there is nothing to train on"),
    ],
)
def test_what_is_refused(table: pd.DataFrame, change: dict[str, Any], column: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(table.assign(**change), sample_weight=column)


def test_data_without_columns(class_folder: Make) -> None:
    root = class_folder({"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"--sample-weight w: DATA .* is no table and has no columns"):
        open_source(root, sample_weight="w")
    arrays = {"images": np.zeros((4, 4, 4), np.uint8), "labels": [0, 1] * 2, "w": np.zeros((4, 2))}
    with pytest.raises(DataError, match=r"--sample-weight w: .* has float64 of shape \(4, 2\) there"):
        open_source(arrays, sample_weight="w")


def test_how_often_each_is_drawn() -> None:
    rows, weights = np.arange(100, 140), np.random.default_rng(0).random(40) * 3
    weights[5] = weights[39] = 0
    share = weights / weights.sum() * 40
    random = np.random.default_rng(1)
    counts = np.stack([np.bincount(drawn_by_weight(rows, weights, random) - 100, minlength=40) for _ in range(3000)])
    assert (counts.sum(1) == 40).all()
    assert (np.abs(counts - share) < 1).all()
    assert counts[:, [5, 39]].max() == 0
    assert np.abs(counts.mean(0) - share).max() < 0.05


def test_a_class_without_weight() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    data = {"images": images, "labels": np.arange(40) % 2, "w": 1 - np.arange(40) % 2}
    with pytest.raises(DataError, match="--sample-weight w: all training images of '1' have the weight 0"):
        plan_training(TrainOptions(data, sample_weight="w"), [0], None, print, lambda what: lambda done, total: None)
    with pytest.raises(ValueError, match="--sample-weight w and --balance loss both say what images count for"):
        TrainOptions(data, sample_weight="w", balance="loss")


@pytest.mark.parametrize(
    "freeze", [pytest.param(False, marks=pytest.mark.slow, id="whole"), pytest.param(True, id="frozen")]
)
def test_what_images_of_weight_0_are_called_does_not_matter(freeze: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (200, 8, 8), np.uint8)
    truth = np.arange(200) % 2
    images[truth == 1] += 120
    split = np.where(np.arange(200) % 4 == 3, "test", np.where(np.arange(200) % 4 == 2, "val", "train"))
    none = (split == "train") & (random.random(200) < 0.7)
    data = {"images": images, "labels": truth, "split": split, "w": np.where(none, 0.0, 2.0)}
    options: dict[str, Any] = {"heads": ["gap"], "seeds": 1, "epochs": 3, "quick": True, "keep": "none", "workers": 1}
    options |= {"backbone": "nin", "progress": False} | ({"freeze": True} if freeze else {})
    if freeze:
        seen = Preprocessing(1, (8, 8), (8, 8), (0.5,), (0.25,))
        options["weights"] = gs.Classifier("nin", "gap", ("0", "1"), seen).save(tmp_path / "w.safetensors")
    trained: list[object] = []
    weighed = gs.compare(data, **options, sample_weight="w", out=tmp_path / "w", on_trial=trained.append)
    assert weighed.results["settings"]["sample_weight"] == "w"
    wrong = data | {"labels": np.where(none, 1 - truth, truth)}
    predictions = weighed.predictions()
    again = gs.compare(wrong, **options, sample_weight="w", out=tmp_path / "again")
    assert again.predictions().equals(predictions)
    assert not gs.compare(wrong, **options, out=tmp_path / "wrong").predictions().equals(predictions)
    gs.compare(data, **options, out=tmp_path / "w", on_trial=trained.append)
    with pytest.raises(ValueError, match="holds another comparison by now"):
        weighed.predictions()
    assert len(trained) == 2  # other weights are other trials
    gs.compare(data, **options, sample_weight="w", out=tmp_path / "w", on_trial=trained.append)
    assert len(trained) == 2
