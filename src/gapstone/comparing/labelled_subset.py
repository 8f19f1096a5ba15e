"""Part of the labelled images of a trial, chosen by its seed: as many of each class, or with several labels per image
so many images in which each class has its share.
"""

import numpy as np
from numpy.typing import NDArray

from gapstone.data.stratify import carve
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


def labelled_share(
    train: Rows,
    validation: Rows,
    labels: NDArray[np.bool_],
    images: int,
    seed: int,
    groups: NDArray[np.integer] | None = None,
) -> tuple[Rows, Rows]:
    """Training and validation rows of so many labelled images (n, K), or of all there are, with each class's share.

    As with one label validation images count, a smaller subset lies in a larger one of the same seed, and those of a
    group follow each other.
    """
    every = len(train) + len(validation)
    count = min(images, every)
    held = round(count * len(validation) / every)
    if len(validation) and count > 1:
        held = max(1, held)
    held = max(held, count - len(train))
    first, second = (
        np.sort(_of_halves(rows, size, labels, groups, (seed, 0x5B)))
        for rows, size in ((train, count - held), (validation, held))
    )
    return first, second


def _of_halves(
    rows: Rows, count: int, labels: NDArray[np.bool_], groups: NDArray[np.integer] | None, seed: tuple[int, ...]
) -> Rows:
    """So many of the rows: of a half in which each class has its share, and beyond it of the other one.

    Halves are halved again: so the rows have one order, whatever is asked for, and this is its beginning.
    """
    if count in (0, len(rows)):
        return rows[:count]
    random = np.random.default_rng(seed)
    shuffled = _by_groups(random.permutation(rows), groups)
    ends = np.arange(1, len(rows)) if groups is None else np.flatnonzero(np.diff(groups[shuffled])) + 1
    together = np.split(shuffled, ends)
    first = ~carve(together, labels, 0.5, int(random.integers(2**32)))
    if first.all() or not first.any():  # two images, or one group
        return shuffled[:count]
    one, other = (np.concatenate([together[g] for g in np.flatnonzero(half)]) for half in (first, ~first))
    rest = max(0, count - len(one))
    return np.concatenate(
        [_of_halves(one, count - rest, labels, groups, (*seed, 0)), _of_halves(other, rest, labels, groups, (*seed, 1))]
    )


def _by_groups(rows: Rows, groups: NDArray[np.integer] | None) -> Rows:
    """The rows with those of each group side by side, the groups in the order of their first row."""
    if groups is None:
        return rows
    _, first, group = np.unique(groups[rows], return_index=True, return_inverse=True)
    ordered: Rows = rows[np.argsort(first[group], kind="stable")]
    return ordered
