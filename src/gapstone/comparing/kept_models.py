"""The trained models that a comparison keeps: OUT/model.safetensors, the best head's, and OUT/models, the other heads'.

On a frozen backbone trials store heads that are small; the training of a larger one is repeated, which gives the same
weights. A network that is trained whole stores its weights in its trial's folder until it is known which are kept.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from gapstone.comparing.compare_request import Keep
from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.report.number_text import percent
from gapstone.comparing.trial_files import WEIGHTS, read_stored
from gapstone.comparing.trials import Trial, train_on_cache
from gapstone.data.decoded_store import Store
from gapstone.heads import Head, parse
from gapstone.models.classifier import Classifier
from gapstone.models.trained_on import TrainedOn
from gapstone.nets import map_size
from gapstone.storage.atomic import remove
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, read_vouched
from gapstone.training.loop import make_repeatable
from gapstone.workers.job_processes import run_one

FILE, FOLDER = "model.safetensors", "models"


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
    return best_of(best)


def best_of(trials: Iterable[FinishedTrial]) -> FinishedTrial:
    """The best of a head's trials on validation images; of equals the first."""
    return max(trials, key=lambda one: _validation_score(one.trial, one.facts))


def _validation_score(trial: Trial, facts: Mapping[str, Any]) -> float:
    """In the epoch whose weights the trial has, higher is better; 0 without validation images."""
    history = facts["history"]
    found = history["validation_loss" if trial.multi_label else "validation_accuracy"]
    score = float(found[history["best_epoch"] - 1]) if found else 0.0
    return -score if trial.multi_label else score


def files_to_keep(
    done: Mapping[str, list[FinishedTrial]], score: Callable[[FinishedTrial], float], keep: Keep
) -> dict[str, FinishedTrial]:
    """The trials whose models are kept, by their files in OUT; the best of all comes first."""
    best = best_trial(done.values(), score)
    if keep == "none" or best is None:
        return {}
    if keep == "all":
        others = [one for trials in done.values() for one in trials]
    else:
        others = [best_of(trials) for trials in done.values() if trials]
    files = {FILE: best}
    for one in others:
        if one is not best:
            seed = f"-{'seed' if one.trial.fold is None else 'fold'}{one.trial.seed}" if keep == "all" else ""
            name = re.sub(r"[^\w.+=,-]+", "-", one.trial.head) + seed
            while (file := f"{FOLDER}/{name}.safetensors") in files:  # two specs that are written alike
                name += "-"
            files[file] = one
    return files


def is_written(file: str, one: FinishedTrial, out: Path) -> bool:
    """Whether OUT holds the model of this trial in this file, unchanged, from an earlier run."""
    try:
        results = read_sealed(out / "results.json", "results")
        written = {entry["file"]: entry["trial"] for entry in results.get("models", [])}
        if written.get(file) != one.trial.id:
            return False
        read_vouched(out, file, results)
    except (OSError, DamagedError):
        return False
    return True


def stored_weights(one: FinishedTrial, out: Path, log: Callable[[str], None]) -> bytes | None:
    """The safetensors of its head, or of the network that was trained whole; None if they are not there or damaged."""
    try:
        return read_stored(out / "trials" / one.trial.id, one.facts)
    except DamagedError as error:
        log(damage_note([error]))
        return None


def drop_weights(out: Path, trials: Iterable[Trial]) -> None:
    """Remove the stored weights of networks that were trained whole."""
    for trial in trials:
        remove(out / "trials" / trial.id / WEIGHTS)


def prune_weights(out: Path, trials: Iterable[tuple[Trial, Mapping[str, Any]]]) -> None:
    """Of a head's trials with their facts, leave the weights of the best alone: they take the most space."""
    best, *_ = ranked = sorted(trials, key=lambda each: -_validation_score(*each))
    drop_weights(out, (trial for trial, _ in ranked if trial is not best[0]))


Job = tuple[Trial, bytes | FeatureCache, Path, TrainedOn]
"""A trial, its weights (or what they are trained on again), the file of its model, the images it was trained on."""


def write_models(store: Path, jobs: list[Job]) -> None:
    """Save the trials' models, in one process. Raises JobError if that fails."""
    for _, _, path, _ in jobs:
        path.parent.mkdir(exist_ok=True)
    run_one(partial(_save, store), jobs)


def _save(store: Path, jobs: list[Job], send: Callable[[object], None]) -> None:
    model: Classifier | None = None
    for trial, weights, path, trained_on in jobs:
        if isinstance(weights, bytes):
            state = load(weights)
        else:
            torch.set_num_threads(trial.threads)
            make_repeatable()
            state = train_on_cache(trial, weights, Store.open(store).labels)[0].head.state_dict()
        if trial.frozen:
            model = _with_head(trial, model)
            model.head.load_state_dict(state)
        else:
            model = trial.build()
            model.load_state_dict(state)
        model.trained_on = trained_on
        model.eval().cpu().save(path)
        send(str(path))


def _with_head(trial: Trial, earlier: Classifier | None) -> Classifier:
    """The trial's frozen backbone and its head; the backbone of an earlier model serves again."""
    if earlier is None:
        return trial.build()
    features, prepared = earlier.features, trial.preprocessing
    reads = parse(trial.head).reads
    if reads.own != earlier.head.reads.own:
        return trial.build()  # with the backbone's own pooler, or without it
    cells = map_size(features, prepared.channels, prepared.size)
    earlier.head = Head(trial.head, features.width(reads), len(trial.labels), cells)
    return earlier


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


def entry(file: str, one: FinishedTrial) -> dict[str, Any]:
    """An entry of "models" in results.json."""
    trial = one.trial
    return {
        "file": file,
        "trial": trial.id,
        "head": trial.head,
        "seed": trial.seed,
        "fold": trial.fold,
        **{key: one.facts[key] for key in ("test_accuracy", "test_average_precision") if key in one.facts},
    }
