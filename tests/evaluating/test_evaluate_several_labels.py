"""`gapstone evaluate` on images of several labels: numbers against scikit-learn, what is told, and what is refused."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn import metrics as oracle

import gapstone as gs
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.evaluating import gather_evaluation
from gapstone.evaluating.evaluate import evaluate
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.evaluating.measured import Answered
from gapstone.evaluating.multi_label_answers import remarks_on, shown_classes, without_any
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.trained_on import NOTHING
from tests.schemas import check_refuses_damage

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def data(folder):
    """120 noisy pictures with a square of each colour of their labels; the last 60 are tested."""
    random = np.random.default_rng(0)
    labels = random.random((120, 3)) < [0.5, 0.3, 0.4]
    images = random.integers(0, 160, (120, 16, 16, 3)).astype(np.uint8)
    for image, of in zip(images, labels, strict=True):
        for k in np.flatnonzero(of):
            image[5 * k : 5 * k + 5, 4:10, k] = random.integers(150, 256)
    path = folder / "data.npz"
    split = np.where(np.arange(120) < 60, "train", "test")
    np.savez(path, images=images, labels=labels, classes=np.array(CLASSES), split=split)
    return path


def classifier(labels, multi_label=True):
    torch.manual_seed(0)
    how = Preprocessing(3, (16, 16), (16, 16), (0.4,) * 3, (0.2,) * 3)
    return gs.Classifier("nin", "gap", labels, how, multi_label=multi_label).eval()


@pytest.fixture(scope="module")
def models(folder, data):
    """Of classes in another order than DATA's; the second knows one more, and is worse."""
    base = classifier(("blue", "red", "green"))
    arrays = np.load(data)
    images = base.preprocessing.normalise(torch.from_numpy(arrays["images"][:60]))
    good = gs.fit_head(base, (images, torch.from_numpy(arrays["labels"][:60][:, [2, 0, 1]])))
    good.trained_on = NOTHING.union(scan(open_source(str(data))).content_hashes()[:60])
    bad = classifier(("pink", "blue", "red", "green"))
    bad.features.load_state_dict(good.features.state_dict())
    with torch.no_grad():
        (ours,), (theirs,) = ([m for m in one.head.modules() if isinstance(m, torch.nn.Linear)] for one in (bad, good))
        ours.weight.copy_(torch.cat([theirs.weight[:1], theirs.weight[:2], 0.2 * theirs.weight[2:]]))
        ours.bias.copy_(torch.cat([theirs.bias[:1], theirs.bias[:2], theirs.bias[2:] + 1]))
    return str(good.save(folder / "good.safetensors")), str(bad.save(folder / "bad.safetensors"))


@pytest.fixture(scope="module")
def evaluated(models, data, folder):
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather_evaluation, "LONGEST", 0.1)
        request = EvaluateRequest(tuple(reversed(models)), str(data))
        return evaluate(request, folder / "out", Console(file=text, width=150)), text.getvalue()


def test_numbers_are_those_of_scikit_learn(evaluated, models, data, folder):
    results, _ = evaluated
    arrays = np.load(data)
    images, labels = arrays["images"][60:], arrays["labels"][60:]
    for name, found in zip(reversed(models), results["models"], strict=True):
        model = gs.load(name)
        p = model.predict(list(images)).numpy()[:, [model.labels.index(c) for c in CLASSES]]
        said = p >= 0.5
        expected = {
            "average_precision": oracle.average_precision_score(labels, p),
            "auroc": oracle.roc_auc_score(labels, p),
            "macro_f1": oracle.f1_score(labels, said, average="macro"),
            "micro_f1": oracle.f1_score(labels, said, average="micro"),
            "accuracy": oracle.accuracy_score(labels, said),
            "nll": np.mean([oracle.log_loss(labels[:, k], p[:, k]) for k in range(3)]),
            "brier": ((p - labels) ** 2).mean(),
        }
        for key, value in expected.items():
            assert found["metrics"][key]["mean"] == pytest.approx(value, abs=1e-5), key
            low, high = found["metrics"][key]["ci95"]
            assert low < value < high
        for k, entry in enumerate(found["by_class"]):
            assert (entry["class"], entry["images"]) == (CLASSES[k], labels[:, k].sum())
            matrix = oracle.confusion_matrix(labels[:, k], said[:, k])
            assert [entry["false"], entry["missed"], entry["found"]] == [matrix[0, 1], matrix[1, 0], matrix[1, 1]]
            assert entry["precision"]["mean"] == pytest.approx(oracle.precision_score(labels[:, k], said[:, k]))
            assert entry["recall"]["mean"] == pytest.approx(oracle.recall_score(labels[:, k], said[:, k]))
            assert entry["auroc"]["mean"] == pytest.approx(oracle.roc_auc_score(labels[:, k], p[:, k]))
            low, high = entry["average_precision"]["ci95"]
            assert low < oracle.average_precision_score(labels[:, k], p[:, k]) < high
        assert found["recall"] is found["confusion"] is found["other_classes"] is None
    with np.load(folder / "out/predictions.npz") as file:
        assert np.array_equal(file["labels"], labels)
        assert file["classes_0"].tolist() == list(CLASSES)
        assert np.allclose(np.exp(file["log_probabilities_1"])[:, 2], gs.load(models[0]).predict(list(images))[:, 0])


def test_the_pair_is_compared_by_mean_average_precision(evaluated):
    results, text = evaluated
    (pair,) = results["pairs"]
    assert (pair["a"], pair["b"], pair["metric"]) == ("good.safetensors", "bad.safetensors", "average_precision")
    means = [entry["metrics"]["average_precision"]["mean"] for entry in results["models"]]
    assert pair["difference"] == pytest.approx(means[1] - means[0])
    right = [entry["metrics"]["accuracy"]["mean"] * 60 for entry in results["models"]]
    assert pair["won"] - pair["lost"] == round(right[1] - right[0])
    assert "mean average precision" in text
    assert "Several labels per image (labels of shape (120, 3))" in text
    assert any("knows 4 classes, 3 of which DATA has" in remark for remark in results["remarks"])
    assert len(results["shift_pairs"]) == 1
    assert results["models"][0]["shift"]["balanced_accuracy"][0] == pytest.approx(
        results["models"][0]["metrics"]["balanced_accuracy"]["mean"]
    )


def test_files_and_page(evaluated, folder):
    results, _ = evaluated
    check_refuses_damage("evaluated", json.loads((folder / "out/evaluated.json").read_text()))
    with (folder / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"image", "label", "model", "prediction", "correct"}
    assert all((row["label"] == row["prediction"]) == (row["correct"] == "1") for row in rows)
    assert any("|" in row["label"] for row in rows)
    page = (folder / "out/report.html").read_text()
    assert 'aria-label="How often each of 3 classes is found, missed and answered falsely"' in page
    assert "Balanced accuracy when the image is shifted" in page
    assert "(missed)</span>" in page
    worst = results["worst"][0]
    assert sorted(worst["answers"][0]) == ["false", "missed", "model", "nll", "predictions", "right"]
    assert {*worst["answers"][0]["missed"], *worst["answers"][0]["false"]} == set(worst["labels"]) ^ set(
        worst["answers"][0]["predictions"]
    )


def test_models_and_data_of_different_forms_are_refused(models, data, folder):
    one = str(classifier(CLASSES, multi_label=False).save(folder / "one.safetensors"))
    with pytest.raises(ValueError, match=r"several labels per image, and one.safetensors answers one class for each"):
        evaluate(EvaluateRequest((one,), str(data)), folder / "refused")
    with pytest.raises(ValueError, match=r"good.safetensors answers any number .* one.safetensors one: they cannot be"):
        evaluate(EvaluateRequest((models[0], one), str(data)), folder / "refused")
    with pytest.raises(ValueError, match=r"answers several\), and DATA 'digits' \(digits\) has one for each"):
        evaluate(EvaluateRequest((models[0],), "digits"), folder / "refused")
    with pytest.raises(ValueError, match="--metric top2 is for images of one class each"):
        evaluate(EvaluateRequest((models[0],), str(data), metric="top2", quick=True), folder / "refused")


def answered(logits, labels):
    return Answered("m", np.array(labels, bool), np.array(logits, np.float32), np.arange(len(logits[0])))


def test_maps_are_of_mistakes_first():
    one = answered([[3.0, -1.0, 2.0, -4.0, 1.0, -2.0]], [[1, 1, 0, 1, 0, 0]])
    assert shown_classes(one, 0, 4) == [(3, "missed"), (2, "false"), (1, "missed"), (4, "false")]
    assert shown_classes(one, 0, 9) == [(3, "missed"), (2, "false"), (1, "missed"), (4, "false"), (0, "found")]


def test_remarks_on_models_that_have_learned_nothing():
    one = answered([[-1.0, -1.0]] * 4, [[1, 0], [0, 1], [0, 0], [1, 1]])
    entry = {"name": "m", "metrics": {"average_precision": {"mean": 0.5}}}
    assert remarks_on(entry, one, ("a", "b"), 2) == [
        "m answers every image alike, with no class.",
        "m is no better than guessing: 50.0 % mean average precision, guessing has 50.0 %.",
    ]
    assert without_any(one.labels) == ["1 of 4 test images has no label: no class should be answered there."]
