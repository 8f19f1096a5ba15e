"""What is said of one model's answers: metrics with intervals, recall, confusion, calibration, moved images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from gapstone.comparing.tested_values import CONFIDENCE
from gapstone.comparing.trial_measures import score_key
from gapstone.statistics.calibration import calibration
from gapstone.statistics.difference import AGREEMENT
from gapstone.statistics.labels import Labels, all_right, answers, is_multi_label
from gapstone.statistics.metrics import Metric, added_by_worth, added_images, agreement, most_answers
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
    labels: Labels
    """(n,) true classes, as the model numbers its classes; with several labels (n, K) bool, in DATA's order."""
    logits: NDArray[np.float32]
    """(n, K)"""
    classes: NDArray[np.int64]
    """The number of each class of DATA among those of the logits."""
    probabilities: Values = field(init=False)

    def __post_init__(self) -> None:
        z = self.logits.astype(np.float64)  # in place: 400 MB of 50,000 images and 1,000 classes
        if self.multi_label:
            expit(z, out=z)
        else:
            z -= z.max(1, keepdims=True)
            np.exp(z, out=z)
            z /= z.sum(1, keepdims=True)
        object.__setattr__(self, "probabilities", z)

    @property
    def multi_label(self) -> bool:
        """Images may have several labels: each class is answered by itself."""
        return is_multi_label(self.labels)

    @property
    def answer(self) -> Labels:
        """(n,) numbers, or (n, K) bool, as the labels."""
        return answers(self.probabilities, self.multi_label)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) with several labels: all of them, and no other."""
        return all_right(self.labels, self.answer)

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


def stat(
    values: Values,
    unit: Unit = POINTS,
    added: float = AGREEMENT,
    together: Together = ALONE,
    at_most: float | None = None,
    strata: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """A Stat: the mean of what images count, and its interval for other images (or groups) of the same kind."""
    if not np.isfinite(values).all():  # a function of one's own, or a metric that these classes do not have
        return {"mean": None, "ci95": None, "values": []}
    about = CONFIDENCE, together.groups, at_most, strata
    bounds = None if together.refused else image_interval(values, unit, added, *about)
    mean = float(np.mean(values))
    return {"mean": mean, "ci95": None if bounds is None else list(bounds), "values": [mean]}


def measures(answered: Answered, metrics: Sequence[Metric], together: Together = ALONE) -> dict[str, Any]:
    """The entries of a model in evaluated.json that follow from its answers."""
    temperature, nll = best_temperature(answered.logits, answered.labels)
    scores = calibration(answered.logits, answered.labels)
    return {
        "metrics": {metric.name: metric_stat(answered, metric, together) for metric in metrics},
        **(_no_confusion() if answered.multi_label else _confusion(answered, together)),
        "calibration": {**scores, "temperature": temperature, "scaled_nll": nll},
    }


def metric_stat(answered: Answered, metric: Metric, together: Together = ALONE) -> dict[str, Any]:
    """A Stat of the metric."""
    values, labels = answered.values(metric), answered.labels
    added = added_of([answered], metric) if answered.multi_label else agreement(metric, labels)
    return stat(values, metric.unit, added, together, most_answers(metric, labels, added), strata_of(metric, labels))


def strata_of(metric: Metric, labels: Labels) -> NDArray[np.int64] | None:
    """Images in each part by which decisions weigh; None where an image counts as a whole."""
    return None if metric.strata is None else metric.strata(labels)


def added_of(models: Sequence[Answered], metric: Metric) -> float:
    """The images that are added to the variance (`metrics.added_images`), seen in the answers of some models."""
    labels = models[0].labels
    if metric.worth is None:
        trials: list[Any] = [(one.labels, one.values(metric), one.right) for one in models]
        return added_images(metric, labels, trials)
    return added_by_worth(metric, labels, [metric.measured(one.labels, one.probabilities).worth for one in models])


def _no_confusion() -> dict[str, Any]:
    """Images of several labels are not of one class, taken for another."""
    return {"recall": None, "confusion": None, "other_classes": None}


def _confusion(answered: Answered, together: Together) -> dict[str, Any]:
    right = answered.right.astype(np.float64)
    own = np.full(answered.logits.shape[1], -1)
    own[answered.classes] = np.arange(len(answered.classes))
    true, said = own[answered.labels], own[answered.answer]
    counts = np.zeros((len(answered.classes), len(answered.classes) + 1), np.int64)
    np.add.at(counts, (true, said), 1)  # the last column: of classes that DATA has not
    return {
        "recall": _recalls(true, right, len(answered.classes), together),
        "confusion": counts[:, :-1].tolist(),
        "other_classes": counts[:, -1].tolist(),
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
    labels: Labels,
    metric: Metric,
    together: Together = ALONE,
) -> dict[str, Any]:
    """The entries of a model on moved and resized images; `shifted`: how right each was when moved."""
    shift, score = facts["shift"], score_key(labels)
    strata = strata_of(metric.moved_by(is_multi_label(labels)), labels)
    return {
        "shift": {"pixels": shift["pixels"], score: shift[score], "same_prediction": shift["same_answer"]},
        "sizes": facts["sizes"],
        "robustness_images": facts["robustness_images"],
        "shifted": stat(metric.of_moved(labels, shifted), together=together, strata=strata),
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
