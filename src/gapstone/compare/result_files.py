"""The files that `compare` writes beside its report: results, predictions, pictures (docs/results.md)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.compare.boxed_images import among
from gapstone.compare.finished_trials import FinishedTrial
from gapstone.compare.plan import ComparisonPlan
from gapstone.storage.atomic import atomic_file
from gapstone.storage.csv_file import write_csv


def write_trials(path: Path, plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> None:
    keys = ("test_accuracy", "train_accuracy", "generalisation_gap", "nll", "brier", "ece", "parameters",
            "head_parameters", "macs", "peak_memory_mb")  # fmt: skip

    def rows() -> Iterator[list[Any]]:
        yield ["trial", "head", "seed", "fold", *keys, "shift_accuracy", "train_seconds", "epochs", "best_epoch"]
        for one in (one for head in plan.request.heads for one in done[head]):
            facts, history = one.facts, one.facts["history"]
            shifted = float(np.mean(facts["shift"]["accuracy"][1:]))
            yield [one.trial.id, one.trial.head, one.trial.seed, "" if one.trial.fold is None else one.trial.fold,
                   *(facts[key] for key in keys), shifted, history["seconds"], len(history["train_loss"]),
                   history["best_epoch"]]  # fmt: skip

    write_csv(path, rows())


def write_predictions(path: Path, plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> None:
    names, labels, classes = plan.prepared.store.names, plan.prepared.store.labels, plan.prepared.labels

    def rows() -> Iterator[list[Any]]:
        yield ["image", "label", "head", "seed", "prediction", "confidence", "correct"]
        for one in (one for head in plan.request.heads for one in done[head]):
            arrays = one.arrays
            tested = zip(arrays["test"], arrays["answer"], arrays["confidence"], strict=True)
            for row, prediction, confidence in tested:
                label = labels[row]
                yield [names[row], classes[label], one.trial.head, one.trial.seed, classes[prediction],
                       f"{confidence:.4f}", int(prediction == label)]  # fmt: skip

    write_csv(path, rows())


def write_pictures(
    path: Path, plan: ComparisonPlan, done: dict[str, list[FinishedTrial]], worst: NDArray[np.uint8]
) -> None:
    prepared, rows = plan.prepared, plan.trials[0].shown
    arrays: dict[str, Any] = {
        "images": prepared.preprocessing.centre(np.asarray(prepared.store.images[rows])),
        "labels": prepared.store.labels[rows],
        "names": np.array([prepared.store.names[row].encode("utf-8", "backslashreplace").decode() for row in rows]),
        "worst": worst,
    }
    if plan.objects is not None:
        arrays["boxes"] = _boxes_shown(plan, rows)
    shown = _first_of_all(plan, done)
    for number, head in enumerate(plan.request.heads):
        for one in (one for one in done[head] if one.trial.seed == shown):
            # trials of an earlier gapstone have no placement
            keys = [key for key in ("maps", "bias", "logits", "placement") if key in one.arrays]
            arrays |= {f"{key}_{number}": one.arrays[key] for key in keys}
            arrays[f"additive_{number}"] = np.array(one.facts["additive"])
            arrays[f"gap_{number}"] = np.array(one.facts["completeness_gap"])
            arrays["seed"] = np.array(shown)
    with atomic_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _boxes_shown(plan: ComparisonPlan, rows: NDArray[Any]) -> NDArray[np.float64]:
    """(B, 5): the place of its image among those shown, then (x0, y0, x1, y1) in pixels of what the network sees."""
    found, places = [], {int(row): place for place, row in enumerate(rows)}
    for one in among(plan.objects or (), rows):
        scale, (top, left) = plan.prepared.preprocessing.seen(*one.size)
        edges = (np.asarray(one.boxes) - (left, top, left, top)) / scale
        found += [[places[one.row], *edge] for edge in edges.tolist()]
    return np.asarray(found, np.float64).reshape(-1, 5)


def _first_of_all(plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> int:
    """The seed whose maps are shown side by side: the first that most heads have finished.

    With folds always fold 0: the images shown are those it tests, the others have trained on them.
    """
    if plan.request.folds:
        return 0
    finished = Counter(one.trial.seed for head in done.values() for one in head)
    return max(sorted(finished), key=lambda seed: finished[seed], default=0)
