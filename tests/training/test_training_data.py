"""The plan of a training, at its limits."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone import nets
from gapstone.images.preprocessing import Preprocessing, parse_size
from gapstone.training.rates_and_epochs import epochs_for, learning_rate_for
from gapstone.training.training_data import TrainOptions, pick_device, plan_training


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1},
        {"limit": 2, "batch_size": 2},
        {"learning_rate": 99.0, "weight_decay": 0.0},
        {"learning_rate": 1e-9, "weight_decay": 0.999},
        {"optimizer": "adamw", "augment": "none", "precision": "bfloat16", "duplicates": "drop"},
        {"duplicate_threshold": 0.8},
        {"duplicate_threshold": 1.0},
    ],
)
def test_choices_that_are_taken(given):
    assert TrainOptions("digits", **given).data == "digits"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"limit": 1}, "--limit"),
        ({"batch_size": 1}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": 100.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"weight_decay": 1.0}, "--weight-decay"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"optimizer": "adam"}, "--optimizer adam: must be sgd or adamw"),
        ({"augment": "all"}, "--augment"),
        ({"precision": "float16"}, "--precision"),
        ({"duplicates": "remove"}, "--duplicates"),
        ({"duplicate_threshold": 0.79}, "--duplicate-threshold"),
    ],
)
def test_choices_that_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        TrainOptions("digits", **given)


@pytest.mark.parametrize(
    ("images", "epochs"), [(0, 40), (1, 40), (1875, 40), (2000, 38), (7500, 10), (7000, 11), (10**6, 10)]
)
def test_epochs(images, epochs):
    assert epochs_for(images) == epochs


class Normed(nn.Module):
    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), *([norm] if norm else []))


@pytest.mark.parametrize(
    ("norm", "optimizer", "trained", "rate"),
    [
        (nn.BatchNorm2d(4), "sgd", False, 0.05),
        (nn.LayerNorm(4), "sgd", False, 0.05),
        (nn.GroupNorm(2, 4), "sgd", False, 0.05),
        (None, "sgd", False, 0.01),
        (nn.BatchNorm2d(4), "sgd", True, 0.01),
        (nn.BatchNorm2d(4), "adamw", False, 1e-3),
        (nn.BatchNorm2d(4), "adamw", True, 1e-4),
        (None, "adamw", False, 1e-4),
    ],
)
def test_learning_rates(norm, optimizer, trained, rate):
    assert learning_rate_for(Normed(norm), optimizer, trained) == rate


def test_devices():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="--device nowhere: torch cannot use it here"):
        pick_device("nowhere")


@pytest.fixture
def data(tmp_path):
    """Sixteen pictures in one file, which no process has to decode."""
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, images=random.integers(0, 256, (16, 20, 20, 3), np.uint8), labels=np.arange(16) % 2)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPSTONE_CACHE", str(tmp_path / "cache"))


def plan_for(data, weights=None, mode="auto", k=None, seeds=(0,), **given):
    silent = lambda *_: None  # noqa: E731
    return plan_training(TrainOptions(str(data), **given), seeds, k, silent, lambda _: silent, weights, mode)


def model(path, backbone="nin"):
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (24, 24), (24, 24), (0.4,) * 3, (0.2,) * 3)
    gs.Classifier(backbone, "gap", ("a", "b"), preprocessing).save(path)
    return path


def test_a_model_that_was_trained_is_trained_on_carefully(data, tmp_path):
    fresh = plan_for(data)
    assert fresh.settings.learning_rate == 0.05
    assert (fresh.from_model_file, fresh.weights_digest, fresh.moments) == (False, None, None)
    assert fresh.backbone == "nin"
    path = model(tmp_path / "m.safetensors")
    old = plan_for(data, weights=path)
    assert old.settings.learning_rate == 0.01
    assert old.from_model_file
    assert old.weights_digest is not None
    assert old.preprocessing.size == (24, 24)  # as it was trained
    assert old.moments == ((0.4,) * 3, (0.2,) * 3)
    other = plan_for(data, weights=path, size="16", learning_rate=0.3)
    assert (other.preprocessing.size, other.settings.learning_rate) == ((16, 16), 0.3)
    frozen = plan_for(data, weights=path, mode="freeze", epochs=7)
    assert frozen.settings.epochs == 7
    assert frozen.settings.augment.describe() == "none"


def test_what_is_decided_for_small_pictures(data):
    plan = plan_for(data, seeds=(0, 1), epochs=3)
    assert len(plan.splits) == 2
    assert np.array_equal(plan.splits[0].test, plan.splits[1].test)
    assert plan.settings.epochs == 3
    assert plan.settings.precision == "float32"
    assert plan.preprocessing.stored == plan.preprocessing.size == (20, 20)
    assert plan.settings.augment.describe() == "flips and shifts of up to 2 px"
    assert not plan.folds
    used = np.concatenate([plan.splits[0].train, plan.splits[0].validation, plan.splits[0].test])
    assert sorted(used.tolist()) == list(range(len(plan.used)))
    assert plan_for(data, k=2).folds


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pretrained": True, "backbone": "nin"}, "nin starts from random weights"),
        ({"backbone": "vgg11", "size": "31"}, "needs images of at least 32 px"),
        ({"backbone": "vgg11"}, "vgg11 needs images of at least 32 px a side, these are 20×20"),
        ({"backbone": "nothing"}, "nothing"),
        ({"size": "7"}, "size '7'"),
    ],
)
def test_what_does_not_fit_together(data, given, words):
    with pytest.raises(ValueError, match=words):
        plan_for(data, **given)


def test_a_network_of_one_size(data, monkeypatch):
    """It gets its own size; any other --size is refused."""
    build = nets.build

    def fixed(*given, **more):
        features = build(*given, **more)
        features.fixed = (24, 28)
        return features

    monkeypatch.setattr(nets, "build", fixed)
    assert plan_for(data, backbone="nin").preprocessing.size == (24, 28)
    assert plan_for(data, backbone="nin", size="24x28").preprocessing.size == (24, 28)
    with pytest.raises(ValueError, match="--size 32: nin takes only 24×28 px"):
        plan_for(data, backbone="nin", size="32")


@pytest.mark.parametrize(
    ("text", "size"),
    [("96", (96, 96)), ("96x128", (96, 128)), (" 96 × 128 ", (96, 128)), ("8", (8, 8)), ("4096,8", (4096, 8))],
)
def test_sizes_as_they_are_typed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["7", "4097", "96x7", "7x96", "96x", "x96", "-96", "9.6", "", "96x96x96", "ninety"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="expected a number of pixels"):
        parse_size(text)


FINE = {"channels": 3, "size": (8, 8), "stored": (9, 8), "mean": (0.5,) * 3, "std": (0.2,) * 3}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 2),
        ("channels", 4),
        ("size", (8,)),
        ("size", [8, 8]),
        ("size", (8, 0)),
        ("size", (8, 4097)),
        ("size", (8, True)),
        ("size", (8, 8.0)),
        ("stored", (7, 8)),
        ("stored", (8, 7)),
        ("mean", (0.5,)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("mean", [0.5] * 3),
        ("std", (0.2, 0.2, 0.0)),
        ("std", (0.2, 0.2, -0.1)),
        ("std", (0.2, 0.2, True)),
    ],
)
def test_preprocessing_that_makes_no_sense(field, value):
    assert Preprocessing.from_json(json.loads(json.dumps(Preprocessing(**FINE).to_json()))) == Preprocessing(**FINE)
    with pytest.raises(ValueError, match="preprocessing"):
        Preprocessing(**FINE | {field: value})
