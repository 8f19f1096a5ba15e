"""Metrics of rankings, one class against the rest, and their mean over classes: AUROC and average precision.

A class counts if some images are of it and some are not. Its images are ranked by its probability.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.metric_values import Labels, Probabilities, Values

Of = Callable[[NDArray[np.bool_], NDArray[np.float64]], Values]


def auroc(labels: Labels, probabilities: Probabilities) -> Values:
    """The area under the ROC curve, one class against the rest, the mean over classes; NaN where there is one class.

        >>> float(auroc(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])).mean())
        1.0

    Source: DeLong, DeLong & Clarke-Pearson 1988 (doi 10.2307/2531595).
    """
    return _over_classes(labels, probabilities, auroc_of)


def average_precision(labels: Labels, probabilities: Probabilities) -> Values:
    """The mean over classes of average precision, the area under the steps of precision against recall.

    >>> float(average_precision(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])).mean())
    1.0
    """
    return _over_classes(labels, probabilities, average_precision_of)


def _over_classes(labels: Labels, probabilities: Probabilities, of: Of) -> Values:
    classes, counts = np.unique(labels, return_counts=True)
    counted = classes[counts < len(labels)]
    if not len(counted):
        return np.full(len(labels), np.nan)
    total = np.zeros(len(labels))
    for k in counted.tolist():
        total += of(labels == k, probabilities[:, k])
    return total / len(counted)


def auroc_of(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Values:
    """DeLong's components: of each positive the share of negatives below it, of each negative that of positives above.

    >>> float(auroc_of(np.array([True, False, False]), np.array([0.5, 0.5, 0.1])).mean())     # a tie counts half
    0.75
    """
    order, first, last = _ranked(score)
    n, positives = len(score), int(positive.sum())
    negatives = n - positives
    up_to = np.concatenate([[0], np.cumsum(positive[order])])
    positives_below, positives_equal = up_to[first], up_to[last + 1] - up_to[first]
    negatives_below, negatives_equal = first - positives_below, last + 1 - first - positives_equal
    above = (positives - positives_below - positives_equal / 2) / positives
    component = np.empty(n)
    component[order] = np.where(positive[order], (negatives_below + negatives_equal / 2) / negatives, above)
    area = component[positive].mean()
    return np.asarray(area + n / np.where(positive, positives, negatives) * (component - area), np.float64)


def average_precision_of(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Values:
    """Σ_i w_i P_i / Σ_i w_i over positives i, with P_i = Σ_j w_j [j positive, x_j ≥ x_i] / Σ_j w_j [x_j ≥ x_i].

    >>> float(average_precision_of(np.array([True, False, True]), np.array([0.9, 0.5, 0.1])).mean())
    0.833...
    """
    order, first, last = _ranked(score)
    n, positives = len(score), int(positive.sum())
    is_positive = positive[order].astype(np.float64)
    up_to = np.concatenate([[0.0], np.cumsum(is_positive)])
    at_least = n - first
    precision = (positives - up_to[first]) / at_least
    whole = float((is_positive * precision).sum() / positives)
    # a heavier image moves the precision at every positive that is ranked below it, or with it
    more = np.cumsum(is_positive / at_least)[last]
    less = np.cumsum(is_positive * precision / at_least)[last]
    values = np.empty(n)
    values[order] = whole + n / positives * (is_positive * (precision - whole + more) - less)
    return values


def _ranked(score: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The order of ascending scores, and of each place the first and the last one with the same score."""
    order = np.argsort(score)  # the order of equal ones does not matter
    new = np.concatenate([[True], np.diff(score[order]) != 0])
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    ends = np.concatenate([starts[1:], [len(score)]]) - 1
    return order, starts[group], ends[group]
