"""What is measured on one trained model: quality, robustness to shifts and sizes, memory."""

import resource
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gapstone.classifier import Classifier
from gapstone.maps import explain_maps
from gapstone.training import Pictures, Precision, Rows, cast_to, predict

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
    most = max(2, min(size) // 8)
    return sorted({int(k + 0.5) for k in np.linspace(1, most, min(most, 6))})


def translate(images: Tensor, down: int, right: int) -> Tensor:
    """Move pictures (N, C, H, W) by whole pixels; the border is repeated into what becomes free."""
    height, width = images.shape[2:]
    padded = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, :, top : top + height, left : left + width]


def shifts(
    model: Classifier, pictures: Pictures, rows: Rows, pixels: list[int], precision: Precision
) -> tuple[dict[str, list[float]], NDArray[np.float32]]:
    """Accuracy, and the share of answers that stay, when test images move by each distance in the four directions.

    Also, per image, the share of all its moves that were answered right: what the heads are compared on.
    """
    labels = pictures.labels[rows]
    still = predict(model, pictures, rows, precision).argmax(1).numpy()
    accuracy, same = [float((still == labels).mean())], [1.0]
    right = np.zeros(len(rows), np.float32)
    for distance in pixels:
        moved = [
            predict(model, pictures, rows, precision, partial(translate, down=down, right=right)).argmax(1).numpy()
            for down, right in ((0, distance), (0, -distance), (distance, 0), (-distance, 0))
        ]
        accuracy.append(float(np.mean([(answer == labels).mean() for answer in moved])))
        same.append(float(np.mean([(answer == still).mean() for answer in moved])))
        right += np.mean([answer == labels for answer in moved], 0) / len(pixels)
    return {"accuracy": accuracy, "same_answer": same}, right


def sizes(model: Classifier, pictures: Pictures, rows: Rows, precision: Precision) -> dict[str, Any]:
    """Accuracy with the test images enlarged or shrunk; None where the model does not take that size."""
    height, width = model.preprocessing.size
    inputs = [(round(height * scale), round(width * scale)) for scale in SCALES]
    only = takes_only(model)
    smallest = model.features.smallest
    labels = pictures.labels[rows]
    accuracy: list[float | None] = []
    for size in inputs:
        if (only and size != only) or min(size) < smallest:
            accuracy.append(None)
            continue

        def resize(images: Tensor, size: tuple[int, int] = size) -> Tensor:
            return F.interpolate(images, size, mode="bilinear", antialias=True) if size != (height, width) else images

        answers = predict(model, pictures, rows, precision, resize).argmax(1).numpy()
        accuracy.append(float((answers == labels).mean()))
    note = f"takes only {only[0]}×{only[1]}" if only else None
    if not only and min(inputs[0]) < smallest:
        note = f"takes {smallest} px and more"
    return {"scale": list(SCALES), "input": [list(size) for size in inputs], "accuracy": accuracy, "note": note}


def takes_only(model: Classifier) -> tuple[int, int] | None:
    """The one input size the model takes, or None."""
    if model.head.size is not None or model.features.fixed is not None:
        return model.preprocessing.size
    return None


def show(model: Classifier, pictures: Pictures, rows: Rows, precision: Precision) -> dict[str, Any]:
    """The class activation maps of the images the report shows."""
    device = next(model.parameters()).device
    seen = torch.from_numpy(np.asarray(pictures.images[rows]))
    images = model.preprocessing.normalise(model.preprocessing.centre(seen).to(device))
    with torch.no_grad(), cast_to(precision, device):
        maps = model.features(images)
    explained = explain_maps(model.head, maps.float())
    return {
        "maps": explained.maps.cpu().numpy().astype(np.float32),
        "bias": explained.bias.cpu().numpy().astype(np.float32),
        "logits": explained.logits.cpu().numpy().astype(np.float32),
        "additive": explained.additive,
        "gap": explained.gap,
    }


def memory_mb() -> float:
    """The most memory this process has held so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
