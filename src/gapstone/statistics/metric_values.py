"""Metrics of answers and of probabilities:  ψ_i = θ + n · ∂θ/∂w_i  of each image (`gapstone.statistics.metrics`)."""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Probabilities = NDArray[np.float64]
Values = NDArray[np.float64]
LEAST = float(np.finfo(np.float64).tiny)
"""A smaller probability counts as this one, so that a negative log-likelihood is 708 nats at most."""


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


def top_k(labels: Labels, probabilities: Probabilities, k: int) -> Values:
    """Whether the true class is among the k most probable; of equal ones the first come first, as in argmax.

    >>> top_k(np.array([2, 0]), np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]), 2)
    array([1., 0.])
    """
    true = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > true) | ((probabilities == true) & before)).sum(1)
    return np.asarray(rank < k, np.float64)


def nll(labels: Labels, probabilities: Probabilities) -> Values:
    """The negative log-likelihood of the true class, in nats.

    >>> nll(np.array([1]), np.array([[0.5, 0.5]]))
    array([0.693...])
    """
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST)), np.float64)


def brier(labels: Labels, probabilities: Probabilities) -> Values:
    """The sum over classes of squared errors, 0 to 2.

    >>> brier(np.array([1]), np.array([[0.5, 0.5]]))
    array([0.5])
    """
    true = probabilities[np.arange(len(labels)), labels]
    return np.asarray(np.einsum("nk,nk->n", probabilities, probabilities) - 2 * true + 1, np.float64)
