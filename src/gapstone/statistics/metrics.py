"""Metrics as one value of each test image:  ψ_i = θ + n · ∂θ/∂w_i,  whose mean over the images is the metric θ.

θ of images with weights w, at equal weights. The crossed design (`difference.crossed`) takes these values as it takes
right and wrong, so that every metric is compared by the same law. Source: influence functions (Hampel 1974, doi
10.1080/01621459.1974.10482962), as in the infinitesimal jackknife.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.statistics import multi_label_metrics
from gapstone.statistics.difference import AGREEMENT
from gapstone.statistics.labels import Labels as AnyLabels
from gapstone.statistics.labels import class_counts, is_multi_label
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
from gapstone.statistics.multi_label_metrics import Columns
from gapstone.statistics.ranking import auroc, average_precision
from gapstone.statistics.unit import BRIER, BRIER_OF_CLASS, NATS, POINTS, Unit
from gapstone.statistics.worth import (
    Strata,
    by_all_positives,
    by_either,
    by_positives,
    worth_of_loss,
    worth_of_ranking,
)

UNEQUAL = 3.0
"""So many times the images of the smallest class in the largest one: accuracy is then mostly that of the large ones."""


class Measured(NamedTuple):
    """What answers count for a metric."""

    values: Values
    """(n,) of each image."""
    columns: Columns | None
    """(n, K) of each image and class, where it is a mean over classes of several labels."""
    worth: float | None
    """What a decision is worth (`Metric.worth`); None where that is not asked, or not seen."""


@dataclass(frozen=True)
class Metric:
    """A metric that can decide the verdict."""

    name: str
    words: str
    short: str
    """As the head of a column."""
    by_class: bool
    """Each class counts the same, whatever its number of images."""
    values: Callable[[Any, Probabilities], Values]
    """Labels and probabilities (n, K) → one value of each image. Labels are (n,), and the answers argmax; or (n, K)
    bool, and the answers what has 0.5 or more."""
    unit: Unit = POINTS
    of_probabilities: bool = False
    """It follows from more than the answers."""
    digest: str | None = None
    """Of the code of a function of one's own."""
    strata: Callable[[Any], NDArray[np.int64]] | None = None
    """Of multi-label metrics: the numbers of images by which decisions weigh; None: an image counts as a whole."""
    of_classes: Callable[[Any, Probabilities], Columns] | None = None
    """Of multi-label metrics that are means over classes: their values of each class (n, K)."""
    worth: Callable[[Any, Probabilities, Columns], float | None] | None = None
    """Of such metrics of probabilities, from the values of classes: what a decision is worth (`statistics.worth`)."""

    def measured(self, labels: Any, probabilities: Probabilities) -> Measured:
        """`values`, with what they are made of, which is computed once."""
        if self.of_classes is None:
            return Measured(self.values(labels, probabilities), None, None)
        columns = self.of_classes(labels, probabilities)
        worth = None if self.worth is None else self.worth(labels, probabilities, columns)
        return Measured(multi_label_metrics.over_classes(columns), columns, worth)

    def moved_by(self, multi_label: bool) -> "Metric":
        """What moved images are compared by, of which the share of correct predictions is known."""
        if multi_label:
            return MULTI_LABEL["balanced_accuracy"]
        return METRICS["balanced_accuracy" if self.by_class else "accuracy"]

    @property
    def by_tails(self) -> bool:
        """Whether images with rare classes weigh so much that few decide (`difference.tails`)."""
        return self.strata is not None

    @property
    def level_by_tails(self) -> bool:
        """The same of one model's level, whose images of a rare class are all that is known of it.

        Two models are asked about the same images: there it only costs power.
        """
        return self.by_tails or self.by_class

    def of_moved(self, labels: AnyLabels, right: NDArray[np.floating]) -> Values:
        """What each moved image counts; `right`: the share of its moves under which it is classified correctly.

        With several labels that is the share of each class's decisions (n, K).
        """
        share: Values = np.asarray(right, np.float64)
        if is_multi_label(labels):
            return multi_label_metrics.balanced(np.asarray(labels, bool), share)
        return balanced(np.asarray(labels, np.int64), share) if self.by_class else share

    def with_margin(self, margin: float | None) -> "Metric":
        """The same, of which differences up to `margin` do not matter, in its unit as it is shown; None: as it is."""
        return self if margin is None else replace(self, unit=self.unit.with_margin(margin / self.unit.factor))

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


def _of_classes(
    name: str, words: str, short: str, of_classes: Callable[[Any, Probabilities], Columns], **more: Any
) -> Metric:
    def values(labels: Any, probabilities: Probabilities) -> Values:
        return multi_label_metrics.over_classes(of_classes(labels, probabilities))

    return Metric(name, words, short, "strata" in more, values, of_classes=of_classes, **more)


def _ranking(
    name: str, words: str, short: str, of_classes: Callable[[Any, Probabilities], Columns], strata: Strata
) -> Metric:
    worth = partial(worth_of_ranking, strata=strata)
    return _of_classes(name, words, short, of_classes, of_probabilities=True, strata=strata, worth=worth)


MULTI_LABEL = {
    metric.name: metric
    for metric in (
        _ranking(
            "average_precision", "mean average precision", "mAP", multi_label_metrics.average_precision, by_positives
        ),
        _ranking("auroc", "AUROC", "AUROC", multi_label_metrics.auroc, by_either),
        _of_classes("macro_f1", "macro-F1", "macro-F1", multi_label_metrics.f1, strata=by_positives),
        Metric("micro_f1", "micro-F1", "micro-F1", False, multi_label_metrics.micro_f1, strata=by_all_positives),
        _of_classes(
            "balanced_accuracy",
            "balanced accuracy",
            "balanced",
            multi_label_metrics.balanced_accuracy,
            strata=by_either,
        ),
        Metric("accuracy", "share of images with all labels right", "all right", False, multi_label_metrics.accuracy),
        _of_classes(
            "nll",
            "negative log-likelihood",
            "NLL",
            multi_label_metrics.nll,
            unit=NATS,
            of_probabilities=True,
            worth=worth_of_loss,
        ),
        _of_classes(
            "brier",
            "Brier score",
            "Brier",
            multi_label_metrics.brier,
            unit=BRIER_OF_CLASS,
            of_probabilities=True,
            worth=worth_of_loss,
        ),
    )
}
"""Those of several labels per image, by name."""
TOP = re.compile(r"top(\d{1,6})")


def find_metric(name: str, multi_label: bool = False) -> Metric:
    """The metric of that name.

        >>> find_metric("top5").words, find_metric("average_precision", multi_label=True).short
        ('top-5 accuracy', 'mAP')

    Args:
        name: of the metric.
        multi_label: for several labels per image.

    Raises:
        ValueError: there is none.
    """
    known = MULTI_LABEL if multi_label else METRICS
    if name in known:
        return known[name]
    top = TOP.fullmatch(name)
    if top and int(top[1]) > 0 and not multi_label:
        return Metric(name, f"top-{int(top[1])} accuracy", f"top-{int(top[1])}", False, partial(top_k, k=int(top[1])))
    if top and multi_label:
        raise ValueError(
            f"--metric {name} is for images of one class each, and these have several labels: {_one_of(known)}."
        )
    if name in MULTI_LABEL:
        raise ValueError(f"--metric {name} is for several labels per image, and these have one each: {_one_of(known)}.")
    also = "" if multi_label else ", top5 (or another number)"
    raise ValueError(f"--metric {display(name)!r}: {_one_of(known)}{also}, or FILE.py:FUNCTION.")


def _one_of(known: Mapping[str, Metric]) -> str:
    return f"give one of {', '.join(known)}"


def metric_names(classes: int, multi_label: bool = False) -> list[str]:
    """The metrics that every result shows: top-5 accuracy where there are more than five classes of one each."""
    return list(MULTI_LABEL) if multi_label else [*METRICS, *(["top5"] if classes > 5 else [])]


def shown_metrics(deciding: Metric, classes: int, multi_label: bool = False) -> list[Metric]:
    """What decides, then all others that every result shows."""
    names = metric_names(classes, multi_label)
    return [deciding, *(find_metric(name, multi_label) for name in names if name != deciding.name)]


def choose_metric(asked: Metric | None, counts: NDArray[np.integer]) -> tuple[Metric, str | None]:
    """The metric that decides, and a sentence where nobody asked for it.

        >>> choose_metric(None, np.array([150, 3]))
        (Metric(name='balanced_accuracy', …), 'The classes have 3 to 150 images, so verdicts are on balanced …')

    Args:
        asked: the metric, or None.
        counts: images of each class, which have one each.
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


def choose_for(asked: Metric | None, labels: AnyLabels, classes: int) -> tuple[Metric, str | None]:
    """The same for labels in either form; several labels per image are judged by their mean average precision.

        >>> choose_for(None, np.array([[True, False], [False, True], [True, False], [False, False]]), 2)
        (Metric(name='average_precision', …), 'Images have several labels, so verdicts are on mean average …')

    Args:
        asked: the metric, or None.
        labels: of all images.
        classes: their number.

    Raises:
        ValueError: the metric is for labels of the other form.
    """
    multi_label = is_multi_label(labels)
    if asked is not None and asked.digest is None:
        asked = find_metric(asked.name, multi_label)
    if asked is not None or not multi_label:
        return choose_metric(asked, class_counts(labels, classes))
    share = labels.mean(0)
    chance = float(share[(share > 0) & (share < 1)].mean()) if ((share > 0) & (share < 1)).any() else 0.0
    return MULTI_LABEL["average_precision"], (
        f"Images have several labels, so verdicts are on mean average precision (mAP), each class ranked by itself "
        f"(--metric for another one): guessing has {100 * chance:.1f} %, the mean share of images that a class has."
    )


Tested = tuple[Labels, Values, NDArray[np.bool_]]
"""Of a trial: labels of its test images, what each counts for a metric, and whether it is classified correctly."""


def added_images(metric: Metric, labels: AnyLabels, trials: Sequence[Tested]) -> float:
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
    if worth and np.mean(worth):  # none of a perfect ranking, whose answers may still be wrong
        return added * float(np.mean(worth) ** 2)
    return added if metric.digest is None else added * float(np.mean([values.var() for _, values, _ in trials]))


def added_by_worth(metric: Metric, labels: AnyLabels, worths: Sequence[float | None]) -> float:
    """The same of multi-label metrics, of what `Metric.worth` saw in each trial."""
    seen = float(np.mean([worth for worth in worths if worth is not None] or [0.0]))
    return agreement(metric, labels) * (seen**2 or 1.0)


def most_answers(metric: Metric, labels: AnyLabels, added: float) -> float | None:
    """How many independent answers the images are at most, for the interval of one head; None: as many as there are.

    Of multi-label metrics in which each class counts the same: as many as would have the variance that is added. Two
    images of a class that are both found do not show how many of other images would be.
    """
    if not is_multi_label(labels) or not metric.by_class:
        return None
    return float((len(labels) + 2) * np.sqrt(AGREEMENT / added))


def _weights(metric: Metric, labels: Labels) -> Values:
    """What an image of its class counts for the metric, 1 on average."""
    if not metric.by_class:
        return np.ones(len(labels))
    count = np.bincount(labels)
    return np.asarray(len(labels) / ((count > 0).sum() * count[labels]), np.float64)


def agreement(metric: str | Metric, labels: AnyLabels) -> float:
    """The images that are added to the variance (`difference.AGREEMENT`), by the weight that an image has.

    Two of n for accuracy. Where each of K classes counts the same, 2 / K of every class: Σ 2 / (K (n_k + 2)²) / K²
    instead of 2 / (n + 2)², which it is for equal classes. Heads that agree on all of a rare class have shown little.
    With several labels per image the images of a class and those without it are two such classes.
    """
    multi_label = is_multi_label(labels)
    metric = find_metric(metric, multi_label) if isinstance(metric, str) else metric
    if multi_label:
        count = np.array([]) if metric.strata is None else metric.strata(labels)
    else:
        count = np.bincount(labels) if metric.by_class else np.array([])
    count = count[count > 0]
    if not len(count):
        return AGREEMENT
    return float((AGREEMENT / (count + 2.0) ** 2).sum() / len(count) ** 3 * (len(labels) + 2.0) ** 2)
