"""The entry of each head in results.json: means over its trials, intervals, curves, moved images, localisation."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gapstone.comparing.class_results import class_results
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.map_localisation import SCORES
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_values import (
    boxed,
    boxed_classes,
    metrics_of,
    moved,
    recalls,
    shifted_values,
    stat_of,
    values_of,
)
from gapstone.drawing.confusion_picture import most_confused
from gapstone.heads import parse
from gapstone.statistics.compare_pairs import interval
from gapstone.statistics.labels import class_sets
from gapstone.statistics.metrics import MULTI_LABEL

SHARE = (0.0, 1.0)
RANGES = {
    "generalisation_gap": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    **dict.fromkeys(("nll", "peak_memory_mb", "train_seconds"), (0.0, float("inf"))),
}
"""The range of each measure; all others are shares."""


def head_results(
    plan: ComparisonPlan, head: str, done: Sequence[FinishedTrial], failed: dict[str, str], speed: dict[str, Any] | None
) -> dict[str, Any]:
    """The entry of a head in results.json, of its finished trials; `failed` as in `gather`, `speed` of this head."""
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
    facts, multi_label = [finished.facts for finished in done], plan.multi_label
    first = facts[0] if facts else {}
    for key in ("parameters", "head_parameters", "macs"):
        entry[key] = first.get(key)
    entry["input"] = None if not facts else first["takes_only"] or "any"
    stats = {
        key: [fact[key] for fact in facts]
        for key in ("train_accuracy", "generalisation_gap", "nll", "brier", "ece", "peak_memory_mb")
    }
    if multi_label:
        stats["train_average_precision"] = [fact["train_average_precision"] for fact in facts]
    robust = bool(first) and first["shift"] is not None
    stats["train_seconds"] = [fact["history"]["seconds"] for fact in facts]
    entry |= {key: _stat(values, RANGES.get(key, SHARE)) for key, values in stats.items()}
    metrics = {one.name: stat_of(plan, done, partial(values_of, plan, one), one) for one in metrics_of(plan)}
    entry["test_accuracy"], entry["metrics"] = metrics["accuracy"], metrics
    entry |= _of_classes(plan, done) if multi_label else {"recall": recalls(plan, done)}
    entry["constant"] = constant_answers(plan, done)
    entry |= _moved(plan, done if robust else [])
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
            **({"validation_loss": fact["history"]["validation_loss"]} if multi_label else {}),
        }
        for fact in facts
    ]
    entry["confusion"] = None if multi_label else np.sum([fact["confusion"] for fact in facts], 0).tolist()
    entry["confused"] = None if multi_label else most_confused(entry["confusion"], plan.prepared.labels)
    entry["localisation"] = _localisation(facts)
    if entry["localisation"]:
        found = [one for one in done if "found" in one.arrays]
        entry["localisation"]["gt_known"] = stat_of(plan, found, lambda one: one.arrays["found"], rows=boxed)
        if multi_label:
            entry["localisation"]["classes"] = _localised_classes(plan, found)
    return entry


def _of_classes(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> dict[str, Any]:
    return {"recall": None, "classes": class_results(plan, done)}


def _moved(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> dict[str, Any]:
    """What moved images are compared by, of the trials that have some."""
    if plan.multi_label:
        metric = MULTI_LABEL["balanced_accuracy"]
        values = partial(shifted_values, plan, metric)
        return {"shift_balanced_accuracy": stat_of(plan, done, values, metric, rows=moved)}
    return {"shift_accuracy": stat_of(plan, done, lambda one: np.asarray(one.arrays["shifted"]), rows=moved)}


def constant_answers(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> list[dict[str, Any]]:
    """The trials that answer the same for all test images: their seed (or fold), and the classes answered."""
    found = []
    for one in done:
        answered = one.arrays["answer"]
        if len(answered) > 1 and (answered == answered[0]).all():
            names = [plan.prepared.labels[k] for k in class_sets(answered[:1])[0]]
            found.append({"seed": one.trial.seed, "answers": names})
    return found


def _robustness(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the trials on moved and resized images."""
    first = facts[0]
    score = "balanced_accuracy" if "balanced_accuracy" in first["shift"] else "accuracy"
    return {
        "shift": {
            "pixels": first["shift"]["pixels"],
            score: _mean([fact["shift"][score] for fact in facts]),
            "same_prediction": _mean([fact["shift"]["same_answer"] for fact in facts]),
        },
        "sizes": first["sizes"] | {score: _mean([fact["sizes"][score] for fact in facts])},
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


def _localised_classes(plan: ComparisonPlan, done: Sequence[FinishedTrial]) -> list[dict[str, Any]]:
    """Of each class with boxes, how many test images have them, and the scores of its maps over all trials."""
    rows, classes = (np.concatenate([of(one) for one in done]) for of in (boxed, boxed_classes))
    found, pointed = (np.concatenate([one.arrays[key] for one in done]) for key in ("found", "pointed"))
    return [
        {
            "class": plan.prepared.labels[k],
            "images": len(np.unique(rows[classes == k])),
            "gt_known": float(found[classes == k].mean()),
            "pointing": float(pointed[classes == k].mean()),
        }
        for k in np.unique(classes).tolist()
    ]


def _stat(values: list[float], within: tuple[float, float] = SHARE) -> dict[str, Any]:
    if not values or None in values:
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
