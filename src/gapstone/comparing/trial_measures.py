"""Measurements of one trained model: robustness to shifts and sizes, class activation maps, memory."""

import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.comparing.predictor import STILL, Answering, Change, Predictor
from gapstone.images.shift import directions, largest_shift
from gapstone.statistics.labels import (
    Labels,
    all_right,
    answers_of_logits,
    decisions,
    is_multi_label,
    log_complement,
)
from gapstone.statistics.metrics import find_metric, metric_names
from gapstone.statistics.multi_label_metrics import balanced
from gapstone.training.loop import Rows

FINE = 64
"""Pixels: up to this shorter side, images are moved by up to six distances."""
SCALES = (0.75, 1.0, 1.25, 1.5)
MOST_FOR_ROBUSTNESS, MOST_PHOTOS_FOR_ROBUSTNESS = 2000, 500
"""Test images used for shifts and sizes: 20 more passes over all of them would take longer than training small nets.

Of photos fewer: each costs 15 passes of a large network, and with 500 the standard error of a difference on shifted
images is 0.7 percentage points already.
"""


MOST_PROBABILITIES = 20_000_000
"""Test images × classes, 80 MB: of more, a trial stores what each image counts for each metric instead."""


@dataclass(frozen=True)
class Answers:
    """The predictions of a model, one row per image. Everything follows from the probabilities as they are stored."""

    log_probabilities: NDArray[np.float32]
    """Of all classes. Logarithms, because a probability of 1 − 1e-9, or of 1e-50, is none in float32."""
    multi_label: bool = False

    @classmethod
    def of(cls, logits: Tensor, multi_label: bool = False) -> "Answers":
        z = logits.double()
        log = torch.nn.functional.logsigmoid(z) if multi_label else z.log_softmax(1)
        return cls(log.float().numpy(), multi_label)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return np.exp(self.log_probabilities.astype(np.float64))

    @property
    def logits(self) -> NDArray[np.float64]:
        """Logits that have these probabilities."""
        log = self.log_probabilities.astype(np.float64)
        return log - log_complement(log) if self.multi_label else log

    @property
    def answer(self) -> Labels:
        """The most probable class; of equal ones the first. With several labels all that have 0.5 or more (n, K)."""
        if self.multi_label:
            return decisions(self.probabilities)
        return np.asarray(self.log_probabilities.argmax(1), np.int64)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the predicted class."""
        return np.asarray(np.exp(self.log_probabilities.max(1)), np.float32)

    def stored(self, labels: Labels) -> dict[str, NDArray[Any]]:
        """The arrays of a trial: all probabilities, or where they are many the values of all metrics."""
        arrays: dict[str, NDArray[Any]] = {"answer": self.answer}
        if not self.multi_label:
            arrays = {"answer": self.answer.astype(np.int32), "confidence": self.confidence}
        if self.log_probabilities.size <= MOST_PROBABILITIES:
            return arrays | {"log_probabilities": self.log_probabilities}
        probabilities = self.probabilities
        for name in metric_names(probabilities.shape[1], self.multi_label):
            arrays[f"value_{name}"], columns, worth = find_metric(name, self.multi_label).measured(
                labels, probabilities
            )
            if columns is not None:
                arrays[f"worth_{name}"] = np.array(np.nan if worth is None else worth)
                arrays[f"classes_{name}"] = columns.mean(0)
        return arrays


def beside_training(trained: Answers, train: Labels, answers: Answers, test: Labels) -> dict[str, float | None]:
    """How much better the training images are answered than the test images; with several labels by their mAP.

    None where no class has both images with it and without.
    """
    train_accuracy = float(all_right(train, trained.answer).mean())
    if not trained.multi_label:
        test_accuracy = float(all_right(test, answers.answer).mean())
        return {"train_accuracy": train_accuracy, "generalisation_gap": train_accuracy - test_accuracy}
    of = find_metric("average_precision", multi_label=True).values
    before, after = (float(of(y, one.probabilities).mean()) for y, one in ((train, trained), (test, answers)))
    known = np.isfinite([before, after]).all()
    return {
        "train_accuracy": train_accuracy,
        "train_average_precision": before if known else None,
        "test_average_precision": after if known else None,
        "generalisation_gap": before - after if known else None,
    }


def shift_pixels(size: tuple[int, int]) -> list[int]:
    """The distances that test images are moved by, between 1 and k px, an eighth of the shorter side (at least 2).

    Three, and up to six of small images. Of photos three tell what six do: with 150 photos the standard error of a
    difference between two heads was 1.21 percentage points instead of 1.18, as images differ more than distances.

    >>> shift_pixels((32, 32)), shift_pixels((224, 224))
    ([1, 2, 3, 4], [1, 15, 28])
    """
    most = largest_shift(size)
    return sorted({int(k + 0.5) for k in np.linspace(1, most, min(most, 6 if min(size) <= FINE else 3))})


def moves(distance: int) -> tuple[Change, ...]:
    """The moves by so many pixels in the four directions."""
    return tuple(Change(down, right) for down, right in directions(distance))


def resized(size: tuple[int, int]) -> list[tuple[tuple[int, int], Change]]:
    """The input sizes that robustness is measured at for images of `size`, and the changes that make them."""
    inputs = [(round(size[0] * scale), round(size[1] * scale)) for scale in SCALES]
    return [(other, STILL if other == size else Change(size=other)) for other in inputs]


def most_for_robustness(size: tuple[int, int]) -> int:
    """How many test images of that size are used for shifts and sizes at most."""
    return MOST_FOR_ROBUSTNESS if min(size) <= FINE else MOST_PHOTOS_FOR_ROBUSTNESS


def robust(rows: Rows, most: int) -> Rows:
    """The test images used for shifts and sizes: all, or a fixed random sample of `most`."""
    if len(rows) <= most:
        return rows
    sample: Rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return sample


def robustness(predictor: Answering, rows: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    """What trial.json says about moved and resized images, and the arrays beside it; None where there are no rows."""
    if not len(rows):
        return {"shift": None, "sizes": None, "robustness_images": 0}, {}
    pixels = shift_pixels(predictor.preprocessing.size)
    shift, shifted = shifts(predictor, rows, pixels)
    facts = {
        "shift": {"pixels": [0, *pixels], **shift},
        "sizes": sizes(predictor, rows),
        "robustness_images": len(rows),
    }
    return facts, {"shifted": shifted}


def score(labels: Labels, answered: Labels) -> float:
    """What moved and resized images are judged by: accuracy; with several labels balanced accuracy."""
    if is_multi_label(labels):
        return float(balanced(np.asarray(labels, bool), answered == labels).mean())
    return float((answered == labels).mean())


def same(answered: Labels, before: Labels) -> float:
    """The share of predictions that stay; with several labels, of the classes answered at either time those at both."""
    if is_multi_label(before):
        either = (answered | before).sum()
        return float((answered & before).sum() / either) if either else 1.0
    return float((answered == before).mean())


def score_key(labels: Labels) -> str:
    """Its name in trial.json and results.json."""
    return "balanced_accuracy" if is_multi_label(labels) else "accuracy"


def _answered(predictor: Answering, rows: Rows, change: Change = STILL) -> Labels:
    return answers_of_logits(predictor.logits(rows, change).numpy(), is_multi_label(predictor.labels))


def shifts(predictor: Answering, rows: Rows, pixels: list[int]) -> tuple[dict[str, list[float]], NDArray[np.float32]]:
    """Accuracy, and the share of unchanged predictions, when test images move by each distance in four directions.

    Also returns, per image, the share of all its moves that are classified correctly: the heads are compared on it.
    With several labels that is the share of each class's decisions, (n, K).
    """
    labels = predictor.labels[rows]
    still = _answered(predictor, rows)
    found, stays = [score(labels, still)], [1.0]
    share_correct = np.zeros(labels.shape, np.float32)
    for distance in pixels:
        moved = [_answered(predictor, rows, move) for move in moves(distance)]
        found.append(float(np.mean([score(labels, answer) for answer in moved])))
        stays.append(float(np.mean([same(answer, still) for answer in moved])))
        share_correct += np.mean([answer == labels for answer in moved], 0) / len(pixels)
    return {score_key(labels): found, "same_answer": stays}, share_correct


def sizes(predictor: Answering, rows: Rows) -> dict[str, Any]:
    """Accuracy on enlarged and shrunk test images; None for sizes that the model does not take."""
    inputs = resized(predictor.preprocessing.size)
    labels = predictor.labels[rows]
    found: list[float | None] = []
    for size, change in inputs:
        found.append(score(labels, _answered(predictor, rows, change)) if accepts(predictor, size) else None)
    only = predictor.only_size
    refused = [f"{h}×{w}" for ((h, w), _), value in zip(inputs, found, strict=True) if value is None]
    note = f"takes only {only[0]}×{only[1]}" if only else f"does not take {', '.join(refused)}" if refused else None
    entry = {"scale": list(SCALES), "input": [list(size) for size, _ in inputs], score_key(labels): found}
    return entry | {"note": note}


def accepts(predictor: Answering, size: tuple[int, int]) -> bool:
    """Whether the model takes images of that size."""
    if predictor.only_size is not None:
        return size == predictor.only_size
    return predictor.accepts(size)


def show(predictor: Predictor, rows: Rows) -> dict[str, Any]:
    """The class activation maps of the images in the report.

    `placement` (2, 2) is the stride and the start of their cells, each (y, x), in pixels of the network's input. None
    of a head that has no maps; `additive`, `gap` and `held` are None then.
    """
    explained = predictor.explain(rows)
    if explained is None:
        return {"additive": None, "gap": None, "held": None}
    placement = explained.placement
    return {
        "maps": explained.maps.cpu().numpy().astype(np.float32),
        "bias": explained.bias.expand_as(explained.logits).cpu().numpy().astype(np.float32),
        "logits": explained.logits.cpu().numpy().astype(np.float32),
        "placement": np.array([placement.stride, placement.start], np.float64),
        "additive": explained.additive,
        "held": list(explained.held),
        "gap": explained.completeness.max().item(),
    }


class PeakMemory:
    """Measures the peak memory of training in MB: torch's memory on a GPU, else the memory of this process.

        with PeakMemory("cpu") as peak: ...
        peak.mb

    The process is sampled 50 times a second, because the system's high-water mark includes the mapped pages of images
    on disk. Without /proc (macOS) that mark is used.
    """

    def __init__(self, device: str) -> None:
        self.device, self.mb = device, 0.0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        self._before = self._peak = _own_mb()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.startswith("cuda"):
            self.mb = torch.cuda.max_memory_allocated(self.device) / 2**20
            return
        self._done.set()
        self._thread.join()
        self.mb = max(self._peak, _own_mb()) - self._before

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _own_mb())


def _own_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
