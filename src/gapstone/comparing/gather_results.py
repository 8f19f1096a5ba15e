"""Gather the results of all trial folders into results.json, whose schema is in docs/results.md."""

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gapstone
from gapstone.comparing import looks as look_counts
from gapstone.comparing import predictions_file, result_files
from gapstone.comparing.boxed_images import among, number_of_images
from gapstone.comparing.finished_trials import FinishedTrial, by_head
from gapstone.comparing.head_results import head_results
from gapstone.comparing.learning_curve import IN_ALL, OF_EACH_CLASS, curve_results, labelled
from gapstone.comparing.map_localisation import baselines
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.remarks import remarks
from gapstone.comparing.tested_groups import groups_counted, groups_of, groups_said
from gapstone.comparing.tested_values import (
    CONFIDENCE,
    agreement_of,
    boxed,
    labels_of,
    mean_of,
    metrics_of,
    moved,
    pairs_of,
    shifted_values,
    tested,
    values_of,
)
from gapstone.comparing.trials import Trial
from gapstone.comparing.verdict import sentences
from gapstone.comparing.worst_images import worst_images
from gapstone.images.cropping import cropping_note
from gapstone.runtime.environment import installed, processor
from gapstone.statistics import multi_label_metrics
from gapstone.statistics.collapsed_seeds import collapses
from gapstone.statistics.labels import class_counts
from gapstone.statistics.metrics import most_answers
from gapstone.storage.sealed_json import digests, write_sealed
from gapstone.training.drawn_rows import DESCRIBED

SCHEMA = 5


def gather(
    plan: ComparisonPlan,
    done: dict[str, list[FinishedTrial]],
    out: Path,
    failed: dict[str, str],
    command: str,
    config: str,
    speed: dict[str, Any],
    models: list[dict[str, Any]],
    look: int,
) -> dict[str, Any]:
    """Write results.json, results.csv, the predictions and pictures.npz of the finished trials.

    `done` are those of the plan, by head; `failed` is the reason of each failure by trial id; `config` is from
    `as_toml`; `speed`, by head, is from `measure_head_speeds`; `models` are the entries of the models in OUT; `look` is
    from `record_look`.
    Returns the results, as in results.json.
    """
    metric, chosen = plan.metric
    by_moved = metric.moved_by(plan.multi_label)
    prepared, folds = plan.prepared, plan.request.folds
    rows = np.concatenate([split.test for split in prepared.splits]) if folds else prepared.splits[0].test
    pictures, worst = worst_images(plan, done)
    shifted = {head: [trial for trial in trials if "shifted" in trial.arrays] for head, trials in done.items()}
    localised = {head: [trial for trial in trials if "found" in trial.arrays] for head, trials in done.items()}
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "gapstone": gapstone.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "config": config,
        "data": _data(plan, rows),
        "settings": settings_of(plan) | {"look": look, "metric": metric.name, "shift_metric": by_moved.name},
        "metrics": [one.to_json() for one in metrics_of(plan)],
        "machine": machine(prepared.device),
        "versions": versions(),
        "scan": prepared.scan.to_json(),
        "heads": [head_results(plan, head, done[head], failed, speed.get(head)) for head in plan.request.heads],
        "collapsed": collapses(
            {head: {one.trial.seed: mean_of(plan, metric, one) for one in trials} for head, trials in done.items()},
            "fold" if folds else "seed",
            metric.unit,
        ),
        "pairs": pairs_of(plan, done, partial(values_of, plan, metric), look, metric),
        "shift_pairs": pairs_of(plan, shifted, partial(shifted_values, plan, metric), look, by_moved, moved),
        "localisation": _objects(plan, rows),
        "localisation_pairs": pairs_of(plan, localised, lambda one: np.asarray(one.arrays["found"]), look, rows=boxed),
        "trials": [_trial(trial, done[trial.head], failed) for trial in plan.trials],
        "worst": worst,
        "models": models,
    }
    results["curve"] = _curve(plan, out, done, look)
    results["verdict"], results["findings"] = sentences(results)
    about = filter(None, [chosen, groups_said(results["data"]), look_counts.said(look, CONFIDENCE)])
    results["remarks"] = [*plan.left_out, *about, *remarks(results)]
    result_files.write_trials(out / "results.csv", plan, done)
    predictions_file.write_predictions(out, plan, done)
    result_files.write_pictures(out / "pictures.npz", plan, done, pictures)
    results["files"] = digests(out, ["pictures.npz", *(model["file"] for model in models)])
    write_sealed(out / "results.json", results, "results")
    return results


def _data(plan: ComparisonPlan, tested: NDArray[np.int64]) -> dict[str, Any]:
    """The "data" entry of results.json."""
    prepared, parts = plan.prepared, plan.prepared.splits[0]
    labels, counted = prepared.store.labels, {"train": parts.train, "test": tested}
    return {
        "source": prepared.source.given,
        "kind": prepared.source.kind,
        "classes": list(prepared.labels),
        "train": len(parts.train),
        "validation": len(parts.validation),
        "test": len(tested),
        "size": list(prepared.preprocessing.size),
        "channels": prepared.preprocessing.channels,
        "hash": prepared.hash,
        "split": parts.described,
        "cropped": cropping_note(prepared.preprocessing, prepared.scan.size_counts()),
        "caution": plan.caution,
        "groups": groups_counted(plan, tested, plan.metric[0].by_class),
        "counts": {name: class_counts(labels[rows], len(prepared.labels)).tolist() for name, rows in counted.items()},
        **_of_multi_label(plan, counted),
    }


def _of_multi_label(plan: ComparisonPlan, parts: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """What the data say of images that have several classes, or none."""
    if not plan.multi_label:
        return {}
    labels = np.asarray(plan.prepared.store.labels, bool)
    known = multi_label_metrics.counted(labels[parts["test"]])
    return {
        "multi_label": True,
        "labels_per_image": {name: float(labels[rows].sum() / len(rows)) for name, rows in parts.items()},
        "without_class": {name: int((~labels[rows].any(1)).sum()) for name, rows in parts.items()},
        "uncounted": [name for name, counts in zip(plan.prepared.labels, known, strict=True) if not counts],
    }


def settings_of(plan: ComparisonPlan) -> dict[str, Any]:
    """The "settings" entry of results.json."""
    prepared, settings = plan.prepared, plan.prepared.settings
    return {
        "backbone": prepared.backbone,
        "pretrained": plan.prepared.pretrained,
        "frozen": plan.prepared.frozen,
        "weights": None if plan.request.weights is None else str(plan.request.weights),
        "weights_digest": prepared.weights_digest,
        "heads": list(plan.request.heads),
        "baseline": plan.baseline,
        "seeds": [] if plan.request.folds else list(range(plan.request.seeds)),
        "folds": plan.request.folds,
        **{key: getattr(settings, key) for key in ("epochs", "patience", "batch_size", "optimizer")},
        **_rates(plan),
        "augment": settings.augment.describe() if prepared.drawn is None else DESCRIBED,
        "balance": settings.balance,
        "sample_weight": plan.request.choices.sample_weight,
        "precision": settings.precision,
        "threads": plan.measured["threads"],
        "workers": plan.workers,
        "device": prepared.device,
        "confidence": CONFIDENCE,
    }


def _rates(plan: ComparisonPlan) -> dict[str, Any]:
    """Learning rate and weight decay of all trials, or what was tried and chosen from in each of them."""
    settings, grid = plan.prepared.settings, plan.trials[0].tuning
    if grid is None or not len(plan.trials[0].validation):
        return {"learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay, "tuning": None}
    tried = {"learning_rates": list(grid.learning_rates), "weight_decays": list(grid.weight_decays)}
    return {"learning_rate": None, "weight_decay": None, "tuning": tried}


def _objects(plan: ComparisonPlan, tested: NDArray[np.int64]) -> dict[str, Any] | None:
    """The numbers of images and boxes that localisation is measured on, and the scores of the baselines."""
    if plan.objects is None:
        return None
    boxed = among(plan.objects, tested)
    return {
        "pictures": number_of_images(boxed),
        "boxes": sum(len(image.boxes) for image in boxed),
        "validation": number_of_images(among(plan.objects, plan.prepared.splits[0].validation)),
        **({"maps": len(boxed)} if plan.multi_label else {}),
        "baselines": baselines(boxed),
    }


def _curve(plan: ComparisonPlan, out: Path, done: dict[str, list[FinishedTrial]], look: int) -> dict[str, Any] | None:
    """The "curve" entry of results.json: the points of the curve, and the comparison itself, of all labelled images."""
    if not plan.curve:
        return None
    metric, _ = plan.metric
    finished = [*(by_head(plan.request.heads, trials, out) for trials in plan.curve.values()), done]
    values = [
        {head: {one.trial.seed: values_of(plan, metric, one) for one in trials} for head, trials in at.items()}
        for at in finished
    ]
    whole = [one for trials in done.values() for one in trials]
    trials = [*(trials[0] for trials in plan.curve.values()), plan.trials[0]]
    points = list(zip([*plan.curve, None], map(labelled, trials), strict=True))
    added = agreement_of(plan, whole, metric)
    groups = groups_of(plan, {one.trial.seed: one.trial.test for one in whole}, metric.by_class)
    most = most_answers(metric, labels_of(plan, whole, tested), added) if whole else None
    of = IN_ALL if plan.multi_label else OF_EACH_CLASS
    by = plan.baseline, metric.unit, CONFIDENCE
    entry = curve_results(points, values, *by, look, added, groups, most, metric.by_tails, metric.level_by_tails, of)
    if plan.multi_label:
        there = plan.prepared.store.labels
        for point, trial in zip(entry["points"], trials, strict=True):
            point["unseen"] = int((~there[trial.train].any(0)).sum())
    return entry


def _trial(trial: Trial, done: Sequence[FinishedTrial], failed: dict[str, str]) -> dict[str, Any]:
    facts = next((finished.facts for finished in done if finished.trial.id == trial.id), None)
    entry: dict[str, Any] = {"id": trial.id, "head": trial.head, "seed": trial.seed, "fold": trial.fold}
    if facts is None:
        reason = failed.get(trial.id, "not run yet")
        missing = dict.fromkeys(
            ("seconds", "epochs", "best_epoch", "learning_rate", "weight_decay", "test_accuracy", "train_accuracy")
        )
        return entry | {"status": "failed", "reason": reason} | missing
    history, choice = facts["history"], facts.get("tuning") or vars(trial.settings)
    several: dict[str, Any] = {
        key: facts[key] for key in ("test_average_precision", "train_average_precision") if key in facts
    }
    return {
        **entry,
        "status": "done",
        "reason": None,
        "seconds": history["seconds"],
        "epochs": len(history["train_loss"]),
        "best_epoch": history["best_epoch"],
        "learning_rate": choice["learning_rate"],
        "weight_decay": choice["weight_decay"],
        "test_accuracy": facts["test_accuracy"],
        "train_accuracy": facts["train_accuracy"],
        **several,
    }


def machine(device: str) -> dict[str, Any]:
    """The machine that the results were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }


def versions() -> dict[str, str]:
    libraries = {name: version for name in ("torch", "numpy", "pillow", "timm") if (version := installed(name))}
    return {"gapstone": gapstone.__version__, "python": platform.python_version()} | libraries
