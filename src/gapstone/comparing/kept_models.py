"""The trained models that a comparison keeps: OUT/models, one of each head, and OUT/model.safetensors, the best.

On a frozen backbone trials store heads that are small; the training of a larger one is repeated, which gives the same
weights. A network that is trained whole stores its weights in its trial's folder until it is known which are kept.
"""

import os
import re
import shutil
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
from gapstone.storage.atomic import atomic_file, remove
from gapstone.storage.sealed_json import DamagedError, damage_note, digests, read_sealed, read_vouched, write_sealed
from gapstone.training.loop import make_repeatable
from gapstone.workers.job_processes import run_one

FILE, FOLDER = "model.safetensors", "models"
INDEX = "index.json"
"""Of OUT/models: which trial's model is in which file. Models of other heads than the last run's stay."""


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


def files_to_keep(done: Mapping[str, list[FinishedTrial]], keep: Keep) -> dict[str, FinishedTrial]:
    """The trials whose models are kept, by their files in OUT/models."""
    files: dict[str, FinishedTrial] = {}
    for head, trials in done.items():
        if keep == "none" or not trials:
            continue
        best = best_of(trials)
        for one in [best, *(one for one in trials if keep == "all" and one is not best)]:
            seed = f"-{'seed' if one.trial.fold is None else 'fold'}{one.trial.seed}" if keep == "all" else ""
            name = re.sub(r"[^\w.+=,-]+", "-", head) + seed
            while (file := f"{name}.safetensors") in files:  # two specs that are written alike
                name += "-"
            files[file] = one
    return files


def is_written(file: str, one: FinishedTrial, out: Path) -> bool:
    """Whether OUT/models holds the model of this trial in this file, unchanged."""
    try:
        index = _read_index(out)
        if index["trials"].get(file) != one.trial.id:
            return False
        read_vouched(out / FOLDER, file, index)
    except (OSError, DamagedError):
        return False
    return True


def _read_index(out: Path) -> dict[str, Any]:
    return read_sealed(out / FOLDER / INDEX, "models")


def put_first(file: str, out: Path) -> None:
    """Make OUT/model.safetensors the model in this file of OUT/models; linked, it takes no space twice."""
    with atomic_file(out / FILE) as unfinished:
        remove(unfinished)
        try:
            os.link(out / FOLDER / file, unfinished)
        except OSError:  # a file system without links
            shutil.copyfile(out / FOLDER / file, unfinished)


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


Job = tuple[Trial, bytes | FeatureCache, str, TrainedOn]
"""A trial, its weights (or what they are trained on again), the file of its model, the images it was trained on."""


def write_models(store: Path, out: Path, jobs: list[Job]) -> None:
    """Save the trials' models in OUT/models, in one process. Raises JobError if that fails."""
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    run_one(partial(_save, store, folder), jobs)
    trials = {file: trial.id for trial, _, file, _ in jobs}
    try:
        index = _read_index(out)
    except (FileNotFoundError, DamagedError):
        index = {"trials": {}, "files": {}}
    written = {"trials": index["trials"] | trials, "files": index["files"] | digests(folder, list(trials))}
    write_sealed(folder / INDEX, written, "models")


def _save(store: Path, folder: Path, jobs: list[Job], send: Callable[[object], None]) -> None:
    model: Classifier | None = None
    for trial, weights, file, trained_on in jobs:
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
        model.eval().cpu().save(folder / file)
        send(file)


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
