"""`make(folder)` writes results.json and pictures.npz as docs/results.md describes them, of trials that never ran."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from gapstone.comparing.gather_results import SCHEMA
from gapstone.comparing.remarks import remarks
from gapstone.comparing.verdict import sentences
from gapstone.drawing.confusion_picture import most_confused
from gapstone.statistics.calibration import calibration
from gapstone.statistics.collapsed_seeds import collapses
from gapstone.statistics.compare_pairs import compare_pairs, interval, share_stat
from gapstone.statistics.metrics import METRICS
from gapstone.storage.sealed_json import digests, write_sealed

ACCURACY = {"gap": 0.93, "gmp": 0.925, "nin": 0.935, "fc": 0.885, "fc:dropout=0.5": 0.9, "gem": 0.932}
NAMES = ("cat", "dog", "고양이", "قطة", "<script>alert(1)</script>", "horse & cart", "frog", "ship", "truck", "deer")
REASON = "out of memory: try a smaller --batch-size"
Array = NDArray[Any]


def make(
    folder: Path,
    heads: Sequence[str] = ("gap", "gmp", "nin", "fc", "fc:dropout=0.5"),
    classes: Sequence[str] = NAMES,
    seeds: int = 5,
    images: int = 500,
    shown: int = 8,
    channels: int = 3,
    side: int = 32,
    failed: Mapping[str, Sequence[int]] | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Args: failed: by head, the seeds that failed."""
    rng = np.random.default_rng(0)
    failed = failed or {}
    hard = rng.normal(0, 1.5, images)
    labels = np.arange(images) % len(classes)
    correct: dict[str, dict[int, Array]] = {}
    entries, trials = [], []
    for head in heads:
        done = [seed for seed in range(seeds) if seed not in failed.get(head, ())]
        logits = {seed: _logits(rng, ACCURACY.get(head, 0.9), hard, labels, len(classes)) for seed in done}
        correct[head] = {seed: logits[seed].argmax(1) == labels for seed in done}
        entries.append(_head(rng, head, logits, labels, len(classes), side, seeds))
        for seed in range(seeds):
            trials.append(_trial(head, seed, correct[head].get(seed)))
    baseline = heads[0]
    finished = {head: right for head, right in correct.items() if right}
    pairs = compare_pairs(finished, baseline) if baseline in finished else []
    results = {
        "schema": SCHEMA,
        "gapstone": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": "gapstone compare photos --heads " + ",".join(heads),
        "data": _data(classes, images, side, channels),
        "settings": _settings(heads, seeds),
        "machine": {"processor": "Some Processor", "cores": 8, "memory_gb": 31.2, "system": "Linux", "gpu": None},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.3.0"},
        "scan": _scan(images),
        "heads": entries,
        "collapsed": collapses(
            {head: {s: r.mean() for s, r in right.items()} for head, right in finished.items()}, "seed"
        ),
        "metrics": [metric.to_json() for metric in METRICS.values()],
        "pairs": pairs,
        "shift_pairs": [pair | {"advice": None} for pair in pairs],
        "trials": trials,
        "worst": _worst(heads, classes),
    }
    results["verdict"], results["findings"] = sentences(results)
    results["remarks"] = remarks(results)
    folder.mkdir(parents=True, exist_ok=True)
    if pictures:
        np.savez_compressed(folder / "pictures.npz", **_pictures(rng, heads, len(classes), shown, side, channels))
    save(folder, results)
    return results


def save(folder: Path, results: dict[str, Any]) -> None:
    """results.json, which vouches for the pictures.npz that lies there, if one does."""
    names = ["pictures.npz"] if (folder / "pictures.npz").exists() else []
    write_sealed(folder / "results.json", results | {"files": digests(folder, names)}, "results")


def _logits(rng: np.random.Generator, accuracy: float, hard: Array, labels: Array, classes: int) -> Array:
    """Right where luck, the image and the seed want it so; wrong answers prefer the neighbouring class."""
    right = rng.random(len(labels)) < expit(np.log(accuracy / (1 - accuracy)) * 1.25 + hard + rng.normal(0, 0.1))
    step = 1 + (rng.random(len(labels)) ** 3 * (classes - 1)).astype(int)
    answer = np.where(right, labels, (labels + step) % classes)
    logits = rng.normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), answer] = logits.max(1) + np.abs(rng.normal(3, 2, len(labels)))
    return logits


def _head(
    rng: np.random.Generator, head: str, logits: dict[int, Array], labels: Array, classes: int, side: int, seeds: int
) -> dict[str, Any]:
    flat = head.startswith("fc")
    entry: dict[str, Any] = {
        "head": head,
        "describe": "flatten, then linear" if flat else "global pooling, then linear",
        "failed": [{"seed": seed, "reason": REASON} for seed in range(seeds) if seed not in logits],
        "ms_per_image": {
            "median": 0.62, "low": 0.6, "high": 0.65, "rounds": 41, "batch": 16, "threads": 2, "device": "cpu",
            "ratio": None if head == "gap" else {"median": 1 + 0.6 * flat, "low": 0.97 + 0.5 * flat, "high": 1.7},
            "others": 0.02,
        },
        "parameters": 1_080_000 if flat else 29_658,
        "head_parameters": 1_051_402 if flat else 650,
        "macs": 1_875_000 if flat else 823_936,
        "input": [side, side] if flat else "any",
    }  # fmt: skip
    scores = [calibration(z, labels) for z in logits.values()]
    test = [float((z.argmax(1) == labels).mean()) for z in logits.values()]
    train = [min(1.0, accuracy + (0.08 if flat else 0.04) + rng.normal(0, 0.004)) for accuracy in test]
    values = {
        "train_accuracy": train,
        "test_accuracy": test,
        "generalisation_gap": [a - b for a, b in zip(train, test, strict=True)],
        "shift_accuracy": [accuracy * (0.7 if flat else 0.95) for accuracy in test],
        "train_seconds": [40 + 5 * rng.random() for _ in test],
        "peak_memory_mb": [300.0 for _ in test],
        **{key: [score[key] for score in scores] for key in ("nll", "brier", "ece")},
    }
    entry |= {key: _stat(numbers) for key, numbers in values.items()}
    entry["test_accuracy"] = share_stat({seed: z.argmax(1) == labels for seed, z in logits.items()})
    entry["metrics"] = {
        name: share_stat({seed: metric.values(labels, softmax(z, 1)) for seed, z in logits.items()}, unit=metric.unit)
        for name, metric in METRICS.items()
    }
    entry["recall"] = None
    if logits:
        entry["recall"] = [
            share_stat({seed: (z.argmax(1) == k)[labels == k] for seed, z in logits.items()})
            | {"images": int((labels == k).sum())}
            for k in range(classes)
        ]
    if not test:
        nothing = dict.fromkeys(("parameters", "head_parameters", "macs", "input", "ms_per_image"))
        return (
            entry | nothing | dict.fromkeys(("shift", "sizes", "reliability", "confusion", "confused")) | {"curves": []}
        )
    mean, fall = float(np.mean(test)), 0.07 if flat else 0.015
    sizes = [side * scale for scale in (0.75, 1, 1.25, 1.5)]
    entry["shift"] = {
        "pixels": [0, 1, 2, 3, 4],
        "accuracy": [mean - fall * step for step in range(5)],
        "same_prediction": [1 - fall * step for step in range(5)],
    }
    entry["sizes"] = {
        "scale": [0.75, 1.0, 1.25, 1.5],
        "input": [[round(size)] * 2 for size in sizes],
        "accuracy": [None, mean, None, None] if flat else [mean - 0.15, mean, mean - 0.1, mean - 0.5],
        "note": f"takes only {side}×{side}" if flat else None,
    }
    pooled = calibration(np.concatenate(list(logits.values())), np.tile(labels, len(test)))
    entry["reliability"] = pooled["bins"]
    entry["curves"] = [_curve(rng, seed, accuracy) for seed, accuracy in zip(logits, test, strict=True)]
    confusion = np.zeros((classes, classes), int)
    for z in logits.values():
        np.add.at(confusion, (labels, z.argmax(1)), 1)
    entry["confusion"] = confusion.tolist()
    entry["confused"] = most_confused(confusion, [f"class {k}" for k in range(classes)])
    return entry


def _stat(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"mean": None, "ci95": None, "values": []}
    mean, bounds = interval(values, within=(0, 1) if max(values) <= 1 else (0, np.inf))
    return {"mean": mean, "ci95": None if bounds is None else list(bounds), "values": values}


def _curve(rng: np.random.Generator, seed: int, accuracy: float) -> dict[str, Any]:
    epochs = np.arange(1, 21 - seed % 3)
    rise = 1 - np.exp(-epochs / 4)
    return {
        "seed": seed,
        "epoch": epochs.tolist(),
        "train_loss": (2.3 * np.exp(-epochs / 5) + 0.05 + rng.random(len(epochs)) * 0.03).tolist(),
        "validation_accuracy": (accuracy * rise + rng.normal(0, 0.012, len(epochs))).clip(0, 1).tolist(),
    }


def _trial(head: str, seed: int, right: Array | None) -> dict[str, Any]:
    done = right is not None
    return {
        "id": f"{crc32(head.encode()) + seed:016x}",
        "head": head,
        "seed": seed,
        "fold": None,
        "status": "done" if done else "failed",
        "reason": None if done else REASON,
        "seconds": 41.0 if done else None,
        "epochs": 20 if done else None,
        "best_epoch": 17 if done else None,
        "learning_rate": 0.05 if done else None,
        "weight_decay": 0.0005 if done else None,
        "test_accuracy": float(right.mean()) if right is not None else None,
        "train_accuracy": 0.97 if done else None,
    }


def _data(classes: Sequence[str], images: int, side: int, channels: int) -> dict[str, Any]:
    return {
        "source": "photos",
        "kind": "folders",
        "classes": list(classes),
        "train": 4 * images,
        "validation": images // 2,
        "test": images,
        "size": [side, side],
        "channels": channels,
        "hash": "a7d9a3588c26aee1",
        "cropped": None,
        "split": "500 of 3,000 images (17 %) chosen by their content as the locked test set, duplicates kept together",
        "counts": {name: [images // len(classes)] * len(classes) for name in ("train", "test")},
    }


def _settings(heads: Sequence[str], seeds: int) -> dict[str, Any]:
    return {
        "backbone": "nin", "pretrained": False, "heads": list(heads), "baseline": heads[0],
        "seeds": list(range(seeds)), "folds": None, "epochs": 20, "patience": 10, "batch_size": 64,
        "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.0005, "tuning": None,
        "augment": "mirrored half of the time, moved by up to 4 px", "balance": "none", "sample_weight": None,
        "precision": "float32", "threads": 1, "workers": 2, "device": "cpu", "confidence": 0.95, "look": 1,
        "metric": "accuracy", "shift_metric": "accuracy",
    }  # fmt: skip


def _scan(images: int) -> dict[str, Any]:
    return {
        "files": 6 * images,
        "readable": 6 * images - 2,
        "unreadable": [
            {"name": "cat/broken <b>.jpg", "reason": "the file ends too early"},
            {"name": "dog/개.png", "reason": "no image: it begins like HTML"},
        ],
        "exact_duplicates": [[f"cat/{i}.jpg", f"cat/copy of {i}.jpg"] for i in range(40)],
        "near_duplicates": [],
        "conflicts": [{"names": ["cat/1.jpg", "dog/1.jpg"], "labels": ["cat", "dog"]}],
        "across_splits": [{"names": ["train/a.jpg", "test/a.jpg"], "splits": ["train", "test"]}],
        "excluded": 4,
        "sizes": {"32x32": 6 * images - 3, "640x480": 1},
        "modes": {"RGB": 6 * images - 3, "L": 1},
        "notes": ["1 file has 16 bits a channel: scaled to 8"],
    }


def _worst(heads: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{classes[place % len(classes)]}/{place:04d}.jpg",
            "label": classes[place % len(classes)],
            "wrong": {head: 1.0 - 0.1 * number for number, head in enumerate(heads)},
            "predictions": {
                head: classes[(place + 1 + number % 2) % len(classes)] for number, head in enumerate(heads)
            },
            "confidence": dict.fromkeys(heads, 0.83),
            "picture": place,
        }
        for place in range(6)
    ]


def _pictures(
    rng: np.random.Generator, heads: Sequence[str], classes: int, shown: int, side: int, channels: int
) -> dict[str, Any]:
    cells = 8
    labels = np.arange(shown) % classes
    images = np.stack([_picture(rng, label, side, channels) for label in labels])
    arrays: dict[str, Any] = {
        "images": images,
        "labels": labels,
        "names": np.array([f"class {label}/{i:04d}.jpg" for i, label in enumerate(labels)]),
        "worst": np.stack([_picture(rng, label, side, channels) for label in range(6)]),
    }
    y, x = np.mgrid[:cells, :cells] / cells - 0.45
    for number, head in enumerate(heads):
        additive = not head.startswith("fc:")
        maps = rng.normal(-0.02, 0.02, (shown, classes, cells, cells))
        blob = np.exp(-(x**2 + y**2) / (0.03 if head == "gmp" else 0.1))
        maps[np.arange(shown), labels] += blob * (0.9 if head == "gmp" else 0.25)
        if shown > 2:
            maps[2, labels[2]] = maps[2].min(0)  # an image in which each place speaks least for its class
        bias = np.tile(rng.normal(0, 0.3, classes), (shown, 1))
        logits = maps.sum((2, 3)) + bias
        if not additive:
            logits += rng.normal(0, 1, logits.shape)
        arrays |= {
            f"maps_{number}": maps.astype(np.float32),
            f"bias_{number}": bias.astype(np.float32),
            f"logits_{number}": logits.astype(np.float32),
            f"additive_{number}": np.array(additive),
            f"gap_{number}": np.array(np.abs(maps.sum((2, 3)) + bias - logits).max()),
        }
    assert softmax(logits, 1).shape == (shown, classes)
    return arrays


def _picture(rng: np.random.Generator, label: int, side: int, channels: int) -> Array:
    """A bright shape on a soft ground: a disc, a square or a cross, by its class."""
    y, x = np.mgrid[:side, :side] / side - 0.45
    shape = (x**2 + y**2 < 0.07, np.maximum(abs(x), abs(y)) < 0.22, np.minimum(abs(x), abs(y)) < 0.07)[label % 3]
    ground = np.stack([90 + 60 * y + 20 * x, 110 + 50 * x, 130 - 60 * y], 2)[..., :channels]
    ground[shape] = (np.array([230, 180, 90]) - 15 * (label % 5))[:channels]
    return np.asarray((ground + rng.normal(0, 8, ground.shape)).clip(0, 255), np.uint8)
