"""OUT/model.safetensors: of a comparison on a frozen backbone, the best head as a model that predicts and explains.

Its training is repeated, which takes a second on the cached features and gives the same weights: storing the weights
of every trial would take more space than the features.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.compare.feature_cache import FeatureCache
from gapstone.compare.finished_trials import FinishedTrial
from gapstone.compare.report.number_text import percent
from gapstone.compare.trials import Trial, train_on_cache
from gapstone.data.decoded_store import Store
from gapstone.statistics.metrics import of_confusion
from gapstone.storage.sealed_json import DamagedError, read_sealed, read_vouched
from gapstone.training.loop import make_repeatable
from gapstone.workers.job_processes import run_one

FILE = "model.safetensors"


def best_trial(finished: Iterable[list[FinishedTrial]], metric: str = "accuracy") -> FinishedTrial | None:
    """Of the head that is best on the test images by the metric, the trial with the highest validation accuracy.

    The test images choose the head, as the table does, and not the seed: its test accuracy stays what it would be on
    other images. Of equals the first is taken. None if no trial finished.
    """
    heads = [trials for trials in finished if trials]
    if not heads:
        return None
    best = max(heads, key=lambda trials: float(np.mean([_score(trial, metric) for trial in trials])))
    return max(best, key=_validation_accuracy)


def _score(finished: FinishedTrial, metric: str) -> float:
    facts = finished.facts
    if metric == "accuracy":
        return float(facts["test_accuracy"])
    return of_confusion(metric, np.asarray(facts["confusion"]))


def _validation_accuracy(finished: FinishedTrial) -> float:
    """In the epoch whose weights the trial has; 0 without validation images."""
    history = finished.facts["history"]
    accuracies = history["validation_accuracy"]
    return float(accuracies[history["best_epoch"] - 1]) if accuracies else 0.0


def is_written(best: FinishedTrial, out: Path) -> bool:
    """Whether OUT holds the model of this trial, unchanged, from an earlier run."""
    try:
        results = read_sealed(out / "results.json", "results")
        if (results.get("model") or {}).get("trial") != best.trial.id:
            return False
        read_vouched(out, FILE, results)
    except (OSError, DamagedError):
        return False
    return True


def write_model(trial: Trial, store: Path, cache: FeatureCache, path: Path) -> None:
    """Train the trial's head again and save it on its backbone. Raises JobError if that fails."""
    run_one(partial(_train_and_save, store, cache, path), trial)


def _train_and_save(store: Path, cache: FeatureCache, path: Path, trial: Trial, send: Callable[[object], None]) -> None:
    torch.set_num_threads(trial.threads)
    make_repeatable()
    predictor, *_ = train_on_cache(trial, cache, Store.open(store).labels)
    model = trial.build()
    model.head.load_state_dict(predictor.head.state_dict())
    model.eval().cpu().save(path)
    send(path)


def describe(model: Mapping[str, Any]) -> str:
    """The "model" entry in words.

    >>> describe({"head": "gap", "seed": 3, "fold": None, "test_accuracy": 0.941})
    'gap, seed 3 (the best on validation images): test accuracy 94.1 %'
    """
    repeat = f"seed {model['seed']}" if model["fold"] is None else f"fold {model['fold']}"
    return (
        f"{model['head']}, {repeat} (the best on validation images): test accuracy {percent(model['test_accuracy'])} %"
    )


def entry(best: FinishedTrial) -> dict[str, Any]:
    """The "model" entry of results.json."""
    trial = best.trial
    return {
        "file": FILE,
        "trial": trial.id,
        "head": trial.head,
        "seed": trial.seed,
        "fold": trial.fold,
        "test_accuracy": best.facts["test_accuracy"],
    }
