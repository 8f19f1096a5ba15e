"""Labels of images in scikit-learn's two forms: one class each (n,), or any number of them, an indicator array (n, K).

That an array has two dimensions says that it is multi-label.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = NDArray[np.integer] | NDArray[np.bool_]
"""(n,) integers, or (n, K) bool."""


def is_multi_label(labels: Labels) -> bool:
    """Whether each image may have several classes, or none.

    >>> is_multi_label(np.array([0, 2])), is_multi_label(np.array([[True, False], [True, True]]))
    (False, True)
    """
    return labels.ndim == 2


def indicators(labels: Labels | Sequence[Iterable[int]], classes: int) -> NDArray[np.bool_]:
    """Whether each image is of each class (n, K), of labels in either form or of the classes that each image has.

    >>> indicators([(0, 2), ()], 3)
    array([[ True, False,  True],
           [False, False, False]])
    """
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        return np.asarray(labels, bool)
    found = np.zeros((len(labels), classes), bool)
    if isinstance(labels, np.ndarray):
        found[np.arange(len(labels)), labels] = True
    else:
        for row, several in zip(found, labels, strict=True):
            row[list(several)] = True
    return found


def class_sets(labels: Labels) -> list[tuple[int, ...]]:
    """The classes of each image, in their order.

    >>> class_sets(np.array([[True, False, True], [False, False, False]])), class_sets(np.array([1]))
    ([(0, 2), ()], [(1,)])
    """
    if not is_multi_label(labels):
        return [(label,) for label in labels.tolist()]
    return [tuple(np.flatnonzero(row).tolist()) for row in labels]


def of_class(labels: Labels, k: int) -> NDArray[np.bool_]:
    """Whether each image is of class k."""
    return np.asarray(labels[:, k] if is_multi_label(labels) else labels == k, bool)


def has_any(labels: Labels, classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each image has any of these classes.

    >>> has_any(np.array([0, 2]), np.array([True, False, False]))
    array([ True, False])
    >>> has_any(np.array([[True, True], [False, True], [False, False]]), np.array([True, True]))
    array([ True,  True, False])
    """
    if is_multi_label(labels):
        return np.asarray(labels[:, classes].any(axis=1), np.bool_)
    return np.asarray(classes[labels], np.bool_)


def class_counts(labels: Labels, classes: int) -> NDArray[np.int64]:
    """How many images each class has; with several labels an image counts for each of its classes.

    >>> class_counts(np.array([[True, False], [True, True]]), 2), class_counts(np.array([1, 1]), 2)
    (array([2, 1]), array([0, 2]))
    """
    if is_multi_label(labels):
        return np.asarray(labels.sum(0), np.int64)
    return np.bincount(labels, minlength=classes).astype(np.int64)


def decisions(probabilities: ArrayLike) -> NDArray[np.bool_]:
    """The answers of a multi-label model: every class with a probability of 0.5 or more.

    >>> decisions([[0.5, 0.9], [0.4, 0.1]])
    array([[ True,  True],
           [False, False]])
    """
    # in float32: the float64 of a stored log 0.5 is 0.4999999990
    return np.asarray(np.asarray(probabilities).astype(np.float32) >= np.float32(0.5))


def decisions_of_logits(logits: ArrayLike) -> NDArray[np.bool_]:
    """The same from logits: every class with one of 0 or more."""
    return np.asarray(np.asarray(logits) >= 0)


def answers(probabilities: NDArray[np.floating], multi_label: bool) -> Labels:
    """What a model answers, in the form of the labels: the most probable class, or all with 0.5 or more."""
    return decisions(probabilities) if multi_label else np.asarray(probabilities.argmax(1), np.int64)


def answers_of_logits(logits: NDArray[np.floating], multi_label: bool) -> Labels:
    """The same from logits."""
    return decisions_of_logits(logits) if multi_label else np.asarray(logits.argmax(1), np.int64)


def all_right(labels: Labels, answered: Labels) -> NDArray[np.bool_]:
    """Whether each image is answered right, with several labels in all of its classes: exactly its set.

    >>> all_right(np.array([[True, False], [True, True]]), np.array([[True, False], [True, False]]))
    array([ True, False])
    """
    equal: NDArray[np.bool_] = np.asarray(labels == answered)
    return np.asarray(equal.all(1)) if is_multi_label(labels) else equal


def log_complement(log_probabilities: ArrayLike) -> NDArray[np.float64]:
    """log(1 − p) of log p: 1 − p = −expm1(log p), which is precise where p is next to 1.

    >>> log_complement(np.log([0.25, 1 - 1e-12]))
    array([ -0.287..., -27.6...])
    """
    tiny = float(np.finfo(np.float64).tiny)
    return np.asarray(np.log(np.maximum(-np.expm1(np.asarray(log_probabilities, np.float64)), tiny)), np.float64)
