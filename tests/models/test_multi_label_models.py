"""A model that answers any number of classes: sigmoids, its file, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import gapstone as gs
from gapstone.models.class_probabilities import answered, probabilities
from gapstone.models.classifier import Classifier, ModelFileError, load
from tests.models.test_classifier import LABELS, description, preprocessing


def several(head: str = "gap") -> Classifier:
    torch.manual_seed(0)
    return Classifier("nin", head, LABELS, preprocessing(), multi_label=True)


def about(path: Path) -> dict[str, object]:
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["gapstone"])


def test_each_class_has_a_probability_of_its_own():
    model, images = several().eval(), np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    with torch.inference_mode():
        logits = model(model.tensor([*images]))
    assert torch.equal(model.predict([*images]), torch.sigmoid(logits))
    assert torch.equal(model.predict([*images], native=True).gt(0.5), logits.gt(0))


def test_a_file_says_so_in_a_schema_that_gapstone_without_it_refuses(tmp_path: Path):
    model = several()
    path = model.save(tmp_path / "m.safetensors")
    copy = load(path)
    assert copy.multi_label
    assert copy.save(tmp_path / "n").read_bytes() == path.read_bytes()
    assert {key: about(path)[key] for key in ("schema", "multi_label")} == {"schema": 2, "multi_label": True}
    one = Classifier("nin", "gap", LABELS, preprocessing()).save(tmp_path / "one")
    assert about(one)["schema"] == 1
    assert "multi_label" not in about(one)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "its multi_label is missing, and schema 2 is of any number of classes for each image"),
        ({"schema": 2, "multi_label": 1}, "its multi_label is int '1'"),
        ({"schema": 1, "multi_label": True}, "schema 1 is of one class for each image"),
    ],
)
def test_a_file_that_contradicts_itself(changes: dict[str, object], reason: str, tmp_path: Path):
    weights = several().state_dict()
    safetensors.torch.save_file(weights, tmp_path / "m", {"gapstone": json.dumps(description(**changes))})
    with pytest.raises(ModelFileError, match=reason):
        load(tmp_path / "m")


def test_a_head_whose_logits_are_never_negative_is_refused():
    with pytest.raises(ValueError, match=r"head 'nin' rectifies .* no class would have a probability below 0\.5"):
        several("nin")


def test_another_head_on_it_answers_as_many_classes():
    model = several()
    assert gs.swap_head(model, "gmp", images=torch.rand(1, 1, 16, 16)).multi_label
    with pytest.raises(ValueError, match="head 'nin' rectifies"):
        gs.swap_head(model, "nin", images=torch.rand(1, 1, 16, 16))


def test_which_classes_are_answered():
    assert answered([0.2, 0.5, 0.3]) == [1]
    assert answered([0.49, 0.2, 0.3], multi_label=True) == []
    assert answered([0.5, 0.2, 0.9], multi_label=True) == [2, 0]
    logits = torch.tensor([[0.0, 2.0, -3.0]])
    assert torch.equal(probabilities(logits, multi_label=True), 1 / (1 + torch.exp(-logits)))
    assert float(probabilities(logits).sum()) == pytest.approx(1)
