"""predict and explain of a model that answers any number of classes."""

import json
import re

import pytest
import torch

import gapstone as gs
from gapstone.drawing.captions import caption
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.explaining.predict_files import predict_files
from gapstone.maps.map_files import load_npz
from gapstone.maps.open_model import open_model
from tests.explaining.tiny import LABELS
from tests.models.test_classifier import preprocessing
from tests.schemas import check_refuses_damage


def several(path, biases):
    """A network whose logits are near these numbers, whatever the picture."""
    torch.manual_seed(0)
    model = gs.Classifier("nin", "gap", LABELS, preprocessing(32, 3), multi_label=True)
    model.head.classifier[-1].bias.data.copy_(torch.tensor(biases))
    return model.save(path)


@pytest.fixture
def two(tmp_path):
    return several(tmp_path / "two.safetensors", [2.0, 3.0, -3.0, -4.0])


@pytest.fixture
def none(tmp_path):
    return several(tmp_path / "none.safetensors", [-2.0, -3.0, -3.0, -4.0])


def explained(model, pictures, out, **options):
    options = {"html": True, "drawings": False} | options
    assert explain_files(ExplainRequest(str(model), (str(pictures),), **options), out)
    return json.loads((out / "explained.json").read_text())


def test_predict_lists_all_of_half_or_more(two, none, pictures, capsys):
    for model, names in ((two, ["dog", "cat"]), (none, [])):
        assert predict_files(str(model), [str(pictures)], True, 3, "cpu")
        document = json.loads(capsys.readouterr().out)
        check_refuses_damage("predict", document)
        assert document["multi_label"] is True
        expected = gs.load(model).predict(sorted(pictures.iterdir()))
        for row, probabilities in zip(document["images"], expected, strict=True):
            assert row["labels"] == names
            assert list(row["probabilities"].values()) == pytest.approx(probabilities.tolist(), rel=1e-5)
        assert predict_files(str(model), [str(pictures)], False, 3, "cpu")
        table = " ".join(capsys.readouterr().out.split())
        assert re.search(r"dog 9\d\.\d %, cat 8\d\.\d % \(tench" if names else r"none \(cat 1\d\.\d %, ", table)


def test_explain_shows_each_predicted_class_by_its_own_map(two, pictures, tmp_path):
    document = explained(two, pictures, tmp_path / "out")
    check_refuses_damage("explained", document)
    model = open_model(str(two))
    for row in document["pictures"]:
        assert (row["predictions"], row["labels"]) == ([1, 0], ["dog", "cat"])
        assert [entry["index"] for entry in row["classes"]] == [1, 0]
        assert row["reference"] is None
        kept = load_npz(tmp_path / "out" / row["npz"])
        assert [e.index for e in kept] == [1, 0]
        for e in kept:
            assert e.map.sum() + e.bias == pytest.approx(e.logit, abs=1e-4)
            assert e.probability == pytest.approx(1 / (1 + torch.exp(torch.tensor(-e.logit)).item()), rel=1e-4)
    assert "logit +" in caption(kept[0])[1][0].text
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Each class has a probability of its own; shown are those of 50 % or more" in page
    assert "softmax" not in page
    assert page.count('data-answer="dog, cat"') == len(document["pictures"])
    assert '<option value="cat">cat (5)</option>' in page
    assert model.multi_label


def test_a_picture_of_no_class_shows_the_most_probable_one(none, pictures, tmp_path):
    document = explained(none, pictures, tmp_path / "out")
    check_refuses_damage("explained", document)
    for row in document["pictures"]:
        assert (row["predictions"], row["labels"]) == ([], [])
        assert [entry["label"] for entry in row["classes"]] == ["cat"]
    assert 'data-answer="no class"' in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_options_of_classes(two, pictures, tmp_path):
    assert [c["index"] for c in explained(two, pictures, tmp_path / "a", top=1)["pictures"][0]["classes"]] == [1]
    row = explained(two, pictures, tmp_path / "b", classes="tench, Tinca tinca,cat")["pictures"][0]
    assert [c["index"] for c in row["classes"]] == [2, 0]
    assert row["predictions"] == [1, 0]
    row = explained(two, pictures, tmp_path / "c", all_classes=True)["pictures"][0]
    assert [c["index"] for c in row["classes"]] == [1, 0]
    assert len(load_npz(tmp_path / "c" / row["npz"])) == 4


def test_the_same_weights_under_a_softmax_are_another_model(two, pictures, tmp_path):
    one = gs.load(two)
    one.multi_label = False
    document = explained(one.save(tmp_path / "one.safetensors"), pictures, tmp_path / "out")
    assert document["pictures"][0]["reference"] is not None
    again = explained(two, pictures, tmp_path / "out")
    assert again["pictures"][0]["predictions"] == [1, 0]
