"""Metrics as one value of each test image:  ψ_i = θ + n · ∂θ/∂w_i,  whose mean over the images is the metric θ.

θ of images with weights w, at equal weights. The crossed design (`difference.crossed`) takes these values as it takes
right and wrong, so that every metric is compared by the same law. Source: influence functions (Hampel 1974, doi
10.1080/01621459.1974.10482962), as in the infinitesimal jackknife.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.difference import AGREEMENT

Labels = NDArray[np.integer]
Probabilities = NDArray[np.float64]
Values = NDArray[np.float64]
UNEQUAL = 3.0
"""So many times the images of the smallest class in the largest one: accuracy is then mostly that of the large ones."""


@dataclass(frozen=True)
class Metric:
    """A metric that decides the verdict."""

    words: str
    short: str
    """As the head of a column."""
    by_class: bool
    """Each class counts the same, whatever its number of images."""
    values: Callable[[Labels, Probabilities], Values]
    """Labels (n,) and probabilities (n, K), whose argmax are the answers → one value of each image."""


def one_hot(answers: Labels, classes: int) -> Probabilities:
    """Probabilities of answers of which nothing else is known.

    >>> one_hot(np.array([0, 2]), 3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    return np.eye(classes)[answers]


def accuracy(labels: Labels, probabilities: Probabilities) -> Values:
    """>>> accuracy(np.array([0, 1, 1]), one_hot(np.array([0, 1, 0]), 2))
    array([1., 1., 0.])
    """
    return np.asarray(labels == probabilities.argmax(1), np.float64)


def balanced_accuracy(labels: Labels, probabilities: Probabilities) -> Values:
    """The mean over classes of their recall.

    >>> float(balanced_accuracy(np.array([0, 1, 1, 1]), one_hot(np.array([0, 1, 1, 0]), 2)).mean())
    0.833...
    """
    return balanced(labels, accuracy(labels, probabilities))


def balanced(labels: Labels, right: Values) -> Values:
    """As `balanced_accuracy`, of how right each image is: 0, 1, or a share of several looks at it."""
    count = np.bincount(labels)
    present = count > 0
    recall = np.bincount(labels, right) / np.maximum(count, 1)
    weight = len(labels) / (present.sum() * count[labels])
    return np.asarray(recall[present].mean() + weight * (right - recall[labels]), np.float64)


def macro_f1(labels: Labels, probabilities: Probabilities) -> Values:
    """The mean over the classes among the labels of F1 = 2 TP / (predicted + true).

    >>> float(macro_f1(np.array([0, 1, 1, 1]), one_hot(np.array([0, 1, 1, 0]), 2)).mean())
    0.733...
    """
    total, answers = np.zeros(len(labels)), probabilities.argmax(1)
    classes = np.unique(labels)
    for k in classes.tolist():
        both, either = (labels == k) & (answers == k), (labels == k).astype(np.float64) + (answers == k)
        f1 = 2 * both.sum() / either.sum()
        total += f1 + len(labels) / either.sum() * (2 * both - f1 * either)
    return np.asarray(total / len(classes), np.float64)


METRICS = {
    "accuracy": Metric("accuracy", "accuracy", False, accuracy),
    "balanced_accuracy": Metric("balanced accuracy", "balanced", True, balanced_accuracy),
    "macro_f1": Metric("macro-F1", "macro-F1", True, macro_f1),
}


def of_confusion(metric: str, counts: NDArray[np.integer]) -> float:
    """The metric of answers that are counted: `counts[true, predicted]`.

    >>> of_confusion("balanced_accuracy", np.array([[1, 0], [1, 2]]))
    0.833...
    """
    labels, answers = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    return float(METRICS[metric].values(labels, one_hot(answers, len(counts))).mean())


def choose_metric(asked: str | None, counts: NDArray[np.integer]) -> tuple[str, str | None]:
    """The metric that decides, and a sentence where nobody asked for it.

        >>> choose_metric(None, np.array([150, 3]))
        ('balanced_accuracy', 'The classes have 3 to 150 images, so verdicts are on balanced accuracy, the mean …')

    Args:
        asked: a name of METRICS, or None.
        counts: images of each class.
    """
    if asked is not None:
        return asked, None
    some = counts[counts > 0]
    if some.max() <= UNEQUAL * some.min():
        return "accuracy", None
    return "balanced_accuracy", (
        f"The classes have {some.min():,} to {some.max():,} images, so verdicts are on balanced accuracy, the mean "
        f"recall of the classes (--metric accuracy for accuracy): always answering the largest class has an accuracy "
        f"of {100 * some.max() / some.sum():.1f} %, and a balanced accuracy of {100 / len(some):.1f} %."
    )


def agreement(metric: str, labels: Labels) -> float:
    """The images that are added to the variance (`difference.AGREEMENT`), by the weight that an image has.

    Two of n for accuracy. Where each of K classes counts the same, 2 / K of every class: Σ 2 / (K (n_k + 2)²) / K²
    instead of 2 / (n + 2)², which it is for equal classes. Heads that agree on all of a rare class have shown little.
    """
    if not METRICS[metric].by_class:
        return AGREEMENT
    count = np.bincount(labels)
    count = count[count > 0]
    return float((AGREEMENT / (count + 2.0) ** 2).sum() / len(count) ** 3 * (len(labels) + 2.0) ** 2)
