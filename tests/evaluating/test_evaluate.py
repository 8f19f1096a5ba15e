"""`gapstone evaluate`, from models and DATA to its page: what is tested, what is said, what is left out and refused."""

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
from gapstone.evaluating import evaluated_model, gather_evaluation
from gapstone.evaluating.evaluate import evaluate
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.trained_on import NOTHING
from gapstone.runtime.timing import Timed
from tests.command_line import gapstone
from tests.schemas import check, check_refuses_damage

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def data(folder):
    """90 noisy pictures whose class is the colour of a square; a third of them are the test images."""
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = random.integers(0, 200, (90, 16, 16, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:10, 4:10, label] = 255
    split = np.where(np.arange(90) < 60, "train", "test")
    path = folder / "data.npz"
    patient = np.array([f"p{n // 3 % 10}" for n in range(90)])
    np.savez(path, images=images, labels=labels, classes=np.array(CLASSES), split=split, patient=patient)
    return path


def classifier(labels):
    torch.manual_seed(0)
    return gs.Classifier("nin", "gap", labels, Preprocessing(3, (16, 16), (16, 16), (0.4,) * 3, (0.2,) * 3)).eval()


@pytest.fixture(scope="module")
def models(folder, data):
    """Of classes in another order than DATA's, as answers must be mapped by name; the bad one knows one more."""
    base = classifier(("blue", "red", "green"))
    images = base.preprocessing.normalise(torch.from_numpy(np.load(data)["images"][:60]))
    good = gs.fit_head(base, (images, torch.tensor([1, 2, 0] * 20)))
    good.trained_on = NOTHING.union(scan(open_source(str(data))).content_hashes()[:60])
    bad = classifier(("pink", "blue", "red", "green"))
    bad.features.load_state_dict(good.features.state_dict())
    with torch.no_grad():
        (ours,), (theirs,) = ([m for m in one.head.modules() if isinstance(m, torch.nn.Linear)] for one in (bad, good))
        ours.weight.copy_(torch.cat([1.001 * theirs.weight[1:2], theirs.weight]))  # much of what is red is pink to it
        ours.bias.copy_(torch.cat([theirs.bias[1:2], theirs.bias]))
    return str(good.save(folder / "good.safetensors")), str(bad.save(folder / "bad.safetensors"))


def asked(request, out, **more):
    text = io.StringIO()
    results = evaluate(request, out, Console(file=text, width=150), **more)
    return results, text.getvalue()


@pytest.fixture(scope="module")
def evaluated(models, data, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather_evaluation, "LONGEST", 0.1)
        return asked(EvaluateRequest(tuple(reversed(models)), str(data)), folder / "out")


def stored(folder):
    with np.load(folder / "out/predictions.npz") as arrays:
        return dict(arrays)


def macro(score, true, answer):
    return score(true, answer, labels=CLASSES, average="macro")


def test_its_numbers_are_those_of_scikit_learn(evaluated, folder, models):
    results, _ = evaluated
    arrays = stored(folder)
    assert arrays["models"].tolist() == ["bad.safetensors", "good.safetensors"]
    assert len(arrays["images"]) == results["data"]["images"] == 30
    for number, entry in enumerate(results["models"]):
        names, p = arrays[f"classes_{number}"], np.exp(arrays[f"log_probabilities_{number}"])
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
        answer = names[p.argmax(1)]
        found = entry["metrics"]
        assert found["accuracy"]["mean"] == pytest.approx(np.mean(answer == arrays["labels"]))
        assert found["balanced_accuracy"]["mean"] == pytest.approx(macro(oracle.recall_score, arrays["labels"], answer))
        assert found["macro_f1"]["mean"] == pytest.approx(macro(oracle.f1_score, arrays["labels"], answer))
        true = arrays[f"log_probabilities_{number}"][
            np.arange(30), [names.tolist().index(label) for label in arrays["labels"]]
        ]
        assert found["nll"]["mean"] == pytest.approx(-true.mean(), rel=1e-4)
        confusion = oracle.confusion_matrix(arrays["labels"], answer, labels=CLASSES)
        assert entry["confusion"] == confusion.tolist()
        assert entry["other_classes"] == [10 - row.sum() for row in confusion]
        low, high = found["accuracy"]["ci95"]
        assert low < found["accuracy"]["mean"] <= high


def test_each_image_is_answered_as_by_the_model_alone(evaluated, folder, models, data):
    arrays = stored(folder)
    images = np.load(data)["images"][60:]
    alone = gs.load(models[0]).predict(images)
    np.testing.assert_allclose(np.exp(arrays["log_probabilities_1"]), alone.numpy(), atol=1e-5)


def test_the_better_one_is_called_so(evaluated):
    results, text = evaluated
    (pair,) = results["pairs"]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("good.safetensors", "bad.safetensors", "better")
    assert results["verdict"].startswith("good.safetensors is better than bad.safetensors: +")
    assert results["verdict"] in text
    right = [np.array(m["metrics"]["accuracy"]["mean"]) for m in results["models"]]
    assert pair["difference"] == pytest.approx(right[1] - right[0])
    assert pair["won"] - pair["lost"] == round(30 * pair["difference"])
    assert any("these models as they are: other trainings" in remark for remark in results["remarks"])
    assert any("bad.safetensors knows 4 classes, 3 of which DATA has" in remark for remark in results["remarks"])
    assert any("Which images bad.safetensors was trained on is not known" in remark for remark in results["remarks"])
    assert not any("good.safetensors was trained on" in remark for remark in results["remarks"])


def test_the_document_has_its_schema(evaluated, folder):
    results, _ = evaluated
    check_refuses_damage("evaluated", json.loads((folder / "out/evaluated.json").read_text()))
    rows = list(csv.DictReader((folder / "out/predictions.csv").read_text("utf-8-sig").splitlines()))
    assert len(rows) == 60
    right = sum(row["correct"] == "1" for row in rows[30:])
    assert right == round(30 * results["models"][1]["metrics"]["accuracy"]["mean"])


def test_the_page_needs_nothing_else(evaluated, folder):
    page = (folder / "out/report.html").read_text()
    for text in (
        "<h1>good.safetensors is better",
        "Worst answers",
        "any other class",
        "Balanced accuracy",
        'class="confusion"',
    ):
        assert text in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert page.count('class="cam"') > 3  # where the models looked
    assert not (folder / "out/stores").exists()


def test_a_second_run_asks_no_model(evaluated, folder, models, data, monkeypatch):
    results, _ = evaluated

    def never(self, rows, change=None):
        raise AssertionError("asked again")

    monkeypatch.setattr(evaluated_model.EvaluatedModel, "logits", never)
    monkeypatch.setattr(evaluated_model.EvaluatedModel, "_answer", never)
    monkeypatch.setattr(gather_evaluation, "take_turns", timed)
    again, _ = asked(EvaluateRequest(tuple(reversed(models)), str(data)), folder / "out")
    for entry in (*again["models"], *results["models"]):
        entry.pop("ms_per_image")
    assert again["models"] == results["models"]
    assert again["pairs"] == results["pairs"]


def timed(calls, longest):
    return Timed({name: [0.1, 0.2] for name in calls}, None)


def test_images_a_model_was_trained_on_are_left_out(models, data, folder):
    results, _ = asked(EvaluateRequest((models[0],), str(data), part="all", quick=True), folder / "all")
    assert results["data"]["left_out"]["trained_on"] == 60
    assert results["data"]["images"] == 30
    assert "60 images left out, as good.safetensors was trained on them or on copies." in results["remarks"]
    with pytest.raises(ValueError, match=r"good\.safetensors was trained on 60 of 60 images, and 0 are left"):
        asked(EvaluateRequest((models[0],), str(data), part="train", quick=True), folder / "train")
    assert not (folder / "train").exists()


def test_the_same_model_twice_is_called_one(models, folder, data):
    copy = folder / "copy.safetensors"
    copy.write_bytes((folder / "good.safetensors").read_bytes())
    results, _ = asked(EvaluateRequest((models[0], str(copy)), str(data), quick=True), folder / "same")
    assert results["verdict"] == (
        "copy.safetensors and good.safetensors are one model: their probabilities are the same on all images."
    )
    assert results["pairs"][0]["same_answers"] == 30


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"part": "val"}, r"--split val: DATA gives train and test images\. Take --split test, or all"),
        ({"metric": "f1"}, "--metric 'f1': give one of accuracy"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"limit": 1}, "--limit 1"),
        ({"part": "dev"}, "--split dev: must be auto or train"),
        ({"models": ("{good}", "{good}")}, "is named twice"),
        ({"models": ()}, "no MODEL"),
        (
            {"models": ("timm:resnet18", "timm:resnet34"), "weights": "w.safetensors"},
            "--weights w.safetensors goes with one",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, words, models, data, folder):
    given = {"models": ("{good}",), **given}
    given["models"] = tuple(name.format(good=models[0]) for name in given["models"])
    with pytest.raises(ValueError, match=words):
        asked(EvaluateRequest(data=str(data), quick=True, **given), folder / "refused")
    assert not (folder / "refused").exists()


def test_other_classes_are_refused(models, folder):
    with pytest.raises(
        ValueError, match=r"good.safetensors does not know 10 classes of DATA: '0', '1'.*It has 3 classes: 'blue'"
    ):
        asked(EvaluateRequest((models[0],), "digits"), folder / "refused")


def test_a_foreign_folder_stays_as_it_is(models, data, folder):
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"'notes\.txt', which gapstone evaluate did not write"):
        asked(EvaluateRequest((models[0],), str(data)), foreign)
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]


def test_on_the_command_line(models, data, tmp_path):
    done = gapstone("evaluate", models[0], data, "--quick", "--json", "--metric", "nll", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["settings"]["metric"] == said["metrics"][0]["name"] == "nll"
    assert said["command"].startswith("gapstone evaluate ")
    assert (tmp_path / "runs/evaluate-data/report.html").exists()
    wrong = gapstone("evaluate", models[0], cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Missing argument" in wrong.stderr


def test_groups(models, data, folder):
    """Ten patients in the test images, of whom the good model was trained on other pictures: it knows them all."""
    apart, _ = asked(EvaluateRequest(tuple(models[1:]), str(data), quick=True), folder / "apart")
    named, said = asked(EvaluateRequest(tuple(models[1:]), str(data), quick=True, group="patient"), folder / "groups")
    assert apart["data"]["groups"] is None
    assert named["data"]["groups"] == {
        "by": "--group patient", "test": 10, "images": [3, 3.0, 3], "of_class": [10, 10, 10], "refused": None,
    }  # fmt: skip
    check_refuses_damage("evaluated", json.loads((folder / "groups/evaluated.json").read_text()))
    assert "for other groups (--group patient): the 30 test images are of 10 of them, 3 each." in said
    a, b = (one["models"][0]["metrics"]["accuracy"] for one in (apart, named))
    assert a["mean"] == b["mean"]
    assert a["ci95"] != b["ci95"]
    with pytest.raises(ValueError, match=r"good\.safetensors was trained on 30 of 30 images, and 0 are left"):
        asked(EvaluateRequest((models[0],), str(data), quick=True, group="patient"), folder / "known")


def test_too_few_groups_give_no_interval_and_no_verdict(models, data, folder):
    few = folder / "few.npz"
    with np.load(data) as arrays:
        test = {name: array[60:] for name, array in arrays.items() if name not in ("classes", "split")}
    patient = np.array([f"p{n // 3 % 3}" for n in range(30)])
    np.savez(few, **test | {"classes": np.array(CLASSES), "patient": patient})
    results, said = asked(EvaluateRequest(models, str(few), quick=True, group="patient"), folder / "refused groups")
    assert results["data"]["groups"]["refused"] in said
    assert results["pairs"][0]["verdict"] == "cannot tell"
    assert results["pairs"][0]["ci95"] is None
    assert {stat["ci95"] for stat in results["models"][0]["metrics"].values()} == {None}
    check("evaluated", json.loads((folder / "refused groups/evaluated.json").read_text()))
