"""Part of the labelled images of a trial: as many of each class, chosen by its seed."""

import numpy as np
from numpy.typing import NDArray

from gapstone.training.loop import Rows


def labelled_subset(
    train: Rows,
    validation: Rows,
    labels: NDArray[np.integer],
    per_class: int,
    seed: int,
    groups: NDArray[np.integer] | None = None,
) -> tuple[Rows, Rows]:
    """Training and validation rows of `per_class` labelled images of each class, or of all that a class has.

    >>> labelled_subset(np.arange(8), np.arange(8, 12), labels=np.zeros(12, int), per_class=6, seed=0)
    (array([1, 4, 5, 7]), array([ 9, 10]))

    Validation images count, as their labels are used: they are the same share as of all images, at least one of each
    class that has any. A smaller subset of the same seed lies in a larger one. With `groups`, a number for each row,
    the images of one follow those of another: fewer images are of fewer groups.
    """
    random = np.random.default_rng((seed, 0x5B))
    kept: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    orders = [_by_groups(random.permutation(rows), groups) for rows in (train, validation)]
    for k in np.unique(labels[np.concatenate([train, validation])]):
        training, held = (order[labels[order] == k] for order in orders)
        count = min(per_class, len(training) + len(held))
        of_validation = round(count * len(held) / (len(training) + len(held)))
        if len(held) and count > 1:
            of_validation = max(1, of_validation)
        of_validation = max(of_validation, count - len(training))
        kept[0].append(training[: count - of_validation])
        kept[1].append(held[:of_validation])
    first, second = (np.sort(np.concatenate(parts)) for parts in kept)
    return first, second


def _by_groups(rows: Rows, groups: NDArray[np.integer] | None) -> Rows:
    """The rows with those of each group side by side, the groups in the order of their first row."""
    if groups is None:
        return rows
    _, first, group = np.unique(groups[rows], return_index=True, return_inverse=True)
    ordered: Rows = rows[np.argsort(first[group], kind="stable")]
    return ordered
