"""What is said of each class where images have several: how often it is found, missed and answered falsely."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_values import MOST_CLASSES, stat_by, tested
from gapstone.drawing.confusion_picture import FEW
from gapstone.statistics.labels import Labels
from gapstone.statistics.metrics import METRICS, MULTI_LABEL, added_by_worth, most_answers

BY_CLASS = {"average_precision": "average_precision", "auroc": "auroc", "f1": "macro_f1"}
"""Measures of a class by the metric that is their mean."""


def class_results(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> list[dict[str, Any]]:
    """The "classes" entry of a head in results.json, an entry for each class; [] without a trial.

    Recall and average precision have intervals for other seeds and other test images; not of classes that fewer than
    FEW test images have, or lack, and not where there are more than MOST_CLASSES.
    """
    if not done:
        return []
    labels = plan.prepared.store.labels
    counts = np.sum([hits_and_errors(labels[tested(one)], one.arrays["answer"]) for one in done], 0)
    by_class = {key: [one.of_classes(MULTI_LABEL[name], labels) for one in done] for key, name in BY_CLASS.items()}
    every = labels[np.unique(np.concatenate(list(map(tested, done))))]
    entries: list[dict[str, Any]] = []
    for k, name in enumerate(plan.prepared.labels):
        images = int(every[:, k].sum())
        known = len(plan.prepared.labels) <= MOST_CLASSES and FEW <= images <= len(every) - FEW
        precisions = [_precision(labels[tested(one)][:, k], one.arrays["answer"][:, k]) for one in done]
        entry: dict[str, Any] = {
            "class": name,
            "images": images,
            **dict(zip(("found", "missed", "false"), counts[:, k].tolist(), strict=True)),
            "recall": _recall(plan, done, k, known),
            "precision": _plain(precisions),
            **{key: _plain([float(values[k]) for values in trials if len(values)]) for key, trials in by_class.items()},
        }
        if known:
            entry["average_precision"]["ci95"] = _precision_interval(plan, done, k, every)
        entries.append(entry)
    return entries


def hits_and_errors(labels: NDArray[np.bool_], answered: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(3, K): images with the class that are answered with it, that are not, and others that are answered with it."""
    return np.stack([(labels & answered).sum(0), (labels & ~answered).sum(0), (~labels & answered).sum(0)])


def _plain(values: Sequence[float | None]) -> dict[str, Any]:
    """A Stat without an interval, of the trials in which the measure is defined."""
    some = [value for value in values if value is not None and np.isfinite(value)]
    return {"mean": float(np.mean(some)) if some else None, "ci95": None, "values": some}


def _precision(there: NDArray[np.bool_], answered: NDArray[np.bool_]) -> float | None:
    """Of the images that are answered with a class, the share that has it; None where none is."""
    return float(there[answered].mean()) if answered.any() else None


def _recall(plan: ComparisonPlan, done: Sequence[FinishedTrial], k: int, known: bool) -> dict[str, Any]:
    labels = plan.prepared.store.labels
    some = [one for one in done if labels[tested(one), k].any()]  # a fold may have none
    if not known:
        return _plain([float(_found(k, labels, one).mean()) for one in some])
    return stat_by(
        plan, some, partial(_found, k, labels), METRICS["accuracy"], lambda one: tested(one)[labels[tested(one), k]]
    )


def _found(k: int, labels: Labels, one: FinishedTrial) -> NDArray[np.bool_]:
    """Whether each image with class k is answered with it."""
    return np.asarray(one.arrays["answer"][labels[tested(one), k], k])


def _precision_interval(
    plan: ComparisonPlan, done: Sequence[FinishedTrial], k: int, every: NDArray[np.bool_]
) -> list[float] | None:
    """Of average precision; None where its values are not kept, or a fold does not have the class."""
    metric, labels = MULTI_LABEL["average_precision"], plan.prepared.store.labels
    columns = [one.columns(metric, labels) for one in done]
    if any(one is None or np.isnan(one[:, k]).any() for one in columns):
        return None
    values = {one.trial.seed: column[:, k] for one, column in zip(done, columns, strict=True) if column is not None}
    of_class = every[:, k : k + 1]
    added = added_by_worth(metric, of_class, [one.worth(metric, labels) for one in done])
    stat = stat_by(
        plan, done, lambda one: values[one.trial.seed], metric, tested, added, most_answers(metric, of_class, added)
    )
    bounds: list[float] | None = stat["ci95"]
    return bounds
