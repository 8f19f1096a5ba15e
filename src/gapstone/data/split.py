"""split(source, scan) = which images train, which validate, which test; one locked test set, by class and by group.

The test set never depends on a trial's seed: it is chosen once (by TEST_SEED) or given. Duplicates stay together: a
picture that is in train and in test tests the memory. Validation is carved out of train anew for every seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.scan import Scan
from gapstone.data.sources import Source

TEST_SEED = 20131216  # any fixed number; this one is the day Network in Network was put on arXiv
Indices = NDArray[np.int64]
Duplicates = Literal["group", "drop", "keep"]
"""Copies of a picture: on one side of the split; one of them used and the others left out; or counted as any other."""


class DataSplitError(ValueError):
    """The images cannot be split as asked; the message says which class has too few."""


@dataclass(frozen=True, eq=False)
class DataSplit:
    """Indices into source.items, each sorted; no image and no group of duplicates is in two of them."""

    train: Indices
    validation: Indices
    test: Indices
    described: str  # one sentence: how the test images were chosen, what was dropped
    dropped: Indices = field(default_factory=lambda: np.empty(0, np.int64))  # copies of test images taken out of train


def split(
    source: Source,
    scan: Scan,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    validation_share: float = 0.1,
    limit: int | None = None,
    duplicates: Duplicates = "group",
) -> DataSplit:
    """Train, validation and test images of one trial.

    ```python
    s = split(source, scan(source), seed=3)
    len(s.train), len(s.validation), len(s.test)      # (1293, 144, 360)
    s.described                                       # '360 of 1,797 images (20 %) chosen once, from each class, …'
    ```

    A test split that is given is used as it is; with train and val only, val is the locked test set; with train alone,
    a test set is carved out of it. `seed` moves only the validation images. `limit`: at most so many images to train on
    (validation among them), and as many to test on. Raises SplitError where a class has too few images.
    """
    _check_shares(test_share=test_share, validation_share=validation_share)
    labels = source.labels
    usable, groups, told = _usable(source, scan, duplicates)
    train, given_validation, test, said = _given(source, usable)
    if test is None:
        all_of_them = len(train)
        train, test = _carve(train, labels, groups, test_share, TEST_SEED)
        _check_classes(source, labels, groups, train, test, at_least=1, tested=True)
        said += (
            f"{len(test):,} of {_share(len(test), all_of_them)} chosen once, from each class, as the locked test set"
        )
        said += _missed(len(test), all_of_them, test_share, groups)
    held = test if given_validation is None else np.concatenate([test, given_validation])
    exact = _exact(scan) if duplicates == "group" else groups
    train, dropped, kept = _without_copies(train, held, labels, groups, exact, 2 if given_validation is None else 1)
    where = "train"
    if given_validation is not None:
        given_validation, more, still = _without_copies(given_validation, test, labels, groups, exact, 1)
        dropped, kept, where = np.union1d(dropped, more), kept + still, "train and val" if len(more) else where
    if len(dropped):
        said += f"; {count_noun(len(dropped), 'image')} of which the held-out images have a copy dropped from {where}"
    if kept:
        said += (
            f"; {count_noun(kept, 'image')} kept though a held-out image is nearly the same: without them a class "
            f"would lose "
            f"more than half of its images"
        )
    if limit is not None:
        least = 2 if given_validation is None else 1  # one to train on, one to validate
        if limit < least * len(source.classes):
            raise DataSplitError(
                f"--limit {limit}: each of the {len(source.classes)} classes needs at least "
                f"{count_noun(least, 'image')}"
            )
        train, test = _limited(train, labels, limit, least), _limited(test, labels, limit, 1)
        said += f"; limited to {_images(len(train))} to train on and {len(test):,} to test on"
        if given_validation is not None:
            given_validation = _limited(given_validation, labels, limit, 1)
    if given_validation is None:
        _check_classes(source, labels, groups, train, test, at_least=2, dropped=dropped)
        rest = len(train)
        train, validation = carve_validation(train, labels, groups, seed, validation_share)
        said += f"; {len(validation):,} of the other {_share(len(validation), rest)} for validation"
        said += ", chosen anew for each seed"
        said += _missed(len(validation), rest, validation_share, groups)
    else:
        validation = given_validation
        _check_classes(source, labels, groups, train, test, at_least=1, dropped=dropped)
    if len(validation) == 0:
        raise DataSplitError(f"no usable validation images in {display(source.given)!r}{_because(train, groups)}")
    return DataSplit(np.sort(train), np.sort(validation), np.sort(test), said + told, np.sort(dropped))


def carve_validation(
    train: Indices, labels: NDArray[np.integer], groups: NDArray[np.integer], seed: int, share: float
) -> tuple[Indices, Indices]:
    """(train, validation): a share of each class carved out of train, by seed, duplicates kept together.

    `labels` and `groups` are those of all items; `train` holds indices into them. Every class keeps an image to train
    on; a class of a single group gives none to validation.
    """
    return _carve(np.asarray(train, np.int64), labels, groups, share, seed)


def folds(
    source: Source,
    scan: Scan,
    k: int,
    seed: int = 0,
    limit: int | None = None,
    *,
    validation_share: float = 0.1,
    duplicates: Duplicates = "group",
) -> list[DataSplit]:
    """k splits; each image is tested in exactly one of them. Given splits are not used (and it says so).

    The parts are the same for every seed, which moves only the validation images. `limit`: at most so many images to
    train on in each fold. Raises SplitError where a class has fewer than k groups of images.
    """
    if k < 2:
        raise DataSplitError(f"folds={k}: at least 2 are needed")
    labels = source.labels
    usable, groups, told = _usable(source, scan, duplicates)
    _check_shares(validation_share=validation_share)
    if limit is not None:
        usable = _limited(usable, labels, limit * k // (k - 1), k)
    part = _parts(usable, labels, groups, k)
    result = []
    for j in range(k):
        rest, test = usable[part != j], usable[part == j]
        _check_classes(source, labels, groups, rest, test, at_least=2, what=f"{k} folds", tested=not source.splits)
        train, validation = carve_validation(rest, labels, groups, seed, validation_share)
        if len(validation) == 0:
            raise DataSplitError(f"no validation images in fold {j + 1} of {k}{_because(rest, groups)}")
        said = f"fold {j + 1} of {k}, by class: {len(test):,} of {_share(len(test), len(usable))}"
        said += _missed(len(test), len(usable), 1 / k, groups)
        if source.splits:
            said += f"; the given split into {', '.join(source.splits)} is not used"
        result.append(DataSplit(np.sort(train), np.sort(validation), np.sort(test), said + told))
    return result


def _usable(source: Source, scan: Scan, duplicates: Duplicates) -> tuple[Indices, Indices, str]:
    """(what may be used, the group of every item, what is said of both)."""
    out = scan.excluded
    said = f"; {count_noun(len(out), 'unusable file')} left out" if out else ""
    usable = np.setdiff1d(np.arange(len(source)), np.fromiter(out, np.int64, len(out)))
    own = np.arange(len(source))
    together = len(np.unique(scan.group[usable])) < len(usable)
    if duplicates == "group" or not together:
        return usable, scan.group, said + ("; duplicates stay together" if together else "")
    if duplicates == "keep":
        return usable, own, f"{said}; duplicates count as any other image, as asked: some may be trained on and tested"
    # the first of each group; of given splits, the test image stays
    order = {"test": 0, "val": 1, "train": 2, None: 0}
    ranked = sorted(usable.tolist(), key=lambda i: (order[source.items[i].split], i))
    _, first = np.unique(scan.group[ranked], return_index=True)
    kept = np.sort(np.asarray(ranked, np.int64)[first])
    return kept, own, f"{said}; {_images(len(usable) - len(kept))} left out as duplicates of another one, as asked"


def _given(source: Source, usable: Indices) -> tuple[Indices, Indices | None, Indices | None, str]:
    """(train, validation, test, what is said of them), None for what has to be carved out of train."""
    splits = np.asarray([source.items[i].split or "" for i in usable.tolist()])
    of = {name: usable[splits == name] for name in source.splits}
    if not of:
        return usable, None, None, ""
    for name, indices in of.items():
        if len(indices) == 0:
            raise DataSplitError(f"no usable {name} images in {display(source.given)!r}: every one of them is left out")
    count = {name: _images(len(indices)) for name, indices in of.items()}
    match tuple(of):
        case ("train", "val", "test"):
            said = (
                f"the given test images are the locked test set ({count['test']}), val is validation ({count['val']})"
            )
            return of["train"], of["val"], of["test"], said
        case ("train", "test"):
            return of["train"], None, of["test"], f"the given test images are the locked test set ({count['test']})"
        case ("train", "val"):
            said = f"val is the locked test set ({count['val']}), for no test images are given"
            return of["train"], None, of["val"], said
        case ("train",):
            return of["train"], None, None, "all images are given as train: "
    raise DataSplitError(f"no train images in {display(source.given)!r}")


def _exact(scan: Scan) -> Indices:
    """Per item a number that exact duplicates share."""
    number = np.arange(scan.files)
    for group in scan.exact_duplicates:
        number[group] = group[0]
    return number


def _without_copies(
    indices: Indices, held: Indices, labels: NDArray[np.integer], groups: Indices, exact: Indices, least: int
) -> tuple[Indices, Indices, int]:
    """(what stays, what is dropped, how many near duplicates stay after all).

    Exact copies go. Where more than half of a class are near duplicates, or fewer than `least` of it would be left,
    likeness is how its pictures are (X-rays, or one product on one ground): those stay.
    """
    clash = np.isin(groups[indices], groups[held])
    same = np.isin(exact[indices], exact[held])
    total = _count(labels[indices[~same]], int(labels.max()) + 1)
    left = total - _count(labels[indices[clash & ~same]], len(total))
    too_many = (left < least) | (2 * left < total)
    stays = clash & ~same & too_many[labels[indices]]
    return indices[~clash | stays], indices[clash & ~stays], int(stays.sum())


def _images(count: int) -> str:
    return count_noun(count, "image")


def _share(count: int, total: int) -> str:
    share = 100 * count / max(total, 1)
    return f"{_images(total)} ({f'{share:.0f} %' if share >= 1 or not count else 'less than 1 %'})"


def _missed(count: int, total: int, aim: float, groups: NDArray[np.integer]) -> str:
    """What is said where a share came out otherwise than it was meant."""
    if abs(count / max(total, 1) - aim) <= max(0.05, 1 / max(total, 1)):
        return ""
    largest = int(np.bincount(groups).max())
    why = f", but up to {largest:,} duplicates stay together" if largest > 1 else ""
    return f" ({100 * aim:g} % was meant{why})"


def _because(indices: Indices, groups: NDArray[np.integer]) -> str:
    """What to do where duplicates are why there are too few."""
    copies = len(indices) - len(np.unique(groups[indices]))
    if not copies:
        return ""
    return (
        f". {_images(copies)} are duplicates of others and stay together with them (`gapstone check` shows them); "
        "--duplicates keep counts them as any other"
    )


def _carve(
    indices: Indices, labels: NDArray[np.integer], groups: NDArray[np.integer], share: float, seed: int
) -> tuple[Indices, Indices]:
    """(rest, part): about `share` of each class in part, whole groups only."""
    members = _members(indices, groups)
    random = np.random.default_rng(seed)
    order = random.permutation(len(members))
    total = _count(labels[indices], int(labels.max()) + 1)
    wanted = np.round(total * share).astype(np.int64)
    wanted[(total >= 2) & (wanted == 0)] = 1
    wanted = np.minimum(wanted, np.maximum(total - 1, 0))  # every class keeps something on the other side
    taken = np.zeros_like(total)
    chosen = np.zeros(len(members), np.bool_)
    # in random order, and not the large groups first: those would crowd into the smaller part
    for g in order.tolist():
        counts = np.bincount(labels[members[g]], minlength=len(total))
        if np.all(taken + counts <= wanted):
            taken += counts
            chosen[g] = True
    for k in np.flatnonzero((taken == 0) & (total >= 2)).tolist():
        # nothing fitted: its groups are all larger than its share. The smallest goes over, if another one stays.
        own = [g for g in order.tolist() if not chosen[g] and np.any(labels[members[g]] == k)]
        if len(own) >= 2:
            chosen[min(own, key=lambda g: len(members[g]))] = True
    part = [members[g] for g in range(len(members)) if chosen[g]]
    rest = [members[g] for g in range(len(members)) if not chosen[g]]
    return _joined(rest), _joined(part)


def _parts(indices: Indices, labels: NDArray[np.integer], groups: NDArray[np.integer], k: int) -> Indices:
    """The fold 0…k−1 of each index: each group goes where its classes are scarcest."""
    members = _members(indices, groups)
    random = np.random.default_rng(TEST_SEED)
    order = random.permutation(len(members)).tolist()
    order.sort(key=lambda g: -len(members[g]))  # large groups first, while there is room to balance them (stable sort)
    have = np.zeros((k, int(labels.max()) + 1), np.int64)
    fold = np.empty(len(members), np.int64)
    for g in order:
        counts = np.bincount(labels[members[g]], minlength=have.shape[1])
        crowded = (have[:, counts > 0]).sum(axis=1) * len(indices) + have.sum(axis=1)
        fold[g] = int(np.argmin(crowded))
        have[fold[g]] += counts
    where = {int(i): int(fold[g]) for g, m in enumerate(members) for i in m}
    return np.asarray([where[i] for i in indices.tolist()], np.int64)


def _limited(indices: Indices, labels: NDArray[np.integer], limit: int, least: int) -> Indices:
    """At most `limit` of the indices, the classes in proportion, each with at least `least`; alike for every seed."""
    if len(indices) <= limit:
        return indices
    random = np.random.default_rng(TEST_SEED)
    shuffled = random.permutation(indices)
    # each image's place within its class, as a share of the class: taking the smallest takes from all classes alike
    place = np.empty(len(shuffled))
    for k in np.unique(labels[shuffled]):
        own = np.flatnonzero(labels[shuffled] == k)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
        place[own[:least]] = np.arange(min(least, len(own))) - least  # these first: before any share
    return np.sort(shuffled[np.argsort(place, kind="stable")[:limit]])


def _members(indices: Indices, groups: NDArray[np.integer]) -> list[Indices]:
    """The indices of each group, in the order of the groups' first members."""
    order = np.argsort(groups[indices], kind="stable")
    ordered = indices[order]
    cuts = np.flatnonzero(np.diff(groups[ordered])) + 1
    parts = np.split(ordered, cuts)
    return sorted(parts, key=lambda p: int(p[0])) if len(indices) else []


def _joined(parts: Sequence[Indices]) -> Indices:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _count(labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=classes).astype(np.int64)


def _check_classes(
    source: Source,
    labels: NDArray[np.int64],
    groups: NDArray[np.integer],
    train: Indices,
    test: Indices,
    *,
    at_least: int,
    what: str = "a training, a validation and a test set",
    tested: bool = False,
    dropped: Indices | None = None,
) -> None:
    """Every class must have images to learn from and, where `tested`, to test on; tests must have some at all."""
    classes = len(source.classes)
    to_train, to_test = _count(labels[train], classes), _count(labels[test], classes)
    few = [k for k in range(classes) if to_train[k] < at_least or (tested and to_test[k] < 1)]
    if few:
        listed = ", ".join(f"{source.classes[k]!r} ({to_train[k]} to train, {to_test[k]} to test)" for k in few[:5])
        both = np.concatenate([train, test])
        because = _because(both[np.isin(labels[both], few)], groups)
        if dropped is not None and (gone := int(np.isin(labels[dropped], few).sum())):
            because += f". Of them {count_noun(gone, 'image')} dropped from train: the held-out images have a copy"
        raise DataSplitError(
            f"too few different images for {what}: {listed}{', …' if len(few) > 5 else ''}. Duplicates and unusable "
            f"files do not count; add images, or leave these classes out{because}."
        )
    if len(test) == 0:
        raise DataSplitError(f"no usable test images in {display(source.given)!r}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise DataSplitError(f"{name}={share}: expected a share between 0 and 1, such as 0.2")
