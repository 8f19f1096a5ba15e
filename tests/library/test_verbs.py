"""`gs.train`, `gs.evaluate`, `gs.predict`, `gs.check`: what they return is what the commands write."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_expit
from torch import nn

import gapstone as gs
from gapstone.evaluating import gather_evaluation
from gapstone.images.intensity_range import Ranges
from gapstone.images.preprocessing import Preprocessing
from gapstone.library.prediction_frame import evaluated_frame
from gapstone.models.model_file import ModelFileError
from tests.command_line import gapstone

CLASSES = ("red", "green", "blue")


class Mine(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.out = nn.Linear(channels, classes)

    def forward(self, maps):
        return self.out(maps.mean((2, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures whose class is their colour, as files and as arrays; one file is none."""
    folder, random = tmp_path_factory.mktemp("verbs"), np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 120, (60, 16, 16, 3)).astype(np.uint8)
    images[np.arange(60), :, :, labels] += 120
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "pictures" / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "pictures/red/none.png").write_text("no picture")
    (folder / "pictures/red/again.png").write_bytes((folder / "pictures/red/0.png").read_bytes())
    np.savez(folder / "data.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(gather_evaluation, "LONGEST", 0.1)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """A model, what was heard of its epochs, and how it was made."""
    heard, how = [], {"backbone": "nin", "epochs": 2, "batch_size": 16, "precision": "float32", "progress": False}
    model = gs.train(folder / "data.npz", out=folder / "mine.safetensors", report=folder / "tested",
                     on_epoch=heard.append, **how)  # fmt: skip
    return model, heard, how


def test_train_is_the_command(inside, trained, capsys):
    model, heard, _ = trained
    gapstone("train", "data.npz", "--backbone", "nin", "--epochs", "2", "--batch-size", "16", "--precision", "float32",
             "--out", "theirs.safetensors")  # fmt: skip
    theirs = gs.load("theirs.safetensors")
    for name, tensor in gs.load("mine.safetensors").state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
        assert torch.equal(tensor, model.state_dict()[name])
    assert [(one.epoch, one.epochs, one.head, one.seed) for one in heard] == [(1, 2, "gap", 0), (2, 2, "gap", 0)]
    assert all(one.train_loss > 0 for one in heard)


def test_its_report_opens(inside, trained):
    tested = gs.Evaluation.open("tested")
    assert tested.models[0].name == "mine.safetensors"
    assert tested.report().read_text().lower().startswith("<!doctype html>")
    assert len(tested.predictions()) == tested.results["data"]["images"]


def test_train_with_a_head_of_ones_own(inside, trained):
    model = gs.train("data.npz", {"mine": lambda channels, classes, size: Mine(channels, classes)}, **trained[2])
    assert isinstance(next(one for one in model.head.modules() if isinstance(one, Mine)), Mine)
    assert not (inside / "model.safetensors").exists()
    with pytest.raises(ValueError, match=r"head: 2 heads; gs\.train trains one"):
        gs.train("data.npz", {"a": Mine, "b": Mine})
    with pytest.raises(TypeError, match=r"give it one, \{'mine': Mine\}"):
        gs.train("data.npz", Mine(2, 3))


def test_an_error_in_on_epoch_ends_training(inside, trained):
    def stop(heard):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        gs.train("data.npz", out="never.safetensors", on_epoch=stop, **trained[2])
    assert not (inside / "never.safetensors").exists()


@pytest.fixture(scope="module")
def other(trained):
    """The same with another head's weights, in train mode."""
    model = trained[0]
    other = gs.Classifier("nin", "gmp", model.labels, model.preprocessing)
    other.features.load_state_dict(model.features.state_dict())
    return other.train()


@pytest.fixture
def found(inside, trained, other):
    return gs.evaluate({"ours": "mine.safetensors", "other": other}, "data.npz", out="evaluated", progress=False)


def test_evaluate_says_what_the_command_says(inside, found, other, trained):
    other.save("other.safetensors")
    told = gapstone("evaluate", "mine.safetensors", "other.safetensors", "data.npz", "--out", "told", "--json")
    results = json.loads(told.stdout)
    assert other.training  # as it was given
    for mine, theirs in zip(found.models, results["models"], strict=True):
        assert {name: one.mean for name, one in mine.metrics.items()} == {
            name: one["mean"] for name, one in theirs["metrics"].items()
        }
    assert found.pairs["other"].verdict == results["pairs"][0]["verdict"]
    assert found.pairs["other"].difference == pytest.approx(100 * results["pairs"][0]["difference"])
    assert found.results["data"]["left_out"]["trained_on"] == len(trained[0].trained_on.hashes)
    assert repr(found["ours"].accuracy) == found["ours"].accuracy.short()
    assert repr(found).splitlines()[0] == found.verdict
    assert found._repr_html_().count("<tr>") == 3


def test_frames(found):
    assert list(found.models.frame()["accuracy"]) == [one.accuracy.mean for one in found]
    assert list(found.pairs.frame()["verdict"]) == [found.pairs[0].verdict]
    answers = found.predictions()
    assert answers.groupby("model").correct.mean().to_dict() == {
        one.name: pytest.approx(one.accuracy.mean) for one in found
    }
    with_all = found.predictions("other", probabilities=True)
    np.testing.assert_allclose(with_all[[f"p({name})" for name in CLASSES]].sum(axis=1), 1, atol=1e-6)
    with pytest.raises(KeyError, match="there is no model 'none'; there are ours, other"):
        found.predictions("none")


def test_answers_of_classes_spelled_otherwise_and_of_several_labels(tmp_path):
    """What is right is what the evaluation calls right; a logit of 0 is answered, as everywhere."""
    images, path = np.array(["a", "b"]), tmp_path / "predictions.npz"
    logs = np.log(np.array([[0.9, 0.1], [0.8, 0.2]], np.float32))
    known = np.array(["tabby, tabby cat", "golden retriever"])
    np.savez(
        path, images=images, labels=np.array(["Golden_Retriever", "tabby"]), classes_0=known, log_probabilities_0=logs
    )
    frame = evaluated_frame(path, ["one"], ["tabby", "Golden_Retriever"], None, False)
    assert frame["correct"].tolist() == [False, True]
    assert frame["prediction"].tolist() == [known[0]] * 2
    several = np.array([[True, False], [True, True]])
    logs = log_expit(np.array([[0.0, -3.0], [2.0, -0.1]])).astype(np.float32)
    np.savez(path, images=images, labels=several, classes_0=np.array(["cat", "dog"]), log_probabilities_0=logs)
    frame = evaluated_frame(path, ["one"], ["cat", "dog"], "one", False)
    assert frame[["label", "prediction", "correct"]].values.tolist() == [
        ["cat", "cat", True],
        ["cat|dog", "cat", False],
    ]
    with pytest.raises(ValueError, match=r"it has no classes_1, log_probabilities_1\): the same evaluation again"):
        evaluated_frame(path, ["one", "two"], ["cat", "dog"], None, False)


def test_what_evaluate_refuses(inside, trained, other):
    with pytest.raises(TypeError, match="Linear has no labels and no preprocessing"):
        gs.evaluate(nn.Linear(2, 2), "data.npz", progress=False)
    with pytest.raises(ValueError, match=r"two are called 'gmp on nin': give them names"):
        gs.evaluate([other, other], "data.npz", progress=False)
    with pytest.raises(ValueError, match=r"head='gap' goes with the folder of a comparison"):
        gs.evaluate(other, "data.npz", head="gap", progress=False)
    with pytest.raises(ValueError, match=r"pictures holds no finished evaluation"):
        gs.Evaluation.open("pictures")
    (inside / "damaged").mkdir(exist_ok=True)
    (inside / "damaged/evaluated.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no seal: evaluate again"):
        gs.Evaluation.open("damaged")


def test_predict(inside, trained, other):
    images = np.load("data.npz")["images"]
    named = ["pictures/red/0.png", "pictures/red/none.png", images[1], Image.fromarray(images[2]), "none-*.png"]
    answers = gs.predict(other, named, progress=False)
    first, bad, second, third, missing = answers  # in the order in which they were given
    assert answers.names()[2:] == ["2", "3", "none-*.png"]
    assert answers["2"] is second
    assert (missing.error, bad.error) == ("no file matches it", "not an image: a text file")
    assert (bad.label, bad.labels, bad.probability, bad.probabilities) == (None, (), None, {})
    expected = other.predict(images[:3])
    for one, p in zip((first, second, third), expected, strict=True):
        assert one.label == other.labels[int(p.argmax())]
        assert list(one.probabilities.values()) == pytest.approx(p.tolist(), abs=1e-6)
    assert other.training
    twice = gs.predict(other, ["pictures/red/0.png", "pictures/green/1.png", "pictures/red/0.png"], progress=False)
    assert [one.name for one in twice] == [f"pictures/{name}.png" for name in ("red/0", "green/1", "red/0")]
    assert len(twice.frame()) == 3
    assert list(gs.predict(other, "pictures/red/0.png", progress=False).frame()["prediction"]) == [first.label]
    told = json.loads(gapstone("predict", "mine.safetensors", "pictures/blue", "--json").stdout)
    assert [dict(one.facts) for one in gs.predict("mine.safetensors", "pictures/blue", progress=False)] == told[
        "images"
    ]


@pytest.mark.parametrize(
    ("images", "count"),
    [
        (np.zeros((16, 16, 3), np.uint8), 1),
        (np.zeros((3, 16, 16), np.uint8), 3),  # gray ones, as in DATA
        (torch.zeros(3, 16, 16), 1),
        (torch.zeros(5, 3, 16, 16), 5),
        (np.zeros((2, 16, 16, 3), np.uint8), 2),
        (np.zeros((16, 16), np.uint8), 1),
    ],
    ids=lambda value: str(tuple(getattr(value, "shape", ()))),
)
def test_one_image_or_several(other, images, count):
    assert len(gs.predict(other, images, progress=False)) == count


def test_predict_of_other_channels():
    """Five channels of 12 bits: as the model alone answers; a file has others."""
    ranges = Ranges(((0.0, 4095.0),) * 5)
    seen = Preprocessing(5, (16, 16), (16, 16), (0.5,) * 5, (0.25,) * 5, ranges=ranges)
    model = gs.Classifier("nin", "gap", CLASSES, seen).eval()
    images = np.random.default_rng(0).integers(0, 4096, (4, 16, 16, 5)).astype(np.uint16)
    expected = model.predict(images)
    for given in (images, list(images), torch.from_numpy(images.astype(np.int32)).permute(0, 3, 1, 2)):
        found = gs.predict(model, given, progress=False)
        assert [list(one.probabilities.values()) for one in found] == [pytest.approx(p.tolist()) for p in expected]
    assert len(gs.predict(model, images[0], progress=False)) == 1
    with pytest.raises(ValueError, match=r"image 0 is uint16 of shape \(16, 16, 4\); expected .* of 5 channels"):
        gs.predict(model, images[:1, ..., :4], progress=False)


def test_what_predict_refuses(inside, other):
    for images in ([], "photos-of-none/"):
        if images:
            (inside / images).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="there is no image among them"):
            gs.predict(other, images, progress=False)
    with pytest.raises(ValueError, match=r"image 1 is uint8 of shape \(4, 4, 7\)"):
        gs.predict(other, [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 7), np.uint8)], progress=False)
    with pytest.raises(ModelFileError, match=r"nothing\.safetensors: there is no such file"):
        gs.predict("nothing.safetensors", "pictures", progress=False)


def test_check(inside, capsys):
    found = gs.check("pictures", progress=False)
    assert capsys.readouterr().out == ""
    assert found.counts == {"blue": 20, "green": 20, "red": 21}
    assert found.unreadable == {"red/none.png": "not an image: a text file"}
    assert found.duplicates == [["red/0.png", "red/again.png"]]
    assert (found.refused, found.conflicts, found.left_out) == (None, [], ["red/none.png"])
    assert found.frame().groupby("outcome").size().to_dict() == {"unreadable": 1, "used": 61}
    assert found.out.name == "check-pictures"
    assert repr(found).startswith("pictures: 62 images of 3 classes\n1 group of exact duplicates\n1 image cannot be")
    arrays = gs.check((np.load("data.npz")["images"][:3], [0, 1, 2]), progress=False)
    assert arrays.refused is not None
