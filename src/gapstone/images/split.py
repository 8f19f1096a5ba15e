"""split(source, scan) = which images train, which validate, which test; one locked test set, by class and by group.

The test set never depends on a trial's seed: it is chosen once (by TEST_SEED) or given. Duplicates stay together: a
picture that is in train and in test tests the memory. Validation is carved out of train anew for every seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .names import display
from .scan import Scan
from .sources import Source

TEST_SEED = 20131216  # any fixed number; this one is the day Network in Network was put on arXiv
Indices = NDArray[np.int64]


class SplitError(ValueError):
    """The images cannot be split as asked; the message says which class has too few."""


@dataclass(frozen=True, eq=False)
class Split:
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
) -> Split:
    """Train, validation and test images of one trial.

    ```python
    s = split(source, scan(source), seed=3)
    len(s.train), len(s.validation), len(s.test)      # (1293, 144, 360)
    s.described                                       # '20 % of each class chosen once as the locked test set …'
    ```

    A test split that is given is used as it is; with train and val only, val is the locked test set. `seed` moves only
    the validation images. `limit`: at most so many images to train on (validation among them), and as many to test on.
    Raises SplitError where a class has too few images.
    """
    _check_shares(test_share=test_share, validation_share=validation_share)
    labels, groups = source.labels, scan.group
    usable = np.setdiff1d(np.arange(len(labels)), np.fromiter(scan.excluded, np.int64, len(scan.excluded)))
    out = f"; {len(scan.excluded)} unusable file(s) left out" if scan.excluded else ""
    if source.splits:
        train, given_validation, test, how = _given(source, usable)
    else:
        train, test = _carve(usable, labels, groups, test_share, TEST_SEED)
        given_validation = None
        how = f"{_percent(test_share)} of each class chosen once as the locked test set, duplicates kept together"
    held = test if given_validation is None else np.concatenate([test, given_validation])
    clash = np.isin(groups[train], groups[held])
    dropped = train[clash]
    train = train[~clash]
    if given_validation is not None:
        clash = np.isin(groups[given_validation], groups[test])
        dropped = np.union1d(dropped, given_validation[clash])
        given_validation = given_validation[~clash]
    if len(dropped):
        how += f"; {len(dropped)} image(s) of which the held-out images have a copy dropped from train"
    if limit is not None:
        least = 2 if given_validation is None else 1  # one to train on, one to validate
        if limit < least * len(source.classes):
            raise SplitError(f"limit={limit}: {len(source.classes)} classes need at least {least} image(s) each")
        train, test = _limited(train, labels, limit, least), _limited(test, labels, limit, 1)
        how += f"; limited to {limit} images to train on and {limit} to test on"
        if given_validation is not None:
            given_validation = _limited(given_validation, labels, limit, 1)
    if given_validation is None:
        _check_classes(source, labels, train, test, at_least=2)
        train, validation = carve_validation(train, labels, groups, seed, validation_share)
        how += f"; {_percent(validation_share)} of train carved for validation anew for each seed"
    else:
        validation = given_validation
        _check_classes(source, labels, train, test, at_least=1)
        if len(validation) == 0:
            raise SplitError(f"no usable validation images in {display(source.given)!r}")
    return Split(np.sort(train), np.sort(validation), np.sort(test), how + out, np.sort(dropped))


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
) -> list[Split]:
    """k splits; each image is tested in exactly one of them. Given splits are not used (and it says so).

    The parts are the same for every seed, which moves only the validation images. `limit`: at most so many images to
    train on in each fold. Raises SplitError where a class has fewer than k groups of images.
    """
    if k < 2:
        raise SplitError(f"folds={k}: at least 2 are needed")
    labels, groups = source.labels, scan.group
    usable = np.setdiff1d(np.arange(len(labels)), np.fromiter(scan.excluded, np.int64, len(scan.excluded)))
    _check_shares(validation_share=validation_share)
    if limit is not None:
        usable = _limited(usable, labels, limit * k // (k - 1), k)
    part = _parts(usable, labels, groups, k)
    result = []
    for j in range(k):
        rest, test = usable[part != j], usable[part == j]
        _check_classes(source, labels, rest, test, at_least=2, what=f"{k} folds")
        train, validation = carve_validation(rest, labels, groups, seed, validation_share)
        how = f"fold {j + 1} of {k}, by class, duplicates kept together"
        if source.splits:
            how += f"; the given split into {', '.join(source.splits)} is not used"
        result.append(Split(np.sort(train), np.sort(validation), np.sort(test), how))
    return result


def _given(source: Source, usable: Indices) -> tuple[Indices, Indices | None, Indices, str]:
    of = {
        name: np.asarray([i for i in usable.tolist() if source.items[i].split == name], np.int64)
        for name in source.splits
    }
    if "test" in of and "val" in of:
        return of["train"], of["val"], of["test"], "the given test images are the locked test set, val is validation"
    if "test" in of:
        return of["train"], None, of["test"], "the given test images are the locked test set"
    return of["train"], None, of["val"], "val is the locked test set, for no test images are given"


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
    train: Indices,
    test: Indices,
    *,
    at_least: int,
    what: str = "a training, a validation and a test set",
) -> None:
    """Every class must have images to learn from; tests must have some at all."""
    classes = len(source.classes)
    trained, tested = _count(labels[train], classes), _count(labels[test], classes)
    few = [k for k in range(classes) if trained[k] < at_least or (not source.splits and tested[k] < 1)]
    if few:
        listed = ", ".join(f"{source.classes[k]!r} ({trained[k]} to train, {tested[k]} to test)" for k in few[:5])
        raise SplitError(
            f"too few different images for {what}: {listed}{', …' if len(few) > 5 else ''}. Duplicates and unusable "
            "files do not count; add images, or leave these classes out."
        )
    if len(test) == 0:
        raise SplitError(f"no usable test images in {display(source.given)!r}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise SplitError(f"{name}={share}: expected a share between 0 and 1, such as 0.2")


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
