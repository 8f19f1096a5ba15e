"""Choose parts of the images by class: by their content, by a seed, as folds; groups stay together.

`labels` are in either form; where images have several, `stratify` shares them out.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.data import stratify
from gapstone.statistics.labels import class_counts, is_multi_label

TEST_SEED = 20131216  # any fixed number; this one is the day Network in Network was put on arXiv
Indices = NDArray[np.int64]


def carve(
    indices: Indices, labels: NDArray[Any], groups: NDArray[np.integer], share: float, seed: int
) -> tuple[Indices, Indices]:
    """(rest, part): move about `share` of each class to part, in complete groups."""
    members = _members(indices, groups)
    if is_multi_label(labels):
        return _parted(members, stratify.carve(members, labels, share, seed))
    random = np.random.default_rng(seed)
    order = random.permutation(len(members))
    total = class_counts(labels[indices], class_number(labels))
    target = np.round(total * share).astype(np.int64)
    target[(total >= 2) & (target == 0)] = 1
    target = np.minimum(target, np.maximum(total - 1, 0))  # every class keeps an image in the rest
    taken = np.zeros_like(total)
    chosen = np.zeros(len(members), np.bool_)
    # in random order: with the large groups first, they would fill the smaller part
    for g in order.tolist():
        counts = np.bincount(labels[members[g]], minlength=len(total))
        if np.all(taken + counts <= target):
            taken += counts
            chosen[g] = True
    for k in np.flatnonzero((taken == 0) & (total >= 2)).tolist():
        # all groups of this class are larger than its share: move the smallest, if another one stays
        of_class = [g for g in order.tolist() if not chosen[g] and np.any(labels[members[g]] == k)]
        if len(of_class) >= 2:
            chosen[min(of_class, key=lambda g: len(members[g]))] = True
    return _parted(members, chosen)


def by_content(
    indices: Indices,
    labels: NDArray[Any],
    groups: NDArray[np.integer],
    keys: Sequence[str],
    share: float,
    least: int = 1,
) -> tuple[Indices, Indices]:
    """(rest, part): each group is in part if a number that follows from its keys, uniform in 0…1, is below `share`.

    So a group's place does not depend on the other images, with these exceptions: a near duplicate that is added may
    change its group's number; a group that alone is more than a class's share stays in the rest; a class of which fewer
    than `least` groups would be in part gives those with the smallest numbers, up to half of its groups, one at least;
    and a class of which none would be in the rest keeps that with the largest.

    Args:
        indices: of the items to choose from.
        labels: of all items, as are `groups`.
        groups: a number for each item.
        keys: of all items: the content's hash, or the name of its group.
        share: of each class.
        least: groups of each class in part; more than 1 where groups are named, of which half a class may be one.
    """
    members = _members(indices, groups)
    if is_multi_label(labels):
        labels = stratify.strata(labels)
    number = np.array([_uniform(min(keys[i] for i in group.tolist())) for group in members])
    total = class_counts(labels[indices], class_number(labels))
    most = np.maximum(np.round(total * share), 1) if least == 1 else np.maximum(total // 2, 1)
    counts = [class_counts(labels[group], len(total)) for group in members]
    small = np.array([bool(np.all(count <= most)) for count in counts])
    chosen, has = small & (number < share), np.stack(counts) > 0
    # with several labels, what serves one class may leave another with nothing in the rest: a second round sees it
    rounds = 2 if is_multi_label(labels) else 1
    for k in np.flatnonzero(total >= 2).tolist() * rounds:
        of_class = np.flatnonzero(has[:, k]).tolist()
        if len(of_class) < 2:
            continue
        few = min(least, max(1, len(of_class) // 2))
        if chosen[of_class].sum() < few:
            by_number = sorted(of_class, key=lambda g: (not small[g], 0 if small[g] else len(members[g]), number[g]))
            for g in by_number[:few]:
                if chosen[of_class].sum() < few and (small[g] or not chosen[of_class].any()):
                    chosen[g] = True
        if chosen[of_class].all():
            tested = np.sum([counts[g] > 0 for g in np.flatnonzero(chosen)], axis=0)
            # with several labels, rather one that is not the last of another class in part
            spare = [g for g in of_class if is_multi_label(labels) and np.all(tested[counts[g] > 0] > 1)]
            chosen[max(spare or of_class, key=lambda g: number[g])] = False
    return _parted(members, chosen)


def united(first: NDArray[np.integer], second: NDArray[np.integer]) -> Indices:
    """A number for each item, shared by all that are linked by either of two numberings.

    >>> united(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    array([0, 0, 0, 1])
    """
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    count = int(a.max(initial=-1)) + 1
    nodes = count + int(b.max(initial=-1)) + 1
    from scipy.sparse import coo_array  # takes 0.2 s to import, and most data is split without
    from scipy.sparse.csgraph import connected_components

    # int32: scipy before 1.15 keeps the type of these numbers, and connects nothing with others, without an error
    ends = a.astype(np.int32), (b + count).astype(np.int32)
    links = coo_array((np.ones(len(a), np.int8), ends), shape=(nodes, nodes))
    return np.asarray(connected_components(links, directed=False)[1][a], np.int64)


def _uniform(key: str) -> float:
    """A number in 0…1 that follows from an image's hash; not the hash itself, by which others may have split, too."""
    return int.from_bytes(hashlib.sha256(f"{TEST_SEED} {key}".encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def fold_numbers(indices: Indices, labels: NDArray[Any], groups: NDArray[np.integer], k: int) -> Indices:
    """The fold 0…k−1 of each index: each group goes to the fold with the fewest images of its classes."""
    members = _members(indices, groups)
    if is_multi_label(labels):
        return _spread(indices, members, stratify.folds(members, labels, k, TEST_SEED))
    random = np.random.default_rng(TEST_SEED)
    order = random.permutation(len(members)).tolist()
    order.sort(key=lambda g: -len(members[g]))  # large groups first, while they can be balanced (stable sort)
    counts_in = np.zeros((k, int(labels.max()) + 1), np.int64)  # images per fold and class
    fold = np.empty(len(members), np.int64)
    for g in order:
        counts = np.bincount(labels[members[g]], minlength=counts_in.shape[1])
        # by the images of the group's classes, then by all images
        rank = (counts_in[:, counts > 0]).sum(axis=1) * len(indices) + counts_in.sum(axis=1)
        fold[g] = int(np.argmin(rank))
        counts_in[fold[g]] += counts
    return _spread(indices, members, fold)


def limited(indices: Indices, labels: NDArray[Any], limit: int, least: int) -> Indices:
    """At most `limit` of the indices, in proportion to the classes, at least `least` of each; the same for any seed."""
    if len(indices) <= limit:
        return indices
    if is_multi_label(labels):
        return limited_groups(indices, labels, np.arange(len(labels)), limit, least)
    random = np.random.default_rng(TEST_SEED)
    shuffled = random.permutation(indices)
    # the rank of each image in its class, as a share of the class: the lowest ranks are proportional to the classes
    rank = np.empty(len(shuffled))
    for k in np.unique(labels[shuffled]):
        of_class = np.flatnonzero(labels[shuffled] == k)
        rank[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
        rank[of_class[:least]] = np.arange(min(least, len(of_class))) - least  # negative: before all shares
    return np.sort(shuffled[np.argsort(rank, kind="stable")[:limit]])


def limited_groups(
    indices: Indices, labels: NDArray[Any], groups: NDArray[np.integer], limit: int, least: int
) -> Indices:
    """Whole groups of at most `limit` of the indices, about in proportion to the classes; the same for any seed.

    Of each class the `least` smallest groups come first, even where they are more than `limit` (the caller says so).
    """
    if len(indices) <= limit:
        return indices
    members = _members(indices, groups)
    if is_multi_label(labels):
        return _parted(members, stratify.limited(members, labels, limit, least, TEST_SEED))[1]
    total = class_counts(labels[indices], class_number(labels))
    counts = [np.bincount(labels[group], minlength=len(total)) for group in members]
    order = np.random.default_rng(TEST_SEED).permutation(len(members)).tolist()
    taken, chosen = np.zeros_like(total), np.zeros(len(members), np.bool_)
    for k in np.flatnonzero(total).tolist():
        of_class = sorted((g for g in order if counts[g][k]), key=lambda g: len(members[g]))
        for g in of_class[: max(0, least - int(chosen[of_class].sum()))]:
            chosen[g] = True
            taken += counts[g]
    # by class first, so that none takes the place of another, then whatever still fits
    for most in (np.round(total * (limit / len(indices))), total):
        for g in order:
            fits = np.all(taken + counts[g] <= np.where(counts[g] > 0, most, total))
            if not chosen[g] and fits and taken.sum() + len(members[g]) <= limit:
                chosen[g] = True
                taken += counts[g]
    return _joined([group for group, c in zip(members, chosen.tolist(), strict=True) if c])


def _members(indices: Indices, groups: NDArray[np.integer]) -> list[Indices]:
    """The indices of each group, in the order of the groups' first members."""
    order = np.argsort(groups[indices], kind="stable")
    ordered = indices[order]
    cuts = np.flatnonzero(np.diff(groups[ordered])) + 1
    parts = np.split(ordered, cuts)
    return sorted(parts, key=lambda p: int(p[0])) if len(indices) else []


def _parted(members: Sequence[Indices], chosen: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """(the images of the groups that are not chosen, of those that are)."""
    rest, part = ([m for m, c in zip(members, chosen.tolist(), strict=True) if c == wanted] for wanted in (False, True))
    return _joined(rest), _joined(part)


def _spread(indices: Indices, members: Sequence[Indices], number: Indices) -> Indices:
    """The number of each index's group."""
    number_of = {int(i): int(number[g]) for g, m in enumerate(members) for i in m}
    return np.asarray([number_of[i] for i in indices.tolist()], np.int64)


def _joined(parts: Sequence[Indices]) -> Indices:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def class_number(labels: NDArray[Any]) -> int:
    """The number of classes that labels have, as far as they show it."""
    return labels.shape[1] if is_multi_label(labels) else int(labels.max()) + 1
