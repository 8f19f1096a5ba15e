"""Metrics as one value of each test image:  ψ_i = θ + n · ∂θ/∂w_i,  whose mean over the images is the metric θ.

θ of images with weights w, at equal weights. The crossed design (`difference.crossed`) takes these values as it takes
right and wrong, so that every metric is compared by the same law. Source: influence functions (Hampel 1974, doi
10.1080/01621459.1974.10482962), as in the infinitesimal jackknife.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.statistics.difference import AGREEMENT
from gapstone.statistics.metric_values import (
    Labels,
    Probabilities,
    Values,
    accuracy,
    balanced,
    balanced_accuracy,
    brier,
    macro_f1,
    nll,
    top_k,
)
from gapstone.statistics.ranking import auroc, average_precision
from gapstone.statistics.unit import BRIER, NATS, POINTS, Unit

UNEQUAL = 3.0
"""So many times the images of the smallest class in the largest one: accuracy is then mostly that of the large ones."""


@dataclass(frozen=True)
class Metric:
    """A metric that can decide the verdict."""

    name: str
    words: str
    short: str
    """As the head of a column."""
    by_class: bool
    """Each class counts the same, whatever its number of images."""
    values: Callable[[Labels, Probabilities], Values]
    """Labels (n,) and probabilities (n, K), whose argmax are the answers → one value of each image."""
    unit: Unit = POINTS
    of_probabilities: bool = False
    """It follows from more than the answers."""
    digest: str | None = None
    """Of the code of a function of one's own."""

    @property
    def moved(self) -> str:
        """What moved images are compared by, of which the share of correct predictions is known."""
        return "balanced_accuracy" if self.by_class else "accuracy"

    def of_moved(self, labels: Labels, right: NDArray[np.floating]) -> Values:
        """What each moved image counts; `right`: the share of its moves under which it is classified correctly."""
        share: Values = np.asarray(right, np.float64)
        return balanced(labels, share) if self.by_class else share

    def to_json(self) -> dict[str, Any]:
        """An entry of "metrics" in results.json."""
        unit = self.unit
        return {
            "name": self.name,
            "words": self.words,
            "short": self.short,
            "unit": unit.name,
            "factor": unit.factor,
            "digits": unit.digits,
            "margin": None if unit.margin is None else unit.factor * unit.margin,
            "lower_is_better": unit.lower_is_better,
            "digest": self.digest,
        }


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "accuracy", False, accuracy),
        Metric("balanced_accuracy", "balanced accuracy", "balanced", True, balanced_accuracy),
        Metric("macro_f1", "macro-F1", "macro-F1", True, macro_f1),
        Metric("auroc", "AUROC", "AUROC", True, auroc, of_probabilities=True),
        Metric("average_precision", "average precision", "AP", True, average_precision, of_probabilities=True),
        Metric("nll", "negative log-likelihood", "NLL", False, nll, NATS, of_probabilities=True),
        Metric("brier", "Brier score", "Brier", False, brier, BRIER, of_probabilities=True),
    )
}
"""By name; `find_metric` also knows top2, top3, …"""
TOP = re.compile(r"top(\d{1,6})")


def find_metric(name: str) -> Metric:
    """The metric of that name.

    >>> find_metric("top5").words
    'top-5 accuracy'

    Raises:
        ValueError: there is none.
    """
    if name in METRICS:
        return METRICS[name]
    if (found := TOP.fullmatch(name)) and (k := int(found[1])) > 0:
        return Metric(name, f"top-{k} accuracy", f"top-{k}", False, partial(top_k, k=k))
    raise ValueError(
        f"--metric {display(name)!r}: give one of {', '.join(METRICS)}, top5 (or another number), or FILE.py:FUNCTION."
    )


def metric_names(classes: int) -> list[str]:
    """The metrics that every result shows: top-5 accuracy where there are more than five classes."""
    return [*METRICS, *(["top5"] if classes > 5 else [])]


def shown_metrics(deciding: Metric, classes: int) -> list[Metric]:
    """What decides, then all others that every result shows."""
    return [deciding, *(find_metric(name) for name in metric_names(classes) if name != deciding.name)]


def choose_metric(asked: Metric | None, counts: NDArray[np.integer]) -> tuple[Metric, str | None]:
    """The metric that decides, and a sentence where nobody asked for it.

        >>> choose_metric(None, np.array([150, 3]))
        (Metric(name='balanced_accuracy', …), 'The classes have 3 to 150 images, so verdicts are on balanced …')

    Args:
        asked: the metric, or None.
        counts: images of each class.
    """
    if asked is not None:
        return asked, None
    some = counts[counts > 0]
    if some.max() <= UNEQUAL * some.min():
        return METRICS["accuracy"], None
    return METRICS["balanced_accuracy"], (
        f"The classes have {some.min():,} to {some.max():,} images, so verdicts are on balanced accuracy, the mean "
        f"recall of the classes (--metric accuracy for accuracy): always answering the largest class has an accuracy "
        f"of {100 * some.max() / some.sum():.1f} %, and a balanced accuracy of {100 / len(some):.1f} %."
    )


Tested = tuple[Labels, Values, NDArray[np.bool_]]
"""Of a trial: labels of its test images, what each counts for a metric, and whether it is classified correctly."""


def added_images(metric: Metric, labels: Labels, trials: Sequence[Tested]) -> float:
    """`agreement`, times the square of what it is worth for the metric to classify an image correctly.

    Of accuracy that is 1. Of metrics of probabilities it is seen in the data: how much more correctly classified images
    count than others, on average, in parts of the weight that an image of their class has. Where all are classified
    correctly, or none, it stays 1; of a function of one's own, the standard deviation of its values stands for it.
    """
    added = agreement(metric, labels)
    if not metric.of_probabilities:
        return added
    worth = [
        weighted[right].mean() - weighted[~right].mean()
        for of, values, right in trials
        for weighted in [(values - values.mean()) / _weights(metric, of)]
        if right.any() and not right.all()
    ]
    if worth:
        return added * float(np.mean(worth) ** 2)
    return added if metric.digest is None else added * float(np.mean([values.var() for _, values, _ in trials]))


def _weights(metric: Metric, labels: Labels) -> Values:
    """What an image of its class counts for the metric, 1 on average."""
    if not metric.by_class:
        return np.ones(len(labels))
    count = np.bincount(labels)
    return np.asarray(len(labels) / ((count > 0).sum() * count[labels]), np.float64)


def agreement(metric: str | Metric, labels: Labels) -> float:
    """The images that are added to the variance (`difference.AGREEMENT`), by the weight that an image has.

    Two of n for accuracy. Where each of K classes counts the same, 2 / K of every class: Σ 2 / (K (n_k + 2)²) / K²
    instead of 2 / (n + 2)², which it is for equal classes. Heads that agree on all of a rare class have shown little.
    """
    metric = find_metric(metric) if isinstance(metric, str) else metric
    if not metric.by_class:
        return AGREEMENT
    count = np.bincount(labels)
    count = count[count > 0]
    return float((AGREEMENT / (count + 2.0) ** 2).sum() / len(count) ** 3 * (len(labels) + 2.0) ** 2)
