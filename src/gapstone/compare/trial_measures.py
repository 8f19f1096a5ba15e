"""What is measured on one trained model: quality, robustness to shifts and sizes, memory."""

import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.compare.predictor import STILL, Change, Predictor
from gapstone.images.shift import directions, largest_shift
from gapstone.maps.explain import explain_head
from gapstone.training.loop import Rows

SCALES = (0.75, 1.0, 1.25, 1.5)
MOST_FOR_ROBUSTNESS = 2000
"""Test images used for shifts and sizes: 20 more passes over all of them would outlast the training of small nets."""


@dataclass(frozen=True)
class Answers:
    """What a model answered on some images, one row per image."""

    answer: NDArray[np.int64]
    confidence: NDArray[np.float32]
    """The probability it gave to its answer."""
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, logits: Tensor) -> "Answers":
        confidence, answer = logits.double().softmax(1).max(1)
        return cls(answer.numpy(), confidence.float().numpy(), logits.float().numpy())


def shift_pixels(size: tuple[int, int]) -> list[int]:
    """How far test images are moved: 1…k px, k an eighth of the shorter side and at least 2; at most six of them.

    >>> shift_pixels((32, 32)), shift_pixels((224, 224))
    ([1, 2, 3, 4], [1, 6, 12, 17, 23, 28])
    """
    most = largest_shift(size)
    return sorted({int(k + 0.5) for k in np.linspace(1, most, min(most, 6))})


def moves(distance: int) -> tuple[Change, ...]:
    """By so many pixels in the four directions."""
    return tuple(Change(down, right) for down, right in directions(distance))


def resized(size: tuple[int, int]) -> list[tuple[tuple[int, int], Change]]:
    """The other sizes that images of `size` are tried at, and how they come to be."""
    inputs = [(round(size[0] * scale), round(size[1] * scale)) for scale in SCALES]
    return [(at, STILL if at == size else Change(size=at)) for at in inputs]


def robust(rows: Rows) -> Rows:
    """Of the test images, those used for shifts and sizes: all, or so many drawn once."""
    if len(rows) <= MOST_FOR_ROBUSTNESS:
        return rows
    some: Rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_FOR_ROBUSTNESS])
    return some


def shifts(asked: Predictor, rows: Rows, pixels: list[int]) -> tuple[dict[str, list[float]], NDArray[np.float32]]:
    """Accuracy, and the share of answers that stay, when test images move by each distance in the four directions.

    Also, per image, the share of all its moves that were answered right: what the heads are compared on.
    """
    labels = asked.labels[rows]
    still = asked.logits(rows).argmax(1).numpy()
    accuracy, same = [float((still == labels).mean())], [1.0]
    right = np.zeros(len(rows), np.float32)
    for distance in pixels:
        moved = [asked.logits(rows, move).argmax(1).numpy() for move in moves(distance)]
        accuracy.append(float(np.mean([(answer == labels).mean() for answer in moved])))
        same.append(float(np.mean([(answer == still).mean() for answer in moved])))
        right += np.mean([answer == labels for answer in moved], 0) / len(pixels)
    return {"accuracy": accuracy, "same_answer": same}, right


def sizes(asked: Predictor, rows: Rows) -> dict[str, Any]:
    """Accuracy with the test images enlarged or shrunk; None where the model does not take that size."""
    tried = resized(asked.preprocessing.size)
    labels = asked.labels[rows]
    accuracy: list[float | None] = []
    for size, change in tried:
        if not takes(asked, size):
            accuracy.append(None)
            continue
        answers = asked.logits(rows, change).argmax(1).numpy()
        accuracy.append(float((answers == labels).mean()))
    only = takes_only(asked)
    refused = [f"{h}×{w}" for ((h, w), _), value in zip(tried, accuracy, strict=True) if value is None]
    note = f"takes only {only[0]}×{only[1]}" if only else f"does not take {', '.join(refused)}" if refused else None
    return {"scale": list(SCALES), "input": [list(size) for size, _ in tried], "accuracy": accuracy, "note": note}


def takes(asked: Predictor, size: tuple[int, int]) -> bool:
    """Can the model answer images of that size?"""
    if (only := takes_only(asked)) is not None:
        return size == only
    return asked.takes(size)


def takes_only(asked: Predictor) -> tuple[int, int] | None:
    """The one input size the model takes, or None."""
    return asked.preprocessing.size if asked.head.size is not None or asked.fixed else None


def show(asked: Predictor, rows: Rows) -> dict[str, Any]:
    """The class activation maps of the images the report shows; `placement` (2, 2) is stride and start of their cells,
    each (y, x), in pixels of what the network sees.
    """
    maps, placement = asked.maps(rows)
    explained = explain_head(asked.head, maps)
    return {
        "maps": explained.maps.cpu().numpy().astype(np.float32),
        "bias": explained.bias.expand_as(explained.logits).cpu().numpy().astype(np.float32),
        "logits": explained.logits.cpu().numpy().astype(np.float32),
        "placement": np.array([placement.stride, placement.start], np.float64),
        "additive": explained.additive,
        "gap": explained.completeness.max().item(),
    }


class PeakMemory:
    """The most memory that training took, in MB: on a GPU what torch held there, else what this process held itself.

        with PeakMemory("cpu") as peak: ...
        peak.mb

    Sampled 50 times a second, because the system's own high-water mark counts the pages of the images on disk too.
    Where there is no /proc (macOS), it is that mark.
    """

    def __init__(self, device: str) -> None:
        self.device, self.mb = device, 0.0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        self._before = self._most = _own_mb()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.startswith("cuda"):
            self.mb = torch.cuda.max_memory_allocated(self.device) / 2**20
            return
        self._done.set()
        self._thread.join()
        self.mb = max(self._most, _own_mb()) - self._before

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, _own_mb())


def _own_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
