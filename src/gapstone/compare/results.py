"""From trial folders to results.json, results.csv, predictions.csv and pictures.npz: docs/results.md has the schema."""

import csv
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gapstone
from gapstone.compare import trials
from gapstone.compare.localisation import SCORES, baselines
from gapstone.compare.marked import among
from gapstone.compare.plan import Plan
from gapstone.compare.statistics import compare_pairs, interval
from gapstone.compare.trials import Trial
from gapstone.compare.verdict import sentence
from gapstone.heads import RECIPES, Spec, parse
from gapstone.whole import whole, write_whole

SCHEMA = 1
MOST_WORST = 12
MARGIN_PP, CONFIDENCE = 0.5, 0.95


@dataclass(frozen=True)
class Done:
    """One finished trial, as read from its folder."""

    trial: Trial
    facts: dict[str, Any]
    arrays: dict[str, Any]

    def correct(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Right or wrong, per test image."""
        return np.asarray(self.arrays["answer"] == labels[self.arrays["test"]])

    @property
    def shifted(self) -> NDArray[np.float32]:
        """The share of its moves answered right, per image of the robustness tests."""
        return np.asarray(self.arrays["shifted"])


def gather(plan: Plan, out: Path, failed: dict[str, str], command: str, speed: dict[str, Any]) -> dict[str, Any]:
    """Read every finished trial of the plan and write everything that is made of them; the results, as in results.json.

    Args: failed: reason by trial id. speed: ms per image by head, as `speed.measure` gives it.
    """
    done = {head: [] for head in plan.request.heads}  # type: dict[str, list[Done]]
    for trial in plan.trials:
        folder = out / "trials" / trial.id
        if folder.exists():
            done[trial.head].append(Done(trial, *trials.read(folder)))
    prepared, settings = plan.prepared, plan.prepared.settings
    labels = prepared.store.labels
    parts = prepared.splits[0]
    tested = np.concatenate([split.test for split in prepared.splits]) if plan.request.folds else parts.test
    pictures, worst = _worst(plan, done)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "gapstone": gapstone.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "data": {
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
            "caution": plan.caution,
            "counts": {
                name: np.bincount(labels[rows], minlength=len(prepared.labels)).tolist()
                for name, rows in (("train", parts.train), ("test", tested))
            },
        },
        "settings": {
            "backbone": prepared.backbone,
            "pretrained": plan.request.choices.pretrained,
            "frozen": plan.request.freeze,
            "weights": None if plan.request.weights is None else str(plan.request.weights),
            "weights_digest": prepared.weights,
            "heads": list(plan.request.heads),
            "baseline": plan.baseline,
            "seeds": [] if plan.request.folds else list(range(plan.request.seeds)),
            "folds": plan.request.folds,
            "epochs": settings.epochs,
            "patience": settings.patience,
            "batch_size": settings.batch_size,
            "optimizer": settings.optimizer,
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "augment": settings.augment.describe(),
            "precision": settings.precision,
            "threads": plan.measured["threads"],
            "workers": plan.workers,
            "device": prepared.device,
            "margin_pp": MARGIN_PP,
            "confidence": CONFIDENCE,
        },
        "machine": machine(prepared.device),
        "versions": versions(),
        "scan": prepared.scan.to_json(),
        "heads": [_head(plan, head, done[head], failed, speed.get(head)) for head in plan.request.heads],
        "pairs": _pairs(plan, done, lambda one: one.correct(labels)),
        "shift_pairs": _pairs(plan, done, lambda one: one.shifted),
        "localisation": _objects(plan, tested),
        "localisation_pairs": _localisation_pairs(plan, done),
        "trials": [_trial(trial, done[trial.head], failed) for trial in plan.trials],
        "worst": worst,
    }
    results["verdict"] = sentence(results)
    write_json(out / "results.json", results)
    _write_trials_csv(out / "results.csv", plan, done)
    _write_predictions(out / "predictions.csv", plan, done)
    _write_pictures(out / "pictures.npz", plan, done, pictures)
    return results


def _described(spec: Spec) -> str:
    grid = int(spec.number("grid", 0))
    return (f"maps averaged to {grid}×{grid}, " if grid else "") + RECIPES[spec.name].describe


def _head(
    plan: Plan, head: str, done: Sequence[Done], failed: dict[str, str], speed: dict[str, Any] | None
) -> dict[str, Any]:
    spec = parse(head)
    entry: dict[str, Any] = {
        "head": head,
        "describe": _described(spec),
        "failed": [
            {"seed": trial.seed, "reason": failed[trial.id]}
            for trial in plan.trials
            if trial.head == head and trial.id in failed
        ],
        "ms_per_image": speed,
    }
    facts = [one.facts for one in done]
    first = facts[0] if facts else {}
    for key in ("parameters", "head_parameters", "macs"):
        entry[key] = first.get(key)
    entry["input"] = None if not facts else first["takes_only"] or "any"
    stats = {
        key: [fact[key] for fact in facts]
        for key in ("train_accuracy", "test_accuracy", "generalisation_gap", "nll", "brier", "ece", "peak_memory_mb")
    }
    stats["shift_accuracy"] = [float(np.mean(fact["shift"]["accuracy"][1:])) for fact in facts]
    stats["train_seconds"] = [fact["history"]["seconds"] for fact in facts]
    entry |= {key: _stat(values) for key, values in stats.items()}
    if not facts:
        nothing = dict.fromkeys(("shift", "sizes", "reliability", "confusion", "localisation"), None)
        return entry | nothing | {"curves": []}
    entry["shift"] = {
        "pixels": first["shift"]["pixels"],
        **{key: _mean([fact["shift"][key] for fact in facts]) for key in ("accuracy", "same_answer")},
    }
    entry["sizes"] = first["sizes"] | {"accuracy": _mean([fact["sizes"]["accuracy"] for fact in facts])}
    entry["robustness_images"] = first["robustness_images"]
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
    entry["localisation"] = _looked(facts)
    return entry


def _looked(facts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Localisation over the trials that had test images with boxes; None without."""
    found = [fact["localisation"] for fact in facts if fact.get("localisation")]
    if not found:
        return None
    shares = {key: [one[key] for one in found] for key in SCORES}
    shares["without_evidence"] = [one["without_evidence"] / one["pictures"] for one in found]
    # of some trials only (their validation images have boxes, others' too few), it would be of other seeds
    thresholds = {key: [one[f"{key}_threshold"] for one in found] for key in ("tuned", "max_box_acc")}
    return {
        "additive": facts[0]["additive"],
        **{key: None if None in values else _stat(values) for key, values in shares.items()},
        "thresholds": {key: None if None in values else values for key, values in thresholds.items()},
    }


def _objects(plan: Plan, tested: NDArray[Any]) -> dict[str, Any] | None:
    """What localisation was measured on, and what boxes score that look at nothing."""
    if plan.objects is None:
        return None
    of_test = among(plan.objects, tested)
    return {
        "pictures": len(of_test),
        "boxes": sum(len(one.boxes) for one in of_test),
        "validation": len(among(plan.objects, plan.prepared.splits[0].validation)),
        "baselines": baselines(of_test),
    }


def _localisation_pairs(plan: Plan, done: dict[str, list[Done]]) -> list[dict[str, Any]]:
    looked = {head: [one for one in finished if "found" in one.arrays] for head, finished in done.items()}
    return _pairs(plan, looked, lambda one: np.asarray(one.arrays["found"]))


def _stat(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"mean": None, "ci95": None, "values": []}
    mean, ci95 = interval(values)
    return {"mean": mean, "ci95": None if ci95 is None else list(ci95), "values": values}


def _mean(rows: list[list[float | None]]) -> list[float | None]:
    columns = ([value for value in column if value is not None] for column in zip(*rows, strict=True))
    return [float(np.mean(column)) if column else None for column in columns]


def _pooled(bins: list[dict[str, list[Any]]]) -> dict[str, Any]:
    """Reliability over all trials: each bin weighted by how many answers fell into it."""
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


def _pairs(plan: Plan, done: dict[str, list[Done]], right: Callable[[Done], NDArray[Any]]) -> list[dict[str, Any]]:
    """Every head against the baseline, on what `right` says of each image."""
    if not done[plan.baseline]:
        return []
    correct = {head: {one.trial.seed: right(one) for one in finished} for head, finished in done.items() if finished}
    folds = None
    if plan.request.folds:
        images = {one.trial.seed: len(right(one)) for finished in done.values() for one in finished}
        parts = enumerate(plan.prepared.splits)
        folds = {number: (len(split.train), images[number]) for number, split in parts if number in images}
    return compare_pairs(correct, plan.baseline, margin_pp=MARGIN_PP, confidence=CONFIDENCE, folds=folds)


def _trial(trial: Trial, done: Sequence[Done], failed: dict[str, str]) -> dict[str, Any]:
    facts = next((one.facts for one in done if one.trial.id == trial.id), None)
    entry = {"id": trial.id, "head": trial.head, "seed": trial.seed, "fold": trial.fold}
    if facts is None:
        reason = failed.get(trial.id, "not run yet")
        missing = dict.fromkeys(("seconds", "epochs", "best_epoch", "test_accuracy", "train_accuracy"))
        return entry | {"status": "failed", "reason": reason} | missing
    history = facts["history"]
    return entry | {
        "status": "done",
        "reason": None,
        "seconds": history["seconds"],
        "epochs": len(history["train_loss"]),
        "best_epoch": history["best_epoch"],
        "test_accuracy": facts["test_accuracy"],
        "train_accuracy": facts["train_accuracy"],
    }


def _worst(plan: Plan, done: dict[str, list[Done]]) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The test images most trials of most heads got wrong, the surest wrong answers first."""
    prepared = plan.prepared
    labels, names = prepared.store.labels, prepared.store.names
    total = np.zeros(len(labels))
    for one in (one for finished in done.values() for one in finished):
        wrong = ~one.correct(labels)
        np.add.at(total, one.arrays["test"][wrong], one.arrays["confidence"][wrong])
    rows = [int(row) for row in np.argsort(-total, kind="stable")[:MOST_WORST] if total[row] > 0]
    entries = []
    for place, row in enumerate(rows):
        entry: dict[str, Any] = {"name": names[row], "label": prepared.labels[labels[row]], "picture": place}
        entry |= {"wrong": {}, "answers": {}, "confidence": {}}
        for head, finished in done.items():
            given = [(int(a[0]), float(c[0])) for a, c in (_on(one, row) for one in finished) if len(a)]
            if not given:
                continue
            answer = Counter(answer for answer, _ in given).most_common(1)[0][0]
            entry["wrong"][head] = float(np.mean([a != labels[row] for a, _ in given]))
            entry["answers"][head] = prepared.labels[answer]
            entry["confidence"][head] = float(np.mean([c for a, c in given if a == answer]))
        entries.append(entry)
    seen = prepared.preprocessing.centre(np.asarray(prepared.store.images[rows]))
    return np.asarray(seen, np.uint8), entries


def _on(one: Done, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
    here = one.arrays["test"] == row
    return one.arrays["answer"][here], one.arrays["confidence"][here]


def write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # a name that is no UTF-8 must not break the file
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def _write_trials_csv(path: Path, plan: Plan, done: dict[str, list[Done]]) -> None:
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

    _write_csv(path, rows())


def _write_predictions(path: Path, plan: Plan, done: dict[str, list[Done]]) -> None:
    names, labels, classes = plan.prepared.store.names, plan.prepared.store.labels, plan.prepared.labels

    def rows() -> Iterator[list[Any]]:
        yield ["image", "label", "head", "seed", "answer", "confidence", "correct"]
        for one in (one for head in plan.request.heads for one in done[head]):
            arrays = one.arrays
            for row, answer, sure in zip(arrays["test"], arrays["answer"], arrays["confidence"], strict=True):
                label = labels[row]
                yield [names[row], classes[label], one.trial.head, one.trial.seed, classes[answer], f"{sure:.4f}",
                       int(answer == label)]  # fmt: skip

    _write_csv(path, rows())


def _write_csv(path: Path, rows: Iterator[list[Any]]) -> None:
    with (
        whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


def _write_pictures(path: Path, plan: Plan, done: dict[str, list[Done]], worst: NDArray[np.uint8]) -> None:
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
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _boxes_shown(plan: Plan, rows: NDArray[Any]) -> NDArray[np.float64]:
    """(B, 5): the place of its image among those shown, then (x0, y0, x1, y1) in pixels of what the network sees."""
    found, places = [], {int(row): place for place, row in enumerate(rows)}
    for one in among(plan.objects or (), rows):
        scale, (top, left) = plan.prepared.preprocessing.seen(*one.size)
        edges = (np.asarray(one.boxes) - (left, top, left, top)) / scale
        found += [[places[one.row], *edge] for edge in edges.tolist()]
    return np.asarray(found, np.float64).reshape(-1, 5)


def _first_of_all(plan: Plan, done: dict[str, list[Done]]) -> int:
    """The seed whose maps are shown side by side: the first that most heads have finished.

    With folds always fold 0: the images shown are those it tests, the others have trained on them.
    """
    if plan.request.folds:
        return 0
    finished = Counter(one.trial.seed for head in done.values() for one in head)
    return max(sorted(finished), key=lambda seed: finished[seed], default=0)


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }


def versions() -> dict[str, str]:
    found = {"gapstone": gapstone.__version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "pillow", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found
