"""`gapstone convert` with several labels per image: the kind of the new model, and accuracy of whole sets of labels."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

import gapstone as gs
from gapstone.converting.conversion import ConvertRequest, document
from gapstone.converting.convert import convert
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.split import split
from gapstone.images.preprocessing import Preprocessing
from tests.schemas import check_refuses_damage

CLASSES = ("left", "right", "both ends")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of which any corners are bright."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "corners.npz"
    labels = random.random((240, 3)) < 0.4
    images = random.integers(0, 100, (240, 16, 16), np.uint8)
    for k, (row, column) in enumerate([(0, 0), (0, 10), (10, 0)]):
        images[labels[:, k], row : row + 6, column : column + 6] += 120
    np.savez(path, images=images, labels=labels, classes=np.array(CLASSES))
    return path


def model(path, labels=CLASSES, multi_label=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = gs.Classifier(
            "nin", "gap", labels, Preprocessing(1, (16, 16), (16, 16), (0.3,), (0.3,)), multi_label=multi_label
        )
        made.train()
        with torch.no_grad():
            for _ in range(10):
                made(torch.randn(64, 1, 16, 16))
    return made.eval().save(path)


def quietly(old, data, out, **options):
    text = io.StringIO()
    return convert(
        ConvertRequest(str(old), "fc", str(data), out, **options), False, Console(file=text, width=200)
    ), text


def test_all_labels_right_before_and_after(data, tmp_path):
    turned = (CLASSES[2], *CLASSES[:2])
    old = model(tmp_path / "old.safetensors", turned)  # labels are matched by name
    done, text = quietly(old, data, tmp_path / "new.safetensors")
    new = gs.load(tmp_path / "new.safetensors")
    assert new.multi_label
    assert new.labels == turned
    check_refuses_damage("convert", document(done, new))
    assert document(done, new)["multi_label"] is True
    source = open_source(str(data))
    test = split(source, scan(source), seed=0).test
    for one, right in ((new, done.correct.mean()), (gs.load(old), done.paired.before)):
        answers = one.predict([source.pixels(int(row)) for row in test]).numpy() >= 0.5
        assert (answers == source.labels[test][:, [2, 0, 1]]).all(1).mean() == pytest.approx(right)
    assert done.correct.mean() > 0.8 > done.paired.before
    assert "all labels right, " in text.getvalue()


def test_a_model_of_one_class_becomes_what_data_is(data, tmp_path):
    old = model(tmp_path / "old.safetensors", multi_label=False)
    done, text = quietly(old, data, tmp_path / "new.safetensors", method="ridge")
    assert gs.load(tmp_path / "new.safetensors").multi_label
    assert done.paired is None
    assert "The model answers one class for each image, and DATA has any number of classes" in text.getvalue()
    with pytest.raises(ValueError, match="--method distil keeps what the model answers, which is one class"):
        quietly(old, data, tmp_path / "new.safetensors", method="distil")


def test_groups_stay_together_and_are_what_counts(data, tmp_path):
    with np.load(data) as arrays:
        np.savez(tmp_path / "grouped.npz", **arrays, patient=np.arange(240) // 4)
    old = model(tmp_path / "old.safetensors")
    done, text = quietly(old, tmp_path / "grouped.npz", tmp_path / "new.safetensors", group="patient")
    tested = done.split.test
    groups = len(np.unique(tested // 4)) if len(tested) % 4 == 0 else 0
    assert done.paired.groups == len(tested) // 4 == groups  # whole ones
    assert f"on {len(tested)} test images of {groups} groups" in text.getvalue()
    assert "60 groups by --group patient" in text.getvalue()
    new = gs.load(tmp_path / "new.safetensors")
    paired = check_refuses_damage("convert", document(done, new)) or document(done, new)["paired"]
    assert paired["groups"] == groups
    low, high = paired["interval95"]
    assert low < paired["difference"] < high
