"""The test images that the trials answered worst, for the report."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.plan import ComparisonPlan
from gapstone.statistics.metrics import MULTI_LABEL

MOST_WORST = 12


def worst_images(
    plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The test images with the largest sum of confidences in wrong predictions: their pixels, and their entries.

    With several labels those with the largest sum of losses under trials that do not have all of their classes right.
    """
    labels = plan.prepared.store.labels
    total = np.zeros(len(labels))
    for trial in (trial for trials in done.values() for trial in trials):
        wrong = ~trial.correct(labels)
        badly = trial.values(MULTI_LABEL["nll"], labels) if plan.multi_label else trial.arrays["confidence"]
        np.add.at(total, trial.arrays["test"][wrong], badly[wrong])
    rows = [int(row) for row in np.argsort(-total, kind="stable")[:MOST_WORST] if total[row] > 0]
    entry_of = _of_multi_label if plan.multi_label else _of_one
    pixels = plan.prepared.preprocessing.centre(np.asarray(plan.prepared.store.images[rows]))
    return np.asarray(pixels, np.uint8), [entry_of(plan, done, row, index) for index, row in enumerate(rows)]


def _of_one(plan: ComparisonPlan, done: dict[str, list[FinishedTrial]], row: int, index: int) -> dict[str, Any]:
    prepared = plan.prepared
    label = prepared.store.labels[row]
    entry: dict[str, Any] = {"name": prepared.store.names[row], "label": prepared.labels[label], "picture": index}
    entry |= {"wrong": {}, "predictions": {}, "confidence": {}}
    for head, trials in done.items():
        answers = [(int(a[0]), float(c[0])) for a, c in (_answer(trial, row) for trial in trials) if len(a)]
        if not answers:
            continue
        prediction = Counter(a for a, _ in answers).most_common(1)[0][0]
        entry["wrong"][head] = float(np.mean([a != label for a, _ in answers]))
        entry["predictions"][head] = prepared.labels[prediction]
        entry["confidence"][head] = float(np.mean([c for a, c in answers if a == prediction]))
    return entry


def _of_multi_label(plan: ComparisonPlan, done: dict[str, list[FinishedTrial]], row: int, index: int) -> dict[str, Any]:
    prepared = plan.prepared
    labels = prepared.store.labels

    def names(classes: NDArray[np.bool_]) -> list[str]:
        return [prepared.labels[k] for k in np.flatnonzero(classes)]

    entry: dict[str, Any] = {"name": prepared.store.names[row], "labels": names(labels[row]), "picture": index}
    entry |= {"wrong": {}, "predictions": {}, "nll": {}}
    for head, trials in done.items():
        found = [(one, np.flatnonzero(one.arrays["test"] == row)) for one in trials]
        places = [(one, place[0]) for one, place in found if len(place)]
        if not places:
            continue
        answers = np.array([one.arrays["answer"][place] for one, place in places])
        losses = [one.values(MULTI_LABEL["nll"], labels)[place] for one, place in places]
        entry["wrong"][head] = float((answers != labels[row]).any(1).mean())
        entry["predictions"][head] = names(answers.mean(0) > 0.5)  # in most trials
        entry["nll"][head] = float(np.mean(losses))
    return entry


def _answer(finished: FinishedTrial, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Prediction and confidence for one image; empty if the trial did not test it."""
    matches = finished.arrays["test"] == row
    return finished.arrays["answer"][matches], finished.arrays["confidence"][matches]
