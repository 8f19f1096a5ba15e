"""Metrics as values of images: scikit-learn's metrics, their derivatives by finite differences, simulated coverage."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from gapstone.statistics.compare_pairs import compare_pairs, share_interval
from gapstone.statistics.difference import AGREEMENT, crossed
from gapstone.statistics.metrics import (
    METRICS,
    agreement,
    balanced,
    balanced_accuracy,
    choose_metric,
    of_confusion,
    one_hot,
)

Oracle = Callable[..., float]


def macro_f1(labels: Any, answers: Any, sample_weight: Any = None) -> float:
    present = np.unique(labels)
    return float(
        oracle.f1_score(labels, answers, labels=present, average="macro", sample_weight=sample_weight, zero_division=0)
    )


ORACLES: dict[str, Oracle] = {
    "accuracy": oracle.accuracy_score,
    "balanced_accuracy": oracle.balanced_accuracy_score,
    "macro_f1": macro_f1,
}


def answered(seed: int, classes: int = 4, images: int = 60) -> tuple[Any, Any]:
    """Labels of unequal classes, one of which is predicted and never true; and answers, two thirds of them right."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, images) - 1, classes - 2)
    answers = np.where(rng.random(images) < 0.65, labels, rng.integers(0, classes, images))
    return labels, answers


def test_every_metric_has_an_oracle() -> None:
    assert ORACLES.keys() == METRICS.keys()
    assert "sample_weight" in inspect.signature(oracle.balanced_accuracy_score).parameters


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", METRICS)
def test_the_mean_is_the_metric_and_each_value_its_derivative(name: str, seed: int) -> None:
    labels, answers = answered(seed)
    found, exact = METRICS[name].values(labels, one_hot(answers, 4)), ORACLES[name](labels, answers)
    assert found.mean() == pytest.approx(exact, abs=1e-12)
    step = 1e-4
    for i in range(len(labels)):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(labels))
            weights[i] += sign * step
            ends.append(ORACLES[name](labels, answers, sample_weight=weights))
        assert found[i] == pytest.approx(exact + len(labels) * (ends[0] - ends[1]) / (2 * step), abs=1e-6)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (labels, answers), 1)
    assert of_confusion(name, counts) == pytest.approx(exact)


def test_all_right_all_wrong_and_one_class() -> None:
    labels = np.array([0, 0, 0, 2])
    for name, metric in METRICS.items():
        assert metric.values(labels, one_hot(labels, 8)).tolist() == [1, 1, 1, 1], name
        assert np.allclose(metric.values(labels, one_hot(labels + 5, 8)), 0), name
    assert balanced_accuracy(labels, one_hot(np.zeros(4, int), 3)).mean() == 0.5  # always the largest class
    assert METRICS["macro_f1"].values(labels, one_hot(np.zeros(4, int), 3)).mean() == pytest.approx(6 / 7 / 2)
    shares = np.array([1.0, 0.5, 0.0, 0.25])
    assert balanced(labels, shares).mean() == pytest.approx((0.5 + 0.25) / 2)


def test_what_decides_where_nobody_says() -> None:
    assert choose_metric(None, np.array([30, 10, 30])) == ("accuracy", None)
    assert choose_metric(None, np.array([30, 0, 10])) == ("accuracy", None)  # a class without an image
    name, why = choose_metric(None, np.array([150, 3]))
    assert name == "balanced_accuracy"
    assert "3 to 150 images" in str(why)
    assert "an accuracy of 98.0 %, and a balanced accuracy of 50.0 %" in str(why)
    assert choose_metric("accuracy", np.array([150, 3])) == ("accuracy", None)


def test_images_are_added_by_their_weight() -> None:
    labels = np.repeat([0, 1], [150, 3])
    assert agreement("accuracy", labels) == AGREEMENT
    added = agreement("balanced_accuracy", labels) / (153 + 2) ** 2
    assert added == pytest.approx((1 / 152**2 + 1 / 5**2) / 4)
    even = np.repeat([0, 1], [100, 100])
    assert agreement("macro_f1", even) == pytest.approx(AGREEMENT, rel=0.05)
    # heads that agree on all images: three images of a class say little
    rows = dict(enumerate(np.ones((5, 153))))
    (pair,) = compare_pairs({"a": rows, "b": rows}, "b", agreement=agreement("balanced_accuracy", labels))
    assert pair["ci95"][1] > 19
    low, high = share_interval([np.ones(153)] * 5, agreement=agreement("balanced_accuracy", labels)) or (0, 0)
    assert (high, low < 0.8) == (1, True)


def drawn(rng: np.random.Generator, recalls: Any, labels: Any, seeds: int, points: float) -> Any:
    """(2, seeds, n) answers of two heads of the same true recalls: right, or the other class."""
    shift = rng.normal(0, points, (2, seeds, 1))
    own = np.clip(recalls[labels] + 0.15 * rng.standard_normal((1, 1, len(labels))) + shift, 0.02, 0.98)
    right = rng.random((2, seeds, len(labels))) < own
    return np.where(right, labels, 1 - labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize(("images", "rare"), [(100, 20), (360, 18), (360, 90), (2000, 60)])
@pytest.mark.parametrize("points", [0.0, 0.02])
def test_equal_heads_are_told_apart_in_five_of_a_hundred(name: str, images: int, rare: int, points: float) -> None:
    """New images and new seeds each time. 600 repetitions have a standard error of 0.9 points at 5 %."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [images - rare, rare])
    added, found = agreement(name, labels), []
    for _ in range(600):
        a, b = drawn(rng, np.array([0.9, 0.75]), labels, 5, points)
        ours, theirs = ([METRICS[name].values(labels, one_hot(answers, 2)) for answers in head] for head in (a, b))
        found.append(crossed(np.stack(ours), np.stack(theirs), added).p < 0.05)
    assert np.mean(found) < 0.07
