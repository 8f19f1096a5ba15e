"""Groups from the options of a comparison to what is counted in its results; nothing is trained here."""

from types import SimpleNamespace

import numpy as np
import pytest

from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.labelled_subset import labelled_subset
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_groups import groups_counted, groups_of, groups_said
from gapstone.comparing.tested_values import pairs_of, recalls, stat_of
from gapstone.comparing.verdict import sentences
from gapstone.data.sources import Grouping
from gapstone.data.split import DataSplit


def planned(
    names: list[str] | None, groups: np.ndarray, labels: np.ndarray, folds: int | None = None
) -> ComparisonPlan:
    """What these functions look at of a plan, whose test images are all there are."""
    every = np.arange(len(labels))
    grouping = None if names is None else Grouping("--group patient", tuple(names))
    prepared = SimpleNamespace(
        groups=groups,
        source=SimpleNamespace(grouping=grouping),
        store=SimpleNamespace(labels=labels),
        labels=("a", "b"),
        splits=[DataSplit(every, every[:0], every, "")] * 5,
    )
    request = SimpleNamespace(folds=folds)
    return SimpleNamespace(prepared=prepared, request=request, baseline="gap")  # type: ignore[return-value]


def finished(labels: np.ndarray, seed: int, rows: np.ndarray, accuracy: float) -> FinishedTrial:
    right = np.random.default_rng(seed + int(1000 * accuracy)).random(len(rows)) < accuracy
    answer = np.where(right, labels[rows], 1 - labels[rows])
    trial = SimpleNamespace(seed=seed, objects=None)
    return FinishedTrial(trial, {}, {"test": rows, "answer": answer})  # type: ignore[arg-type]


LABELS = np.arange(120) % 2


def test_named_groups_are_counted() -> None:
    groups = np.arange(120) // 5
    plan = planned([f"p{g}" for g in groups], groups, LABELS)
    every = np.arange(120)
    done = {head: [finished(LABELS, seed, every, a) for seed in range(5)] for head, a in (("gap", 0.8), ("fc", 0.7))}
    entry = groups_counted(plan, every, by_class=True)
    assert entry == {
        "by": "--group patient",
        "test": 24,
        "images": [5, 5.0, 5],
        "of_class": [24, 24],
        "refused": None,
    }
    assert groups_said({"test": 120, "groups": entry}) == (
        "Verdicts and intervals are for other groups (--group patient): the 120 test images are of 24 of them, 5 each."
    )
    (pair,) = pairs_of(plan, done, lambda one: one.correct(LABELS), 1)
    assert "5 seeds × 24 test groups of 120 images" in pair["method"]
    (by_image,) = pairs_of(planned(None, every, LABELS), done, lambda one: one.correct(LABELS), 1)
    assert "5 seeds × 120 images" in by_image["method"]
    assert pair["difference"] == pytest.approx(by_image["difference"])
    found = recalls(plan, done["gap"])
    assert found is not None
    assert [recall["ci95"] is not None for recall in found] == [True, True]


def test_too_few_groups_are_refused_everywhere() -> None:
    groups, every = np.arange(120) // 30, np.arange(120)
    plan = planned([f"p{g}" for g in groups], groups, LABELS)
    done = {head: [finished(LABELS, seed, every, a) for seed in range(5)] for head, a in (("gap", 0.8), ("fc", 0.7))}
    (pair,) = pairs_of(plan, done, lambda one: one.correct(LABELS), 1)
    assert (pair["p"], pair["ci95"], pair["verdict"]) == (None, None, "cannot tell")
    assert pair["advice"].endswith("Add groups, or test all there are: --folds 5.")
    assert stat_of(plan, done["gap"], lambda one: one.correct(LABELS))["ci95"] is None
    data = {"groups": groups_counted(plan, every, by_class=False)}
    heads = [{"head": head, "test_accuracy": {"mean": 0.8}} for head in done]
    results = {
        "heads": heads,
        "settings": {"baseline": "gap", "folds": None, "metric": "accuracy"},
        "pairs": [pair],
        "shift_pairs": [],
        "collapsed": [],
        "data": data,
        "metrics": [
            {
                "name": "accuracy",
                "words": "accuracy",
                "unit": "percentage points",
                "margin": 0.5,
                "lower_is_better": False,
            }
        ],
    }
    assert sentences(results)[0] == "4 test groups are too few to compare heads."


def test_a_class_of_few_groups_is_refused_where_classes_count_the_same() -> None:
    groups = np.r_[np.arange(60) // 3, 20 + np.arange(60) // 20]
    labels = np.repeat([0, 1], 60)
    plan, rows = planned([f"p{g}" for g in groups], groups, labels), {0: np.arange(120)}
    plain, by_class = groups_of(plan, rows), groups_of(plan, rows, by_class=True)
    assert plain is not None
    assert by_class is not None
    assert plain.refused is None
    assert "of a class are of 3 groups only" in (by_class.refused or "")


def test_copies_among_the_test_images_count_once() -> None:
    copies, every = np.arange(120), np.arange(120)
    assert groups_of(planned(None, copies, LABELS), {0: every}) is None
    assert groups_counted(planned(None, copies, LABELS), every, by_class=False) is None
    copies[[5, 9]] = 3
    plan = planned(None, copies, LABELS)
    entry = groups_counted(plan, every, by_class=False)
    assert entry is not None
    assert (entry["by"], entry["test"], entry["refused"]) == (None, 118, None)
    assert groups_said({"test": 120, "groups": entry}) == (
        "Of 120 test images 118 are different pictures, the others copies: verdicts and intervals allow for that."
    )
    done = {head: [finished(LABELS, seed, every, a) for seed in range(5)] for head, a in (("gap", 0.8), ("fc", 0.7))}
    (pair,) = pairs_of(plan, done, lambda one: one.correct(LABELS), 1)
    assert "5 seeds × 118 different test images of 120 images" in pair["method"]


def test_fewer_labelled_images_are_of_fewer_groups() -> None:
    groups, labels = np.arange(200) // 10, np.arange(200) % 2
    rows = np.arange(150)
    train, _ = labelled_subset(rows, rows[:0], labels, 10, 0, groups)
    assert np.bincount(labels[train]).tolist() == [10, 10]
    assert len(np.unique(groups[train])) <= 4  # 5 of each class in a group
    assert len(np.unique(groups[labelled_subset(rows, rows[:0], labels, 10, 0)[0]])) > 6
    smaller, _ = labelled_subset(rows, rows[:0], labels, 5, 0, groups)
    assert set(smaller) <= set(train)
