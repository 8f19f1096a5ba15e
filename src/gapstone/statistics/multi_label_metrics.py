"""Metrics of several labels per image:  ψ_ik = θ_k + n · ∂θ_k/∂w_i  of image i and class k, each class a yes or no.

Labels are an indicator array (n, K); a class is answered from a probability of 0.5 on. Means over classes are over the
classes that count: those that some of the images have, and some have not.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.labels import all_right, decisions
from gapstone.statistics.metric_values import Probabilities, Values
from gapstone.statistics.ranking import auroc_of, average_precision_of

Indicators = NDArray[np.bool_]
Columns = NDArray[np.float64]
"""(n, K) values of images and classes."""
Of = Callable[[Indicators, NDArray[np.float64]], Values]
"""(n,) whether each image has the class, and its probability → one value of each image."""


def counted(labels: Indicators) -> NDArray[np.bool_]:
    """Which classes count: some images have them, and some have not.

    >>> counted(np.array([[True, False, True], [False, False, True]]))
    array([ True, False, False])
    """
    return np.asarray(labels.any(0) & ~labels.all(0))


def columns(labels: Indicators, probabilities: Probabilities, of: Of) -> Columns:
    """The values of each class that counts (n, K); NaN of others."""
    found = np.full(labels.shape, np.nan, order="F")
    for k in np.flatnonzero(counted(labels)).tolist():
        found[:, k] = of(labels[:, k], probabilities[:, k])
    return found


def over_classes(found: Columns) -> Values:
    """Their mean over the classes that count; NaN where none does.

    >>> over_classes(np.array([[0.5, np.nan, 1.0], [0.0, np.nan, 1.0]]))
    array([0.75, 0.5 ])
    """
    every = ~np.isnan(found).any(0)
    return np.asarray(found[:, every].mean(1)) if every.any() else np.full(len(found), np.nan)


def right_of(labels: Indicators, right: NDArray[np.floating]) -> Columns:
    """Balanced accuracy of each class, the mean of sensitivity and specificity: values (n, K).

    Of how right each decision is (n, K): 0, 1, or a share of several looks at the image. NaN where a class does not
    count.
    """
    right, n = np.asarray(right, np.float64), len(labels)
    found = np.zeros(right.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        for part in (labels, ~labels):
            count = part.sum(0)
            share = (right * part).sum(0) / count
            found += (share + n / count * part * (right - share)) / 2
    return np.where(counted(labels), found, np.nan)


def balanced(labels: Indicators, right: NDArray[np.floating]) -> Values:
    """Its mean over the classes.

    >>> labels = np.array([[True], [False], [False], [False]])
    >>> float(balanced(labels, np.array([[1.0], [1.0], [1.0], [0.0]])).mean())
    0.833...
    """
    return over_classes(right_of(labels, right))


def balanced_accuracy(labels: Indicators, probabilities: Probabilities) -> Columns:
    """The mean of sensitivity and specificity of each class."""
    return right_of(labels, decisions(probabilities) == labels)


def f1_of(positive: Indicators, answered: Indicators) -> Values:
    """F1 = 2 TP / (answered + true) of one class; its images must have some.

    >>> float(f1_of(np.array([True, True, False]), np.array([True, False, True])).mean())
    0.5
    """
    either = positive.astype(np.float64) + answered
    f1 = 2 * (positive & answered).sum() / either.sum()
    return np.asarray(f1 + len(positive) / either.sum() * (2.0 * (positive & answered) - f1 * either), np.float64)


def f1(labels: Indicators, probabilities: Probabilities) -> Columns:
    """F1 of each class."""
    return columns(labels, probabilities, lambda positive, p: f1_of(positive, decisions(p)))


def micro_f1(labels: Indicators, probabilities: Probabilities) -> Values:
    """F1 of all decisions on all classes together; NaN where no image has a class and none is answered.

    >>> float(micro_f1(np.array([[True, True], [False, False]]), np.array([[0.9, 0.1], [0.6, 0.1]])).mean())
    0.5
    """
    answered = decisions(probabilities)
    both, either = (labels & answered).sum(1), labels.sum(1) + answered.sum(1)
    if not either.sum():
        return np.full(len(labels), np.nan)
    f1 = 2 * both.sum() / either.sum()
    return np.asarray(f1 + len(labels) / either.sum() * (2 * both - f1 * either), np.float64)


def average_precision(labels: Indicators, probabilities: Probabilities) -> Columns:
    """Of each class; its mean over the classes is mAP.

    >>> average_precision(np.array([[True], [False]]), np.array([[0.3], [0.1]])).mean(0)
    array([1.])
    """
    return columns(labels, probabilities, average_precision_of)


def auroc(labels: Indicators, probabilities: Probabilities) -> Columns:
    """The area under the ROC curve of each class."""
    return columns(labels, probabilities, auroc_of)


def accuracy(labels: Indicators, probabilities: Probabilities) -> Values:
    """Whether all classes of an image are answered right (subset accuracy).

    >>> accuracy(np.array([[True, False], [True, True]]), np.array([[0.9, 0.1], [0.9, 0.1]]))
    array([1., 0.])
    """
    return all_right(labels, decisions(probabilities)).astype(np.float64)


TINY = 2.0**-53
"""The least 1 − p that a probability in float64 has: a class that an image has not costs 36.7 nats at most."""


def nll(labels: Indicators, probabilities: Probabilities) -> Columns:
    """The binary cross-entropy of each image and class, in nats.

    >>> nll(np.array([[True, False]]), np.array([[0.5, 1.0]]))
    array([[ 0.693..., 36.7...]])
    """
    least = float(np.finfo(np.float64).tiny)
    p = np.where(labels, np.maximum(probabilities, least), np.maximum(1 - probabilities, TINY))
    return np.asarray(-np.log(p), np.float64)


def brier(labels: Indicators, probabilities: Probabilities) -> Columns:
    """The squared error of each image and class, 0 to 1.

    >>> brier(np.array([[True, False]]), np.array([[0.5, 0.5]]))
    array([[0.25, 0.25]])
    """
    return np.asarray((probabilities - labels) ** 2, np.float64)
