"""What each test image counts for a metric, in each trial: made into intervals and comparisons with the baseline."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.boxed_images import among
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_groups import groups_of
from gapstone.statistics.compare_pairs import compare_pairs, share_stat
from gapstone.statistics.difference import AGREEMENT
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.statistics.metrics import (
    METRICS,
    Metric,
    added_by_worth,
    added_images,
    agreement,
    most_answers,
    shown_metrics,
)

CONFIDENCE = 0.95
MOST_CLASSES = 100
"""Whose recall is given an interval each."""
ACCURACY = METRICS["accuracy"]

Rows = NDArray[np.int64]


def tested(one: FinishedTrial) -> Rows:
    """The test images."""
    return np.asarray(one.arrays["test"])


def moved(one: FinishedTrial) -> Rows:
    """Those that are moved, too."""
    return one.trial.robust


def boxed(one: FinishedTrial) -> Rows:
    """Those whose maps are scored against boxes, each as often as it has classes with boxes."""
    return np.asarray([image.row for image in among(one.trial.objects or (), tested(one))], np.int64)


def boxed_classes(one: FinishedTrial) -> Rows:
    """The numbers of these classes."""
    return np.asarray([image.label for image in among(one.trial.objects or (), tested(one))], np.int64)


def metrics_of(plan: ComparisonPlan) -> list[Metric]:
    """All metrics of the results, the one that decides first."""
    first, _ = plan.metric
    return shown_metrics(first, len(plan.prepared.labels), is_multi_label(plan.prepared.store.labels))


def stat_of(
    plan: ComparisonPlan,
    done: Sequence[FinishedTrial],
    values: Callable[[FinishedTrial], NDArray[Any]],
    metric: Metric = ACCURACY,
    rows: Callable[[FinishedTrial], Rows] = tested,
) -> dict[str, Any]:
    """A Stat of what each image of `rows` counts; its interval allows for other seeds and other test images."""
    added = agreement_of(plan, done, metric)
    most = most_answers(metric, labels_of(plan, done, rows), added) if done else None
    return stat_by(plan, done, values, metric, rows, added, most)


def stat_by(
    plan: ComparisonPlan,
    done: Sequence[FinishedTrial],
    values: Callable[[FinishedTrial], NDArray[Any]],
    metric: Metric = ACCURACY,
    rows: Callable[[FinishedTrial], Rows] = tested,
    added: float = AGREEMENT,
    most: float | None = None,
) -> dict[str, Any]:
    """The same with a known number of images added, and of independent answers at most (`metrics.most_answers`)."""
    by_seed = {one.trial.seed: values(one) for one in done}
    at = {one.trial.seed: rows(one) for one in done}
    together, folds = groups_of(plan, at, metric.by_class), _folds(plan, at)
    return share_stat(by_seed, CONFIDENCE, folds, added, metric.unit, together, most, metric.level_by_tails)


def values_of(plan: ComparisonPlan, metric: Metric, one: FinishedTrial) -> NDArray[np.float64]:
    """What each test image counts for the metric."""
    return one.values(metric, plan.prepared.store.labels)


def mean_of(plan: ComparisonPlan, metric: Metric, one: FinishedTrial) -> float:
    """The metric of the trial."""
    return float(values_of(plan, metric, one).mean())


def shifted_values(plan: ComparisonPlan, metric: Metric, one: FinishedTrial) -> NDArray[np.float64]:
    """The same when they are moved, of which the share of correct predictions is known, and no probability."""
    return metric.of_moved(plan.prepared.store.labels[moved(one)], one.arrays["shifted"])


def recalls(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> list[dict[str, Any]] | None:
    """Of each class, a Stat of its recall, and its number of test images; None for more than MOST_CLASSES."""
    labels, classes = plan.prepared.store.labels, len(plan.prepared.labels)
    if classes > MOST_CLASSES or not done:
        return None
    found = []
    rows = np.unique(np.concatenate(list(map(tested, done))))
    for k in range(classes):
        of_class = [one for one in done if np.any(labels[tested(one)] == k)]  # a fold may have none
        stat = stat_of(plan, of_class, partial(_right_of, k, labels), rows=partial(_of_class, k, labels))
        found.append(stat | {"images": int((labels[rows] == k).sum())})
    return found


def _right_of(k: int, labels: NDArray[np.int64], one: FinishedTrial) -> NDArray[np.bool_]:
    """Whether each test image of class k is classified correctly."""
    return np.asarray(one.correct(labels)[labels[tested(one)] == k])


def _of_class(k: int, labels: NDArray[np.int64], one: FinishedTrial) -> Rows:
    """The test images of class k."""
    return np.asarray(tested(one)[labels[tested(one)] == k])


def agreement_of(
    plan: ComparisonPlan,
    done: Sequence[FinishedTrial],
    metric: Metric,
    rows: Callable[[FinishedTrial], Rows] = tested,
) -> float:
    """`metrics.added_images` of the images that are tested, with folds in any of them."""
    labels = plan.prepared.store.labels
    if not done:
        return AGREEMENT
    every = labels_of(plan, done, rows)
    if metric.worth is not None:
        return added_by_worth(metric, every, [one.worth(metric, labels) for one in done])
    if not metric.of_probabilities:
        return agreement(metric, every)
    answers = [(labels[tested(one)], one.values(metric, labels), one.correct(labels)) for one in done]
    defined = [one for one in answers if np.isfinite(one[1]).all()]
    return added_images(metric, every, defined) if defined else AGREEMENT


def labels_of(plan: ComparisonPlan, done: Sequence[FinishedTrial], rows: Callable[[FinishedTrial], Rows]) -> Labels:
    """Labels of all images that are tested, with folds in any of them."""
    return np.asarray(plan.prepared.store.labels[np.unique(np.concatenate(list(map(rows, done))))])


def pairs_of(
    plan: ComparisonPlan,
    done: dict[str, list[FinishedTrial]],
    correct: Callable[[FinishedTrial], NDArray[Any]],
    look: int,
    metric: Metric = ACCURACY,
    rows: Callable[[FinishedTrial], Rows] = tested,
) -> list[dict[str, Any]]:
    """Compare every head with the baseline; `correct` gives what each image of `rows` counts for the metric."""
    if not done[plan.baseline]:
        return []
    scores = {head: {trial.trial.seed: correct(trial) for trial in trials} for head, trials in done.items() if trials}
    added = agreement_of(plan, [one for trials in done.values() for one in trials], metric, rows)
    at = {one.trial.seed: rows(one) for trials in done.values() for one in trials}
    return compare_pairs(
        scores,
        plan.baseline,
        metric.unit,
        confidence=CONFIDENCE,
        folds=_folds(plan, at),
        look=look,
        agreement=added,
        groups=groups_of(plan, at, metric.by_class),
        by_tails=metric.by_tails,
    )


def _folds(plan: ComparisonPlan, rows: Mapping[int, Rows]) -> dict[int, tuple[int, int]] | None:
    """Of each fold, the numbers of training images and of test images in `rows`; None with seeds."""
    if not plan.request.folds:
        return None
    return {number: (len(plan.prepared.splits[number].train), len(np.unique(at))) for number, at in rows.items()}
