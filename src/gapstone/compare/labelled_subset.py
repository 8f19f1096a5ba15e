"""Part of the labelled images of a trial: as many of each class, chosen by its seed."""

import numpy as np
from numpy.typing import NDArray

from gapstone.training.loop import Rows


def labelled_subset(
    train: Rows, validation: Rows, labels: NDArray[np.integer], per_class: int, seed: int
) -> tuple[Rows, Rows]:
    """Training and validation rows of `per_class` labelled images of each class, or of all that a class has.

    >>> labelled_subset(np.arange(8), np.arange(8, 12), labels=np.zeros(12, int), per_class=6, seed=0)
    (array([1, 4, 5, 7]), array([ 9, 10]))

    Validation images count, as their labels are used: they are the same share as of all images, at least one of each
    class that has any. A smaller subset of the same seed lies in a larger one.
    """
    random = np.random.default_rng((seed, 0x5B))
    kept: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    orders = [random.permutation(rows) for rows in (train, validation)]
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
