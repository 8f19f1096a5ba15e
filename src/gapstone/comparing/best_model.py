"""OUT/model.safetensors: of a comparison on a frozen backbone, the best head as a model that predicts and explains.

Trials store heads that are small. The training of a larger one is repeated, which gives the same weights: to store
those of every trial would take more space than the features.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.report.number_text import percent
from gapstone.comparing.trials import Trial, read_head, train_on_cache
from gapstone.data.decoded_store import Store
from gapstone.models.trained_on import TrainedOn
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, read_vouched
from gapstone.training.loop import make_repeatable
from gapstone.workers.job_processes import run_one

FILE = "model.safetensors"


def best_trial(
    finished: Iterable[list[FinishedTrial]], score: Callable[[FinishedTrial], float]
) -> FinishedTrial | None:
    """Of the head with the highest mean score on the test images, the trial with the highest validation accuracy; of
    several labels per image, with the least validation loss.

    The test images choose the head, as the table does, and not the seed: its test accuracy stays what it would be on
    other images. Of equals the first is taken. None if no trial finished.
    """
    heads = [trials for trials in finished if trials]
    if not heads:
        return None
    best = max(heads, key=lambda trials: float(np.mean([score(trial) for trial in trials])))
    return max(best, key=_validation_score)


def _validation_score(finished: FinishedTrial) -> float:
    """In the epoch whose weights the trial has, higher is better; 0 without validation images."""
    history = finished.facts["history"]
    several = finished.trial.multi_label
    found = history["validation_loss" if several else "validation_accuracy"]
    score = float(found[history["best_epoch"] - 1]) if found else 0.0
    return -score if several else score


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


def stored_head(best: FinishedTrial, out: Path, log: Callable[[str], None]) -> bytes | None:
    """The safetensors of its head; None if it has to be trained again, because they are not there or damaged."""
    try:
        return read_head(out / "trials" / best.trial.id, best.facts)
    except DamagedError as error:
        log(damage_note([error]))
        return None


def write_model(trial: Trial, store: Path, head: bytes | FeatureCache, path: Path, trained_on: TrainedOn) -> None:
    """Save the trial's head on its backbone, from its safetensors or trained again. Raises JobError if that fails."""
    run_one(partial(_save, store, head, path, trained_on), trial)


def _save(
    store: Path,
    head: bytes | FeatureCache,
    path: Path,
    trained_on: TrainedOn,
    trial: Trial,
    send: Callable[[object], None],
) -> None:
    if isinstance(head, bytes):
        state = load(head)
    else:
        torch.set_num_threads(trial.threads)
        make_repeatable()
        state = train_on_cache(trial, head, Store.open(store).labels)[0].head.state_dict()
    model = trial.build()
    model.head.load_state_dict(state)
    model.trained_on = trained_on
    model.eval().cpu().save(path)
    send(path)


def describe(model: Mapping[str, Any]) -> str:
    """The "model" entry in words.

    >>> describe({"head": "gap", "seed": 3, "fold": None, "test_accuracy": 0.941})
    'gap, seed 3 (the best on validation images): test accuracy 94.1 %'
    """
    repeat = f"seed {model['seed']}" if model["fold"] is None else f"fold {model['fold']}"
    words, key = (
        ("mAP", "test_average_precision") if "test_average_precision" in model else ("accuracy", "test_accuracy")
    )
    return f"{model['head']}, {repeat} (the best on validation images): test {words} {percent(model[key])} %"


def entry(best: FinishedTrial) -> dict[str, Any]:
    """The "model" entry of results.json."""
    trial = best.trial
    return {
        "file": FILE,
        "trial": trial.id,
        "head": trial.head,
        "seed": trial.seed,
        "fold": trial.fold,
        **{key: best.facts[key] for key in ("test_accuracy", "test_average_precision") if key in best.facts},
    }
