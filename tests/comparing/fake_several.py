"""A comparison of several labels per image whose trials never ran: probabilities are drawn, all else is computed."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gapstone.comparing import trial_measures
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.gather_results import _of_multi_label as data_of_several
from gapstone.comparing.head_results import head_results
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.remarks import remarks
from gapstone.comparing.shown_images import shown_images
from gapstone.comparing.tested_values import (
    mean_of,
    metrics_of,
    pairs_of,
    shifted_values,
    values_of,
)
from gapstone.comparing.verdict import sentences
from gapstone.comparing.worst_images import worst_images
from gapstone.statistics.calibration import calibration
from gapstone.statistics.collapsed_seeds import collapses
from gapstone.statistics.labels import class_counts
from gapstone.statistics.metrics import MULTI_LABEL, Metric
from tests.comparing import fake_results

Array = Any
MARGIN = {"gap": 2.5, "gmp": 2.4, "fc": 1.2}
"""How far the logits of a head lie from 0 on average."""


def drawn_labels(rng: np.random.Generator, images: int, classes: int) -> Array:
    """Common to rare; some images have none."""
    shares = np.geomspace(0.45, 0.02, classes)
    common = rng.normal(size=(images, 1))
    return 0.5 * common + 0.87 * rng.normal(size=(images, classes)) > -np.quantile(rng.normal(size=4000), shares)


def drawn_logits(rng: np.random.Generator, head: str, hard: Array, labels: Array) -> Array:
    away = MARGIN.get(head, 2.0) + hard + 0.4 * rng.normal(size=labels.shape) + 0.1 * rng.normal()
    return (away * (2.0 * labels - 1)).astype(np.float32)


def plan_of(
    labels: Array,
    classes: Sequence[str],
    heads: Sequence[str],
    metric: Metric,
    side: int = 32,
    folds: int | None = None,
) -> ComparisonPlan:
    """What these functions look at of a plan, whose second half are the test images."""
    half = len(labels) // 2
    rng = np.random.default_rng(1)
    store = SimpleNamespace(
        labels=labels,
        names=tuple(f"{i:04d}.png" for i in range(len(labels))),
        images=rng.integers(0, 255, (len(labels), 32, 32, 3), np.uint8),
    )
    prepared = SimpleNamespace(
        store=store,
        labels=tuple(classes),
        groups=np.arange(len(labels)),
        source=SimpleNamespace(grouping=None),
        preprocessing=SimpleNamespace(centre=lambda images: images),
        splits=[SimpleNamespace(train=np.arange(half), validation=np.arange(0), test=np.arange(half, len(labels)))],
    )
    return SimpleNamespace(  # type: ignore[return-value]
        prepared=prepared,
        request=SimpleNamespace(folds=folds, heads=tuple(heads)),
        metric=(metric, None),
        baseline=heads[0],
        trials=[],
        multi_label=True,
    )


def finished(plan: ComparisonPlan, head: str, seed: int, logits: Array) -> FinishedTrial:
    """A trial with these logits of all images."""
    split, labels = plan.prepared.splits[0], plan.prepared.store.labels
    answers = trial_measures.Answers.of(torch.from_numpy(logits[split.test]), multi_label=True)
    trained = trial_measures.Answers.of(torch.from_numpy(1.3 * logits[split.train]), multi_label=True)
    right = answers.answer == labels[split.test]
    score = trial_measures.score(labels[split.test], answers.answer)
    facts = {
        "seed": seed,
        "test_accuracy": float(right.all(1).mean()),
        **trial_measures.beside_training(trained, labels[split.train], answers, labels[split.test]),
        **calibration(answers.logits, labels[split.test]),
        "shift": {
            "pixels": [0, 1, 4],
            "balanced_accuracy": [score, score - 0.02, score - 0.1],
            "same_answer": [1, 0.9, 0.7],
        },
        "sizes": {
            "scale": [0.75, 1.0, 1.25, 1.5],
            "input": [[round(32 * scale)] * 2 for scale in (0.75, 1.0, 1.25, 1.5)],
            "balanced_accuracy": [score - 0.1, score, score - 0.05, None],
            "note": None,
        },
        "robustness_images": len(split.test),
        "history": {
            "train_loss": [2.0, 1.2, 1.0],
            "validation_accuracy": [0.1, 0.2, 0.3],
            "validation_loss": [1.9, 1.4, 1.3],
            "seconds": 41.0,
        },
        "parameters": 29_658,
        "head_parameters": 650,
        "macs": 823_936,
        "peak_memory_mb": 300.0,
        "takes_only": None,
        "additive": True,
        "held": [],
        "localisation": None,
    }
    trial = SimpleNamespace(id=f"{head}{seed}", head=head, seed=seed, fold=None, robust=split.test, multi_label=True)
    shifted = np.where(right, 0.9, 0.2).astype(np.float32)
    return FinishedTrial(trial, facts, {"test": split.test, **answers.stored(labels[split.test]), "shifted": shifted})  # type: ignore[arg-type]


def trials_of(plan: ComparisonPlan, seeds: int = 5) -> dict[str, list[FinishedTrial]]:
    """Trials of all heads; the same images are hard for all."""
    labels, rng = plan.prepared.store.labels, np.random.default_rng(3)
    hard = 0.8 * rng.normal(size=(len(labels), 1)) + 1.2 * rng.normal(size=labels.shape)
    return {
        head: [finished(plan, head, seed, drawn_logits(rng, head, hard, labels)) for seed in range(seeds)]
        for head in plan.request.heads
    }


def gathered(plan: ComparisonPlan, done: dict[str, list[FinishedTrial]], classes: Sequence[str]) -> dict[str, Any]:
    """What `gather` makes of them."""
    metric = plan.metric[0]
    labels, split = plan.prepared.store.labels, plan.prepared.splits[0]
    parts = {"train": split.train, "test": split.test}
    moved = metric.moved_by(multi_label=True)
    heads, seeds = list(plan.request.heads), len(next(iter(done.values())))
    counts = {name: class_counts(labels[rows], len(classes)).tolist() for name, rows in parts.items()}
    data = fake_results._data(classes, len(split.test), 32, 3) | {"train": len(split.train), "counts": counts}
    results: dict[str, Any] = {
        "schema": fake_results.SCHEMA,
        "gapstone": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": "gapstone compare photos --heads " + ",".join(heads),
        "config": "",
        "data": data | data_of_several(plan, parts),
        "settings": fake_results._settings(heads, seeds) | {"metric": metric.name, "shift_metric": moved.name},
        "metrics": [one.to_json() for one in metrics_of(plan)],
        "machine": {"processor": "Some Processor", "cores": 8, "memory_gb": 31.2, "system": "Linux", "gpu": None},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.3.0"},
        "scan": fake_results._scan(len(labels)),
        "heads": [head_results(plan, head, done[head], {}, None) for head in heads],
        "collapsed": collapses(
            {head: {one.trial.seed: mean_of(plan, metric, one) for one in trials} for head, trials in done.items()},
            "seed",
        ),
        "pairs": pairs_of(plan, done, lambda one: values_of(plan, metric, one), 1, metric),
        "shift_pairs": pairs_of(plan, done, lambda one: shifted_values(plan, metric, one), 1, moved),
        "trials": [
            fake_results._trial(one.trial.head, one.trial.seed, np.array([one.facts["test_accuracy"]]))
            | {key: one.facts[key] for key in ("test_average_precision", "train_average_precision")}
            for trials in done.values()
            for one in trials
        ],
        "worst": worst_images(plan, done)[1],
    }
    results["verdict"], results["findings"] = sentences(results)
    results["remarks"] = remarks(results)
    return results


def make(
    folder: Path,
    classes: Sequence[str] = fake_results.NAMES,
    heads: Sequence[str] = ("gap", "gmp", "fc"),
    seeds: int = 5,
    images: int = 300,
    metric: str = "average_precision",
) -> dict[str, Any]:
    """Write results.json and pictures.npz."""
    rng = np.random.default_rng(0)
    labels = drawn_labels(rng, 2 * images, len(classes))
    plan = plan_of(labels, classes, heads, MULTI_LABEL[metric])
    done = trials_of(plan, seeds)
    results = gathered(plan, done, classes)
    rows = shown_images(plan.prepared.splits[0].test, labels)
    arrays = fake_results._pictures(rng, heads, len(classes), len(rows), 32, 3) | {"labels": labels[rows]}
    arrays["worst"] = worst_images(plan, done)[0]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "pictures.npz", **arrays)
    fake_results.save(folder, results)
    return results
