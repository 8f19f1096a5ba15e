"""Parts of multi-label images in which each class has its share: iterative stratification, with groups kept whole.

As Sechidis, Tsoumakas and Vlahavas ("On the Stratification of Multi-Label Data", 2011) found, the class with the fewest
images left comes first: rare classes are shared out while there is still a choice. Each group goes to the part that
lacks most of what it has, of all its classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

Indices = NDArray[np.int64]


def strata(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is shared out: the images of each class, those without any, and those without a class that most have.

    >>> strata(np.array([[True, False], [True, True], [True, False], [False, False]])).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 1, 1]])
    """
    frequent = 2 * labels.sum(axis=0) > len(labels)
    return np.column_stack([labels, ~labels.any(axis=1), ~labels[:, frequent]])


@dataclass(frozen=True)
class Members:
    """Groups of images, and how many images of each class they have."""

    images: Sequence[Indices]
    """Of each group."""
    of_group: list[dict[int, int]]
    """Its classes, with the number of its images that have them."""
    of_class: list[list[int]]
    """The groups of each class."""
    total: NDArray[np.int64]
    """Images of each class."""

    @classmethod
    def of(cls, images: Sequence[Indices], labels: NDArray[np.bool_]) -> "Members":
        """The groups of `images`; `labels` are those of all images, or their `strata`."""
        number = np.repeat(np.arange(len(images)), [len(group) for group in images])
        row, column = np.nonzero(labels[np.concatenate(images)])
        counts = coo_array((np.ones(len(row), np.int64), (number[row], column)), (len(images), labels.shape[1])).tocsr()
        starts = counts.indptr.tolist()
        pairs = list(zip(counts.indices.tolist(), counts.data.tolist(), strict=True))
        of_group = [dict(pairs[start:end]) for start, end in pairwise(starts)]
        of_class: list[list[int]] = [[] for _ in range(labels.shape[1])]
        for g, classes in enumerate(of_group):
            for k in classes:
                of_class[k].append(g)
        return cls(images, of_group, of_class, np.asarray(counts.sum(axis=0), np.int64).ravel())


def distribute(
    members: Members,
    desired: NDArray[np.floating],
    sizes: Sequence[float],
    order: Sequence[int],
    given: Indices | None = None,
    most: float | None = None,
) -> Indices:
    """The part of each group: in each step, where it takes most from Σ (missing images)² / desired images.

    The sum is over the group's classes and all images. So a group of many classes goes where it serves them together;
    by its rarest class alone, the others drift.

    Args:
        members: the groups.
        desired: (parts, classes) images wanted.
        sizes: images wanted in each part.
        order: the groups in the order in which those of a class are shared out.
        given: the part of each group that has one already, −1 for the others.
        most: images that the last part may have, at most.
    """
    part = [-1] * len(members.images) if given is None else given.tolist()
    rank = {g: at for at, g in enumerate(order)}
    # plain lists: an array of two numbers is ten times as slow
    missing = [[*classes, size] for classes, size in zip(desired.tolist(), sizes, strict=True)]
    weight = [[1 / max(number, 1e-9) for number in row] for row in missing]
    waiting = np.array([len(groups) for groups in members.of_class])
    counts = [
        [*classes.items(), (-1, len(images))] for classes, images in zip(members.of_group, members.images, strict=True)
    ]
    last = len(sizes) - 1
    inside = 0

    def put(g: int, s: int) -> None:
        part[g] = s
        for k, count in counts[g]:
            missing[s][k] -= count
        waiting[list(members.of_group[g])] -= 1

    for g, s in enumerate(list(part)):
        if s >= 0:
            put(g, s)
            inside += len(members.images[g]) * (s == last)
    while waiting.any():
        k = int(np.argmin(np.where(waiting > 0, waiting, len(part) + 1)))
        for g in sorted((g for g in members.of_class[k] if part[g] < 0), key=rank.__getitem__):
            full = most is not None and inside + len(members.images[g]) > most
            gains = [
                sum((2 * lack[k] - count) * count * weigh[k] for k, count in counts[g])
                for lack, weigh in zip(missing[: last + (not full)], weight, strict=False)
            ]
            best = gains.index(max(gains))
            inside += len(members.images[g]) * (best == last)
            put(g, best)
    return np.asarray(part, np.int64)


def repair(members: Members, part: Indices, parts: int, must: Callable[[int], bool] = lambda s: False) -> Indices:
    """The same with a group of each class in every part, where it has as many groups as there are parts.

    A group moves only if its part keeps another of each of its classes; to a part that `must` have all classes, also if
    it does not.
    """
    fixed = part.copy()
    count = np.zeros((parts, len(members.of_class)), np.int64)
    for g, classes in enumerate(members.of_group):
        count[fixed[g], list(classes)] += 1
    for k in sorted(range(len(members.of_class)), key=lambda k: len(members.of_class[k])):
        if len(members.of_class[k]) < parts:
            continue
        for s in np.flatnonzero(count[:, k] == 0).tolist():
            donors = [g for g in members.of_class[k] if count[fixed[g], k] > 1]
            spare = [g for g in donors if min(count[fixed[g], j] for j in members.of_group[g]) > 1]
            if chosen := spare or (donors if must(s) else []):
                g = min(chosen, key=lambda g: len(members.images[g]))
                for j in members.of_group[g]:
                    count[fixed[g], j] -= 1
                    count[s, j] += 1
                fixed[g] = s
    return fixed


def carve(images: Sequence[Indices], labels: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.bool_]:
    """Whether each group is in a part with about `share` of each class; every class keeps an image in the rest."""
    members = Members.of(images, strata(labels))
    several = np.array([len(groups) > 1 for groups in members.of_class])
    wanted = np.where(several, np.maximum(members.total * share, 1), 0)
    size = max(1.0, share * sum(map(len, images)))
    order = _order(members, np.random.default_rng(seed))
    part = distribute(members, np.stack([members.total - wanted, wanted]), [sum(map(len, images)) - size, size], order)
    return np.asarray(repair(members, part, 2, must=lambda s: s == 0) == 1)


def folds(images: Sequence[Indices], labels: NDArray[np.bool_], k: int, seed: int) -> Indices:
    """The fold 0…k−1 of each group."""
    members = Members.of(images, strata(labels))
    sizes = [sum(map(len, images)) / k] * k
    order = _order(members, np.random.default_rng(seed))
    return repair(members, distribute(members, np.tile(members.total / k, (k, 1)), sizes, order), k)


def limited(
    images: Sequence[Indices], labels: NDArray[np.bool_], limit: int, least: int, seed: int
) -> NDArray[np.bool_]:
    """Whether each group is among at most `limit` images with the same share of each class.

    `least` groups of each class are taken in any case, even where they are more images (the caller says so).
    """
    members = Members.of(images, strata(labels))
    order = _order(members, np.random.default_rng(seed))
    part = np.full(len(images), -1)
    rank = {g: at for at, g in enumerate(order)}
    for k in sorted(range(labels.shape[1]), key=lambda k: len(members.of_class[k])):
        of_class = sorted(members.of_class[k], key=lambda g: (len(images[g]), rank[g]))
        missing = least - sum(part[g] == 1 for g in of_class)
        part[[g for g in of_class if part[g] < 0][: max(0, missing)]] = 1
    size = sum(map(len, images))
    wanted = members.total * (limit / size)
    desired = np.stack([members.total - wanted, wanted])
    return np.asarray(distribute(members, desired, [size - limit, limit], order, part, most=limit) == 1)


def _order(members: Members, random: np.random.Generator) -> list[int]:
    """Large groups first, while there is room to balance them; at random among groups of a size."""
    shuffled: list[int] = random.permutation(len(members.images)).tolist()
    return sorted(shuffled, key=lambda g: -len(members.images[g]))
