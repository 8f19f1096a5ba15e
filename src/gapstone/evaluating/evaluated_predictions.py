"""Files of what each model answered of each image: predictions.npz and predictions.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax

from gapstone.comparing.predictions_file import texts
from gapstone.data.label_forms import SEPARATOR
from gapstone.data.sources import Source
from gapstone.evaluating.gather_evaluation import AnsweredModel
from gapstone.statistics.labels import Labels, class_sets
from gapstone.storage.atomic import atomic_file
from gapstone.storage.csv_file import write_csv

MOST_IN_CSV = 200_000
"""Rows of predictions.csv; predictions.npz holds everything, however many."""


def write_predictions(out: Path, source: Source, evaluations: Sequence[AnsweredModel]) -> None:
    """predictions.npz: all probabilities; predictions.csv: each model's answers, where they are not too many."""
    first = evaluations[0].model
    names, labels = first.names, source.labels[first.store.indices[first.rows]]
    multi_label = source.multi_label
    arrays: dict[str, Any] = {
        "images": texts(names),
        "labels": labels if multi_label else texts([source.classes[k] for k in labels]),
        "models": texts([one.name for one in evaluations]),
    }
    for number, one in enumerate(evaluations):
        arrays[f"classes_{number}"] = texts(one.labels)
        logits = one.logits.astype(np.float64)
        logs: NDArray[np.float64] = log_expit(logits) if multi_label else log_softmax(logits, axis=1)
        arrays[f"log_probabilities_{number}"] = logs.astype(np.float32)
    with atomic_file(out / "predictions.npz") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    path = out / "predictions.csv"
    path.unlink(missing_ok=True)
    if len(labels) * len(evaluations) > MOST_IN_CSV:
        return
    true = _written(source.classes, labels)
    rows = [["image", "label", "model", "prediction", *([] if multi_label else ["confidence"]), "correct"]]
    for one in evaluations:
        answered = one.answered
        said = _written(one.labels, answered.answer)
        sure = [[] if multi_label else [f"{p:.4f}"] for p in answered.probabilities.max(1).tolist()]
        found = zip(names, true, said, sure, answered.right.tolist(), strict=True)
        rows += [[name, label, one.name, answer, *p, str(int(right))] for name, label, answer, p, right in found]
    write_csv(path, rows)


def _written(classes: Sequence[str], labels: Labels) -> list[str]:
    return [SEPARATOR.join(classes[k] for k in own) for own in class_sets(labels)]
