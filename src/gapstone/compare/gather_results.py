"""Gather the results of all trial folders into results.json, whose schema is in docs/results.md."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gapstone
from gapstone.compare import looks as look_counts
from gapstone.compare import predictions_file, result_files
from gapstone.compare.boxed_images import among
from gapstone.compare.finished_trials import FinishedTrial, by_head
from gapstone.compare.learning_curve import curve_results, labelled
from gapstone.compare.map_localisation import SCORES, baselines
from gapstone.compare.plan import ComparisonPlan
from gapstone.compare.remarks import remarks
from gapstone.compare.tested_groups import groups_counted, groups_of, groups_said
from gapstone.compare.tested_values import (
    CONFIDENCE,
    agreement_of,
    boxed,
    mean_of,
    metrics_of,
    moved,
    pairs_of,
    recalls,
    shifted_values,
    stat_of,
    values_of,
)
from gapstone.compare.trials import Trial
from gapstone.compare.verdict import sentences
from gapstone.drawing.confusion_picture import most_confused
from gapstone.heads import parse
from gapstone.images.cropping import cropping_note
from gapstone.runtime.environment import installed, processor
from gapstone.statistics.collapsed_seeds import collapses
from gapstone.statistics.compare_pairs import interval
from gapstone.statistics.metrics import METRICS
from gapstone.storage.sealed_json import digests, write_sealed

SCHEMA = 4
MOST_WORST = 12
SHARE = (0.0, 1.0)
RANGES = {
    "generalisation_gap": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    **dict.fromkeys(("nll", "peak_memory_mb", "train_seconds"), (0.0, float("inf"))),
}
"""The range of each measure; all others are shares."""


def gather(
    plan: ComparisonPlan,
    done: dict[str, list[FinishedTrial]],
    out: Path,
    failed: dict[str, str],
    command: str,
    speed: dict[str, Any],
    model: dict[str, Any] | None,
    look: int,
) -> dict[str, Any]:
    """Write results.json, results.csv, the predictions and pictures.npz of the finished trials.

    `done` are those of the plan, by head; `failed` is the reason of each failure by trial id; `speed`, by head, is from
    `measure_head_speeds`; `model` is the entry of the best head's model in OUT, None if there is none; `look` is from
    `record_look`.
    Returns the results, as in results.json.
    """
    metric, chosen = plan.metric
    prepared, folds = plan.prepared, plan.request.folds
    tested = np.concatenate([split.test for split in prepared.splits]) if folds else prepared.splits[0].test
    pictures, worst = _worst(plan, done)
    shifted = {head: [trial for trial in trials if "shifted" in trial.arrays] for head, trials in done.items()}
    localised = {head: [trial for trial in trials if "found" in trial.arrays] for head, trials in done.items()}
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "gapstone": gapstone.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "data": _data(plan, tested),
        "settings": _settings(plan) | {"look": look, "metric": metric.name, "shift_metric": metric.moved},
        "metrics": [one.to_json() for one in metrics_of(plan)],
        "machine": machine(prepared.device),
        "versions": versions(),
        "scan": prepared.scan.to_json(),
        "heads": [_head(plan, head, done[head], failed, speed.get(head)) for head in plan.request.heads],
        "collapsed": collapses(
            {head: {one.trial.seed: mean_of(plan, metric, one) for one in trials} for head, trials in done.items()},
            "fold" if folds else "seed",
            metric.unit,
        ),
        "pairs": pairs_of(plan, done, partial(values_of, plan, metric), look, metric),
        "shift_pairs": pairs_of(
            plan, shifted, partial(shifted_values, plan, metric), look, METRICS[metric.moved], moved
        ),
        "localisation": _objects(plan, tested),
        "localisation_pairs": pairs_of(plan, localised, lambda one: np.asarray(one.arrays["found"]), look, rows=boxed),
        "trials": [_trial(trial, done[trial.head], failed) for trial in plan.trials],
        "worst": worst,
        "model": model,
    }
    results["curve"] = _curve(plan, out, done, look)
    results["verdict"], results["findings"] = sentences(results)
    about = filter(None, [chosen, groups_said(results["data"]), look_counts.said(look, CONFIDENCE)])
    results["remarks"] = [*plan.left_out, *about, *remarks(results)]
    result_files.write_trials(out / "results.csv", plan, done)
    predictions_file.write_predictions(out, plan, done)
    result_files.write_pictures(out / "pictures.npz", plan, done, pictures)
    results["files"] = digests(out, ["pictures.npz", *([model["file"]] if model else [])])
    write_sealed(out / "results.json", results, "results")
    return results


def _data(plan: ComparisonPlan, tested: NDArray[np.int64]) -> dict[str, Any]:
    """The "data" entry of results.json."""
    prepared, parts = plan.prepared, plan.prepared.splits[0]
    labels = prepared.store.labels
    return {
        "source": plan.request.choices.data,
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
        "counts": {
            name: np.bincount(labels[rows], minlength=len(prepared.labels)).tolist()
            for name, rows in (("train", parts.train), ("test", tested))
        },
    }


def _settings(plan: ComparisonPlan) -> dict[str, Any]:
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
        "augment": settings.augment.describe(),
        "balance": settings.balance,
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


def _head(
    plan: ComparisonPlan, head: str, done: Sequence[FinishedTrial], failed: dict[str, str], speed: dict[str, Any] | None
) -> dict[str, Any]:
    spec = parse(head)
    grid = int(spec.number("grid", 0))
    layers = f"the last {spec.reads.layers} layers side by side, " if spec.reads.layers > 1 else ""
    entry: dict[str, Any] = {
        "head": head,
        "describe": layers + (f"maps averaged to {grid}×{grid}, " if grid else "") + spec.recipe.describe,
        "failed": [
            {"seed": trial.seed, "reason": failed[trial.id]}
            for trial in plan.trials
            if trial.head == head and trial.id in failed
        ],
        "ms_per_image": speed,
    }
    facts = [finished.facts for finished in done]
    first = facts[0] if facts else {}
    for key in ("parameters", "head_parameters", "macs"):
        entry[key] = first.get(key)
    entry["input"] = None if not facts else first["takes_only"] or "any"
    stats = {
        key: [fact[key] for fact in facts]
        for key in ("train_accuracy", "generalisation_gap", "nll", "brier", "ece", "peak_memory_mb")
    }
    robust = bool(first) and first["shift"] is not None
    stats["train_seconds"] = [fact["history"]["seconds"] for fact in facts]
    entry |= {key: _stat(values, RANGES.get(key, SHARE)) for key, values in stats.items()}
    metrics = {one.name: stat_of(plan, done, partial(values_of, plan, one), one) for one in metrics_of(plan)}
    entry["test_accuracy"], entry["metrics"], entry["recall"] = metrics["accuracy"], metrics, recalls(plan, done)
    moves = done if robust else []
    entry["shift_accuracy"] = stat_of(plan, moves, lambda one: np.asarray(one.arrays["shifted"]), rows=moved)
    if not facts:
        missing = dict.fromkeys(("shift", "sizes", "reliability", "confusion", "confused", "localisation"), None)
        return entry | missing | {"curves": []}
    entry |= _robustness(facts) if robust else {"shift": None, "sizes": None, "robustness_images": 0}
    entry["reliability"] = _pooled([fact["bins"] for fact in facts])
    entry["curves"] = [
        {
            "seed": fact["seed"],
            "epoch": list(range(1, len(fact["history"]["train_loss"]) + 1)),
            "train_loss": fact["history"]["train_loss"],
            "validation_accuracy": fact["history"]["validation_accuracy"],
        }
        for fact in facts
    ]
    entry["confusion"] = np.sum([fact["confusion"] for fact in facts], 0).tolist()
    entry["confused"] = most_confused(entry["confusion"], plan.prepared.labels)
    entry["localisation"] = _localisation(facts)
    if entry["localisation"]:
        found = [one for one in done if "found" in one.arrays]
        entry["localisation"]["gt_known"] = stat_of(plan, found, lambda one: one.arrays["found"], rows=boxed)
    return entry


def _robustness(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the trials on moved and resized images."""
    first = facts[0]
    return {
        "shift": {
            "pixels": first["shift"]["pixels"],
            "accuracy": _mean([fact["shift"]["accuracy"] for fact in facts]),
            "same_prediction": _mean([fact["shift"]["same_answer"] for fact in facts]),
        },
        "sizes": first["sizes"] | {"accuracy": _mean([fact["sizes"]["accuracy"] for fact in facts])},
        "robustness_images": first["robustness_images"],
    }


def _localisation(facts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Localisation scores over the trials with boxed test images; None if there are none."""
    trials = [fact["localisation"] for fact in facts if fact.get("localisation")]
    if not trials:
        return None
    shares = {key: [scores[key] for scores in trials] for key in SCORES}
    shares["without_evidence"] = [scores["without_evidence"] / scores["pictures"] for scores in trials]
    # a score that some trials lack (too few boxed validation images) is None: its mean would be over other seeds
    thresholds = {key: [scores[f"{key}_threshold"] for scores in trials] for key in ("tuned", "max_box_acc")}
    return {
        "additive": facts[0]["additive"],
        "held": facts[0]["held"],
        "reference": trials[0]["reference"],
        **{key: None if None in values else _stat(values) for key, values in shares.items()},
        "thresholds": {key: None if None in values else values for key, values in thresholds.items()},
    }


def _objects(plan: ComparisonPlan, tested: NDArray[np.int64]) -> dict[str, Any] | None:
    """The numbers of images and boxes that localisation is measured on, and the scores of the baselines."""
    if plan.objects is None:
        return None
    boxed = among(plan.objects, tested)
    return {
        "pictures": len(boxed),
        "boxes": sum(len(image.boxes) for image in boxed),
        "validation": len(among(plan.objects, plan.prepared.splits[0].validation)),
        "baselines": baselines(boxed),
    }


def _stat(values: list[float], within: tuple[float, float] = SHARE) -> dict[str, Any]:
    if not values:
        return {"mean": None, "ci95": None, "values": []}
    mean, ci95 = interval(values, within=within)
    return {"mean": mean, "ci95": None if ci95 is None else list(ci95), "values": values}


def _mean(rows: list[list[float | None]]) -> list[float | None]:
    columns = ([value for value in column if value is not None] for column in zip(*rows, strict=True))
    return [float(np.mean(column)) if column else None for column in columns]


def _pooled(bins: list[dict[str, list[Any]]]) -> dict[str, Any]:
    """Reliability over all trials, each bin weighted by its number of predictions."""
    count = np.sum([b["count"] for b in bins], 0)

    def weighted(key: str) -> list[float | None]:
        total = np.sum([np.array([v or 0.0 for v in b[key]]) * np.array(b["count"]) for b in bins], 0)
        return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]

    return {
        "edges": bins[0]["edges"],
        "confidence": weighted("confidence"),
        "accuracy": weighted("accuracy"),
        "count": count.tolist(),
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
    return curve_results(points, values, plan.baseline, metric.unit, CONFIDENCE, look, added, groups)


def _trial(trial: Trial, done: Sequence[FinishedTrial], failed: dict[str, str]) -> dict[str, Any]:
    facts = next((finished.facts for finished in done if finished.trial.id == trial.id), None)
    entry = {"id": trial.id, "head": trial.head, "seed": trial.seed, "fold": trial.fold}
    if facts is None:
        reason = failed.get(trial.id, "not run yet")
        missing = dict.fromkeys(
            ("seconds", "epochs", "best_epoch", "learning_rate", "weight_decay", "test_accuracy", "train_accuracy")
        )
        return entry | {"status": "failed", "reason": reason} | missing
    history, choice = facts["history"], facts.get("tuning") or vars(trial.settings)
    return entry | {
        "status": "done",
        "reason": None,
        "seconds": history["seconds"],
        "epochs": len(history["train_loss"]),
        "best_epoch": history["best_epoch"],
        "learning_rate": choice["learning_rate"],
        "weight_decay": choice["weight_decay"],
        "test_accuracy": facts["test_accuracy"],
        "train_accuracy": facts["train_accuracy"],
    }


def _worst(
    plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The test images with the largest sum of confidences in wrong predictions: their pixels, and their entries."""
    prepared = plan.prepared
    labels, names = prepared.store.labels, prepared.store.names
    total = np.zeros(len(labels))
    for trial in (trial for trials in done.values() for trial in trials):
        wrong = ~trial.correct(labels)
        np.add.at(total, trial.arrays["test"][wrong], trial.arrays["confidence"][wrong])
    rows = [int(row) for row in np.argsort(-total, kind="stable")[:MOST_WORST] if total[row] > 0]
    entries = []
    for index, row in enumerate(rows):
        entry: dict[str, Any] = {"name": names[row], "label": prepared.labels[labels[row]], "picture": index}
        entry |= {"wrong": {}, "predictions": {}, "confidence": {}}
        for head, trials in done.items():
            answers = [(int(a[0]), float(c[0])) for a, c in (_answer(trial, row) for trial in trials) if len(a)]
            if not answers:
                continue
            prediction = Counter(a for a, _ in answers).most_common(1)[0][0]
            entry["wrong"][head] = float(np.mean([a != labels[row] for a, _ in answers]))
            entry["predictions"][head] = prepared.labels[prediction]
            entry["confidence"][head] = float(np.mean([c for a, c in answers if a == prediction]))
        entries.append(entry)
    pixels = prepared.preprocessing.centre(np.asarray(prepared.store.images[rows]))
    return np.asarray(pixels, np.uint8), entries


def _answer(finished: FinishedTrial, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Prediction and confidence for one image; empty if the trial did not test it."""
    matches = finished.arrays["test"] == row
    return finished.arrays["answer"][matches], finished.arrays["confidence"][matches]


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
