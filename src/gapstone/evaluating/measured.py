"""What is said of one model's answers: metrics with intervals, recall, confusion, calibration, moved images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.compare.tested_values import CONFIDENCE
from gapstone.statistics.calibration import calibration
from gapstone.statistics.difference import AGREEMENT
from gapstone.statistics.metrics import Metric, agreement
from gapstone.statistics.one_seed import image_interval
from gapstone.statistics.temperature import best_temperature
from gapstone.statistics.unit import POINTS, Unit

MOST_RECALLS = 1000
"""Classes whose recall is given."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answered:
    """A model's answers to the test images."""

    name: str
    """As it is shown: unlike those of the other models."""
    labels: NDArray[np.int64]
    """(n,) true classes, as the model numbers its classes."""
    logits: NDArray[np.float32]
    """(n, K)"""
    classes: NDArray[np.int64]
    """The model's number of each class of DATA."""
    probabilities: Values = field(init=False)

    def __post_init__(self) -> None:
        z = self.logits.astype(np.float64)  # in place: 400 MB of 50,000 images and 1,000 classes
        z -= z.max(1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(1, keepdims=True)
        object.__setattr__(self, "probabilities", z)

    @property
    def answer(self) -> NDArray[np.int64]:
        """(n,) as the model numbers its classes."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.answer == self.labels)

    def values(self, metric: Metric) -> Values:
        """What each image counts for the metric."""
        return metric.values(self.labels, self.probabilities)


@dataclass(frozen=True)
class Together:
    """Which of the tested images belong together."""

    groups: NDArray[np.int64] | None = None
    """(n,) equal numbers for those that do; None: each is by itself."""
    refused: bool = False
    """There are too few groups for any interval."""

    def of(self, rows: NDArray[Any]) -> "Together":
        """Of some of the images, by their numbers or as a mask."""
        return self if self.groups is None else Together(self.groups[rows], self.refused)


ALONE = Together()


def stat(values: Values, unit: Unit = POINTS, added: float = AGREEMENT, together: Together = ALONE) -> dict[str, Any]:
    """A Stat: the mean of what images count, and its interval for other images (or groups) of the same kind."""
    if not np.isfinite(values).all():  # a function of one's own, or a metric that these classes do not have
        return {"mean": None, "ci95": None, "values": []}
    bounds = None if together.refused else image_interval(values, unit, added, CONFIDENCE, together.groups)
    mean = float(np.mean(values))
    return {"mean": mean, "ci95": None if bounds is None else list(bounds), "values": [mean]}


def measures(answered: Answered, metrics: Sequence[Metric], together: Together = ALONE) -> dict[str, Any]:
    """The entries of a model in evaluated.json that follow from its answers."""
    right = answered.right.astype(np.float64)
    own = np.full(answered.logits.shape[1], -1)
    own[answered.classes] = np.arange(len(answered.classes))
    true, said = own[answered.labels], own[answered.answer]
    counts = np.zeros((len(answered.classes), len(answered.classes) + 1), np.int64)
    np.add.at(counts, (true, said), 1)  # the last column: of classes that DATA has not
    temperature, nll = best_temperature(answered.logits, answered.labels)
    return {
        "metrics": {
            metric.name: stat(answered.values(metric), metric.unit, agreement(metric, answered.labels), together)
            for metric in metrics
        },
        "recall": _recalls(true, right, len(answered.classes), together),
        "confusion": counts[:, :-1].tolist(),
        "other_classes": counts[:, -1].tolist(),
        "calibration": {**calibration(answered.logits, answered.labels), "temperature": temperature, "scaled_nll": nll},
    }


def _recalls(true: NDArray[np.int64], right: Values, classes: int, together: Together) -> list[dict[str, Any]] | None:
    if classes > MOST_RECALLS:
        return None
    nothing: dict[str, Any] = {"mean": None, "ci95": None, "values": []}
    found = []
    for of_class in (true == k for k in range(classes)):
        values = stat(right[of_class], together=together.of(of_class)) if of_class.any() else nothing
        found.append({**values, "images": int(of_class.sum())})
    return found


def moved(
    facts: Mapping[str, Any],
    shifted: NDArray[np.floating],
    labels: NDArray[np.int64],
    metric: Metric,
    together: Together = ALONE,
) -> dict[str, Any]:
    """The entries of a model on moved and resized images; `shifted`: how right each was when moved."""
    shift = facts["shift"]
    return {
        "shift": {"pixels": shift["pixels"], "accuracy": shift["accuracy"], "same_prediction": shift["same_answer"]},
        "sizes": facts["sizes"],
        "robustness_images": facts["robustness_images"],
        "shifted": stat(metric.of_moved(labels, shifted), together=together),
    }


NOT_MOVED: dict[str, Any] = {"shift": None, "sizes": None, "robustness_images": 0, "shifted": None}


def short_names(names: Sequence[str]) -> list[str]:
    """As short as tells them apart: the file's name, with as many of its folders as it takes.

    >>> short_names(["runs/a/model.safetensors", "runs/b/model.safetensors", "timm:resnet18"])
    ['a/model.safetensors', 'b/model.safetensors', 'timm:resnet18']
    """
    parts = [[name] if ":" in name else name.replace("\\", "/").rstrip("/").split("/") for name in names]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-depth:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
