"""Files that `compare` writes beside its report: results.csv and pictures.npz (docs/results.md)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.boxed_images import among
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_values import mean_of, metrics_of
from gapstone.storage.atomic import atomic_file
from gapstone.storage.csv_file import write_csv
from gapstone.training.loop import Rows


def write_trials(path: Path, plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> None:
    """A row for each trial: what it measured, then all metrics on the test images."""
    several = ["train_average_precision"] if plan.multi_label else []
    keys = ["test_accuracy", "train_accuracy", *several, "generalisation_gap", "nll", "brier", "ece", "parameters",
            "head_parameters", "macs", "peak_memory_mb"]  # fmt: skip
    score = "balanced_accuracy" if plan.multi_label else "accuracy"
    metrics = [metric for metric in metrics_of(plan) if metric.name not in ("accuracy", "nll", "brier")]

    def rows() -> Iterator[list[Any]]:
        yield ["trial", "head", "seed", "fold", *keys, f"shift_{score}", "train_seconds", "epochs", "best_epoch",
               "learning_rate", "weight_decay", *(f"test_{metric.name}" for metric in metrics)]  # fmt: skip
        for finished in (finished for head in plan.request.heads for finished in done[head]):
            trial, facts, history = finished.trial, finished.facts, finished.facts["history"]
            shifted = float(np.mean(facts["shift"][score][1:])) if facts["shift"] else ""
            choice = facts.get("tuning") or vars(trial.settings)
            found = [mean_of(plan, metric, finished) for metric in metrics]
            yield [trial.id, trial.head, trial.seed, "" if trial.fold is None else trial.fold,
                   *(facts[key] for key in keys), shifted, history["seconds"], len(history["train_loss"]),
                   history["best_epoch"], choice["learning_rate"], choice["weight_decay"],
                   *(value if np.isfinite(value) else "" for value in found)]  # fmt: skip

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
    seed = _shown_seed(plan, done)
    for number, head in enumerate(plan.request.heads):
        for finished in (finished for finished in done[head] if finished.trial.seed == seed):
            # trials of older versions have no placement
            if "maps" not in finished.arrays:  # a head without maps
                continue
            keys = [key for key in ("maps", "bias", "logits", "placement") if key in finished.arrays]
            arrays |= {f"{key}_{number}": finished.arrays[key] for key in keys}
            arrays[f"additive_{number}"] = np.array(finished.facts["additive"])
            arrays[f"gap_{number}"] = np.array(finished.facts["completeness_gap"])
            arrays[f"held_{number}"] = np.array(finished.facts.get("held") or [], np.str_)
            arrays["seed"] = np.array(seed)
    with atomic_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _boxes_shown(plan: ComparisonPlan, rows: Rows) -> NDArray[np.float64]:
    """(B, 6): the index of the box's image in `rows`, (x0, y0, x1, y1) in pixels of the network's input, its class."""
    boxes, indices = [], {int(row): index for index, row in enumerate(rows)}
    for image in among(plan.objects or (), rows):
        (down, right), (top, left) = plan.prepared.preprocessing.seen(*image.size)
        edges = (np.asarray(image.boxes) - (left, top, left, top)) / (right, down, right, down)
        boxes += [[indices[image.row], *edge, image.label] for edge in edges.tolist()]
    return np.asarray(boxes, np.float64).reshape(-1, 6)


def _shown_seed(plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> int:
    """The seed whose maps the report shows: the first that most heads have finished.

    With folds it is fold 0, which tests the shown images; the other folds are trained on them.
    """
    if plan.request.folds:
        return 0
    heads_by_seed = Counter(finished.trial.seed for trials in done.values() for finished in trials)
    return max(sorted(heads_by_seed), key=lambda seed: heads_by_seed[seed], default=0)
