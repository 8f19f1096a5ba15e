"""Metrics as values of images: scikit-learn's metrics, their derivatives by finite differences, simulated coverage."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle

from gapstone.statistics.compare_pairs import compare_pairs, share_interval
from gapstone.statistics.difference import AGREEMENT, crossed, tails
from gapstone.statistics.metric_values import balanced, balanced_accuracy, one_hot
from gapstone.statistics.metrics import METRICS, added_images, agreement, choose_metric, find_metric, metric_names
from gapstone.statistics.ranking import auroc_of, average_precision_of

CLASSES = 4
NAMES = [*METRICS, "top2"]


def macro_f1(labels: Any, p: Any, weights: Any) -> Any:
    present = np.unique(labels)
    return oracle.f1_score(labels, p.argmax(1), labels=present, average="macro", sample_weight=weights, zero_division=0)


def one_against_rest(score: Callable[..., Any]) -> Callable[..., Any]:
    def mean(labels: Any, p: Any, weights: Any) -> Any:
        return np.mean([score(labels == k, p[:, k], sample_weight=weights) for k in np.unique(labels)])

    return mean


def brier(labels: Any, p: Any, weights: Any) -> Any:
    return np.average(((p - np.eye(CLASSES)[labels]) ** 2).sum(1), weights=weights)


ORACLES: dict[str, Callable[..., Any]] = {
    "accuracy": lambda y, p, w: oracle.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: oracle.balanced_accuracy_score(y, p.argmax(1), sample_weight=w),
    "macro_f1": macro_f1,
    "auroc": one_against_rest(oracle.roc_auc_score),
    "average_precision": one_against_rest(oracle.average_precision_score),
    "nll": lambda y, p, w: oracle.log_loss(y, p, sample_weight=w, labels=range(CLASSES)),
    "brier": brier,
    "top2": lambda y, p, w: oracle.top_k_accuracy_score(y, p, k=2, sample_weight=w, labels=range(CLASSES)),
}


def predicted(seed: int, ties: bool = False, images: int = 60) -> tuple[Any, Any]:
    """Labels of unequal classes, one of which is predicted and never true; probabilities, two thirds of them right."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, images) - 1, CLASSES - 2)
    logits = 2 * rng.normal(size=(images, CLASSES)) + 2.5 * np.eye(CLASSES)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:  # a score that many images share
        p = np.round(p * 8) + np.arange(1, CLASSES + 1) / 16  # never between classes, where it matters which is first
        p /= p.sum(1, keepdims=True)
    return labels, p


def test_every_metric_has_an_oracle() -> None:
    assert ORACLES.keys() == set(NAMES)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_the_metric_and_each_value_its_derivative(name: str, seed: int, ties: bool) -> None:
    labels, p = predicted(seed, ties)
    found, score = find_metric(name).values(labels, p), ORACLES[name]
    exact, step = score(labels, p, np.ones(len(labels))), 1e-4
    assert found.mean() == pytest.approx(exact, abs=1e-12)
    for i in range(0, len(labels), 3):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(labels))
            weights[i] += sign * step
            ends.append(score(labels, p, weights))
        assert found[i] == pytest.approx(exact + len(labels) * (ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_all_right_all_wrong_and_one_class() -> None:
    labels = np.array([0, 0, 0, 2])
    for name, metric in METRICS.items():
        best, worst = (0, 1) if metric.unit.lower_is_better else (1, 0)
        assert np.allclose(metric.values(labels, one_hot(labels, 8)), best), name
        if name in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert np.allclose(metric.values(labels, one_hot(labels + 5, 8)), worst), name
    assert balanced_accuracy(labels, one_hot(np.zeros(4, int), 3)).mean() == 0.5  # always the largest class
    assert METRICS["macro_f1"].values(labels, one_hot(np.zeros(4, int), 3)).mean() == pytest.approx(6 / 7 / 2)
    shares = np.array([1.0, 0.5, 0.0, 0.25])
    assert balanced(labels, shares).mean() == pytest.approx((0.5 + 0.25) / 2)


def test_ranks_need_two_classes_and_losses_stay_finite() -> None:
    one = np.zeros(3, int)
    for name in ("auroc", "average_precision"):
        assert np.isnan(METRICS[name].values(one, one_hot(one, 2))).all()
    assert METRICS["auroc"].values(np.array([0, 1, 1]), np.full((3, 2), 0.5)).mean() == 0.5  # all ties
    assert METRICS["nll"].values(one, one_hot(one + 1, 2)).tolist() == pytest.approx([708.396] * 3)
    assert METRICS["brier"].values(one, one_hot(one + 1, 2)).tolist() == [2, 2, 2]


def test_two_classes_have_one_auroc() -> None:
    labels, p = predicted(3)
    labels, p = labels % 2, p[:, :2] / p[:, :2].sum(1, keepdims=True)
    both = [auroc_of(labels == k, p[:, k]) for k in (0, 1)]
    assert np.allclose(*both)


def test_top_k_of_equal_probabilities_is_as_argmax() -> None:
    labels, equal = np.arange(3), np.full((3, 3), 1 / 3)
    assert find_metric("top1").values(labels, equal).tolist() == METRICS["accuracy"].values(labels, equal).tolist()
    assert find_metric("top2").values(labels, equal).tolist() == [1, 1, 0]
    assert metric_names(5) == list(METRICS)
    assert metric_names(6)[-1] == "top5"
    for unknown in ("top0", "topmost", "f1"):
        with pytest.raises(ValueError, match=f"'{unknown}': give one of accuracy, .*top5"):
            find_metric(unknown)


def test_ten_thousand_images_are_ranked_at_once() -> None:
    """Nothing in it is quadratic: that would take minutes."""
    rng = np.random.default_rng(0)
    score = rng.random(200_000)
    positive = rng.random(200_000) < score
    assert auroc_of(positive, score).mean() == pytest.approx(oracle.roc_auc_score(positive, score))
    exact = oracle.average_precision_score(positive, score)
    assert average_precision_of(positive, score).mean() == pytest.approx(exact)


def test_what_decides_where_nobody_says() -> None:
    accuracy = METRICS["accuracy"]
    assert choose_metric(None, np.array([30, 10, 30])) == (accuracy, None)
    assert choose_metric(None, np.array([30, 0, 10])) == (accuracy, None)  # a class without an image
    metric, why = choose_metric(None, np.array([150, 3]))
    assert metric.name == "balanced_accuracy"
    assert "3 to 150 images" in str(why)
    assert "an accuracy of 98.0 %, and a balanced accuracy of 50.0 %" in str(why)
    assert choose_metric(accuracy, np.array([150, 3])) == (accuracy, None)


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


def drawn_probabilities(rng: np.random.Generator, seeds: int, images: int) -> tuple[Any, Any]:
    """Labels, and probabilities (2, seeds, n, 3) of two equal heads: hard images, heads and seeds of their own."""
    labels = np.arange(images) % 3
    above = 2 + rng.normal(size=images) + 0.5 * rng.normal(size=(2, 1, images)) + 0.2 * rng.normal(size=(2, seeds, 1))
    logits = rng.normal(size=(images, 3)) + 0.5 * rng.normal(size=(2, seeds, images, 3))
    logits += above[..., None] * np.eye(3)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (5, 360), (10, 360), (5, 2000)])
def test_metrics_of_probabilities_keep_their_promise(seeds: int, images: int) -> None:
    """300 repetitions (75 of 2,000 images) have a standard error of 1.3 points at 5 %: benchmarks/metric_promises."""
    rng, repetitions = np.random.default_rng(1), 300 if images < 2000 else 75
    labels, many = drawn_probabilities(rng, 20, 12_000)
    names = ("auroc", "average_precision", "nll", "brier", "top2")
    metrics = [find_metric(name) for name in names]
    truth = [np.mean([metric.values(labels, p).mean() for p in many[0]]) for metric in metrics]
    false, covered = np.zeros(len(names)), np.zeros(len(names))
    for _ in range(repetitions):
        labels, heads = drawn_probabilities(rng, seeds, images)
        for k, metric in enumerate(metrics):
            a, b = (np.stack([metric.values(labels, p) for p in head]) for head in heads)
            right = [p.argmax(1) == labels for head in heads for p in head]
            tested = [(labels, values, one) for values, one in zip([*a, *b], right, strict=True)]
            added = added_images(metric, labels, tested)
            false[k] += crossed(a, b, added).p < 0.05
            tails = metric.level_by_tails
            low, high = share_interval(list(a), agreement=added, unit=metric.unit, by_tails=tails) or (0, 0)
            covered[k] += low <= truth[k] <= high
    assert (false / repetitions < 0.09).all(), dict(zip(names, false / repetitions, strict=True))
    assert (covered / repetitions > 0.90).all(), dict(zip(names, covered / repetitions, strict=True))


def rare_class(rng: np.random.Generator, seeds: int) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Labels of 90 and 10 images, and what each counts for balanced accuracy: some are hard for every seed."""
    labels = np.repeat([0, 1], [90, 10])
    share = np.clip(0.8 + 0.3 * rng.normal(size=100), 0, 1)
    answers = np.where(rng.random((seeds, 100)) < share, labels, 1 - labels)
    return labels, [METRICS["balanced_accuracy"].values(labels, one_hot(each, 2)) for each in answers]


def test_a_level_that_ten_images_decide_is_known_as_poorly_as_of_ten() -> None:
    """Of two models on the same images it is not asked: `Metric.level_by_tails`."""
    assert not METRICS["balanced_accuracy"].by_tails
    assert METRICS["balanced_accuracy"].level_by_tails
    assert not METRICS["accuracy"].level_by_tails
    labels, rows = rare_class(np.random.default_rng(0), 10)
    added = agreement("balanced_accuracy", labels)
    plain, known = (share_interval(rows, agreement=added, by_tails=tails) for tails in (False, True))
    assert plain
    assert known
    assert known[0] < plain[0] < plain[1] < known[1]
    decide = 100 * tails(np.stack(rows)) - 1  # of 100 images
    assert 5 < decide < 40


@pytest.mark.slow
def test_such_levels_are_covered() -> None:
    """1,000 repetitions have a standard error of 0.8 points: 91 % without, 95 % with it."""
    rng, covered = np.random.default_rng(0), []
    added = agreement("balanced_accuracy", np.repeat([0, 1], [90, 10]))
    truth = np.mean([np.clip(0.8 + 0.3 * rng.normal(size=1_000_000), 0, 1)])
    for _ in range(1000):
        _, rows = rare_class(rng, 10)
        low, high = share_interval(rows, agreement=added, by_tails=True) or (0, 0)
        covered.append(low <= truth <= high)
    assert 0.93 < np.mean(covered) < 0.98


def test_an_image_is_worth_what_the_metric_says() -> None:
    labels, p = predicted(5)
    right = p.argmax(1) == labels
    for name in ("accuracy", "top2"):
        assert added_images(METRICS.get(name) or find_metric(name), labels, []) == AGREEMENT
    nll = METRICS["nll"].values(labels, p)
    added = added_images(METRICS["nll"], labels, [(labels, nll, right)])
    assert added == pytest.approx(2 * (nll[~right].mean() - nll[right].mean()) ** 2)
    assert added_images(METRICS["nll"], labels, [(labels, nll, np.ones(60, bool))]) == AGREEMENT
    auroc = METRICS["auroc"].values(labels, p)
    worth = added_images(METRICS["auroc"], labels, [(labels, auroc, right)]) / agreement("auroc", labels)
    assert 0 < worth < 0.5  # a wrong answer is often still ranked high


def test_intervals_end_where_the_metric_ends() -> None:
    rows = [np.full(20, 0.001 + 0.01 * seed) for seed in range(3)]
    low, high = share_interval(rows, unit=METRICS["nll"].unit) or (1, 1)
    assert low == 0 < high
    assert (share_interval([1.99 + row for row in rows], unit=METRICS["brier"].unit) or (0, 0))[1] == 2
    assert share_interval([np.full(20, np.nan)] * 3) is None
    # all right: as many answers as there are images, whatever rounding leaves of their spread
    for n in range(30, 60):
        low, _ = share_interval([np.ones(n)] * 3) or (0, 0)
        assert low > 0.85


def test_a_metric_that_is_not_defined_has_no_difference() -> None:
    nothing = {seed: np.full(9, np.nan) for seed in range(3)}
    (pair,) = compare_pairs({"a": nothing, "b": {seed: np.ones(9) for seed in range(3)}}, "b")
    assert (pair["difference"], pair["p"], pair["verdict"]) == (None, None, "cannot tell")


def test_lower_is_better_of_losses() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(0.3, 300)
    rows = {head: dict.fromkeys(range(5), hard + gap) for head, gap in (("a", 0.0), ("b", 0.2), ("c", 0.4))}
    pairs = compare_pairs(rows, "b", METRICS["nll"].unit, agreement=1e-6)
    assert [(pair["verdict"], round(pair["difference"], 6)) for pair in pairs] == [("better", -0.2), ("worse", 0.2)]
    assert pairs[0]["ci95_together"][1] <= 0 <= pairs[1]["ci95_together"][0]
    assert {pair["unit"] for pair in pairs} == {"nats"}


def test_a_perfect_ranking_of_wrong_answers_has_an_interval() -> None:
    labels, p = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    values = METRICS["auroc"].values(labels, p)
    added = added_images(METRICS["auroc"], labels, [(labels, values, p.argmax(1) == labels)])
    assert added == agreement("auroc", labels)
    bounds = share_interval([values] * 3, agreement=added)
    assert bounds is not None
    assert bounds[0] < bounds[1] == 1
