"""`split` chooses the images to train on, to validate and to test, in proportion to the classes.

The test set does not depend on a trial's seed: it is given, or chosen by a hash of each image's content, so that more
images tomorrow leave today's test images where they are; where groups are named, such as patients, by a hash of the
group's name. Groups and duplicates stay on one side, because an image in train and test tests memorisation. The
validation images are chosen from train for each seed.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.carve import (
    Indices,
    by_content,
    carve,
    class_number,
    fold_numbers,
    limited,
    limited_groups,
    united,
)
from gapstone.data.scan import Scan
from gapstone.data.sources import Source, few
from gapstone.statistics.labels import class_counts, has_any, is_multi_label, of_class

VALIDATION_SHARE = 0.1
LEAST_GROUPS = 5
"""Named groups of each class in the test set, where they are half of them at most: fewer allow no interval."""
Duplicates = Literal["group", "drop", "keep"]
"""How duplicates are used: all on one side of the split; only one of them; or like any other image."""


class DataSplitError(ValueError):
    """The images cannot be split; the message says which class has too few."""


@dataclass(frozen=True, eq=False)
class DataSplit:
    """Sorted indices into source.items; no image and no group of duplicates is in two of the sets."""

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
    validation_share: float = VALIDATION_SHARE,
    limit: int | None = None,
    duplicates: Duplicates = "group",
) -> DataSplit:
    """The train, validation and test images of a trial.

    ```python
    s = split(source, scan(source), seed=3)
    len(s.train), len(s.validation), len(s.test)      # (1293, 144, 360)
    s.described                                       # '360 of 1,797 images (20 %) chosen by their content as the …'
    ```

    If the source gives test images, they are the test set; if it gives train and val, val is the test set; otherwise a
    test set is chosen from the images.

    Only the validation images depend on `seed`. The shares are of each class: of validation images nearly exact, of
    test images on average, as each is chosen by its own content and not by how many others there are. At most `limit`
    images are trained on (including validation), and as many tested.

    Raises:
        DataSplitError: a class has too few images.
    """
    _check_shares(test_share=test_share, validation_share=validation_share)
    labels = source.labels
    usable, groups, usable_note = _usable(source, scan, duplicates)
    train, given_validation, test, described = _given(source, usable)
    if test is None:
        total = len(train)
        least = 1 if source.grouping is None else LEAST_GROUPS
        train, test = by_content(train, labels, groups, _keys(source, scan), test_share, least)
        _check_classes(source, labels, groups, train, test, at_least=1, tested=True)
        named = "the names of their groups" if source.grouping is not None else "their content"
        described += f"{len(test):,} of {_share(len(test), total)} chosen by {named} as the locked test set"
        described += _share_note(source, len(test), total, test_share, groups)
    train, given_validation, dropped, note = _without_held_out(source, scan, train, given_validation, test, duplicates)
    described += note
    if limit is not None:
        least = 2 if given_validation is None else 1  # an image to train on and, if need be, one to validate
        if limit < least * len(source.classes):
            raise DataSplitError(
                f"--limit {limit}: each of the {len(source.classes)} classes needs at least "
                f"{count_noun(least, 'image')}"
            )
        train, test = (
            _limited(source, rows, labels, groups, limit, fewest) for rows, fewest in ((train, least), (test, 1))
        )
        described += f"; limited to {_images(len(train))} to train on and {len(test):,} to test on"
        if given_validation is not None:
            given_validation = _limited(source, given_validation, labels, groups, limit, 1)
    if given_validation is None:
        _check_classes(source, labels, groups, train, test, at_least=2, dropped=dropped)
        total = len(train)
        train, validation = carve_validation(train, labels, groups, seed, validation_share)
        described += f"; {len(validation):,} of the other {_share(len(validation), total)} for validation"
        described += ", chosen anew for each seed"
        described += _share_note(source, len(validation), total, validation_share, groups)
    else:
        validation = given_validation
        _check_classes(source, labels, groups, train, test, at_least=1, dropped=dropped)
    if len(validation) == 0:
        raise DataSplitError(
            f"no usable validation images in {display(source.given)!r}{_because(source, train, groups)}"
        )
    described += usable_note
    return DataSplit(np.sort(train), np.sort(validation), np.sort(test), described, np.sort(dropped))


def carve_validation(
    train: Indices, labels: NDArray[Any], groups: NDArray[np.integer], seed: int, share: float
) -> tuple[Indices, Indices]:
    """(train, validation): choose a share of each class of train by seed; groups stay together.

    `labels` and `groups` are those of all items; `train` holds indices into them. Every class keeps an image to train
    on; a class of a single group gives no image to validation.
    """
    return carve(np.asarray(train, np.int64), labels, groups, share, seed)


def folds(
    source: Source,
    scan: Scan,
    k: int,
    seed: int = 0,
    limit: int | None = None,
    *,
    duplicates: Duplicates = "group",
) -> list[DataSplit]:
    """k splits, in exactly one of which each image is tested; the splits that the source gives are not used.

    The folds are the same for every seed; only the validation images depend on it. `limit` is that of each fold.

    Raises:
        DataSplitError: a class has fewer than k groups of images.
    """
    if k < 2:
        raise DataSplitError(f"folds={k}: at least 2 are needed")
    labels = source.labels
    usable, groups, usable_note = _usable(source, scan, duplicates)
    if limit is not None:
        usable = _limited(source, usable, labels, groups, limit * k // (k - 1), k)
    fold = fold_numbers(usable, labels, groups, k)
    splits = []
    for j in range(k):
        rest, test = usable[fold != j], usable[fold == j]
        _check_classes(source, labels, groups, rest, test, at_least=2, what=f"{k} folds", tested=not source.splits)
        train, validation = carve_validation(rest, labels, groups, seed, VALIDATION_SHARE)
        if len(validation) == 0:
            raise DataSplitError(f"no validation images in fold {j + 1} of {k}{_because(source, rest, groups)}")
        described = f"fold {j + 1} of {k}, by class: {len(test):,} of {_share(len(test), len(usable))}"
        described += _share_note(source, len(test), len(usable), 1 / k, groups)
        if source.splits:
            described += f"; the given split into {', '.join(source.splits)} is not used"
        splits.append(DataSplit(np.sort(train), np.sort(validation), np.sort(test), described + usable_note))
    return splits


def _usable(source: Source, scan: Scan, duplicates: Duplicates) -> tuple[Indices, Indices, str]:
    """(the usable items, the group of every item, a note on both)."""
    excluded = scan.excluded
    note = f"; {count_noun(len(excluded), 'unusable file')} left out" if excluded else ""
    usable = np.setdiff1d(np.arange(len(source)), np.fromiter(excluded, np.int64, len(excluded)))
    groups = together(source, scan, duplicates)
    if source.grouping is not None:
        note += f"; groups ({source.grouping.by}) stay together"
    has_duplicates = len(np.unique(scan.group[usable])) < len(usable)
    if duplicates == "group" or not has_duplicates:
        return usable, groups, note + ("; duplicates stay together" if has_duplicates else "")
    if duplicates == "keep":
        note += "; duplicates count as any other image, as asked: some may be trained on and tested"
        return usable, groups, note
    # the first image of each group; a test image before the others
    order = {"test": 0, "val": 1, "train": 2, None: 0}
    ranked = sorted(usable.tolist(), key=lambda i: (order[source.items[i].split], i))
    _, first = np.unique(scan.group[ranked], return_index=True)
    unique = np.sort(np.asarray(ranked, np.int64)[first])
    note += f"; {_images(len(usable) - len(unique))} left out as duplicates of another one, as asked"
    return unique, groups, note


def together(source: Source, scan: Scan, duplicates: Duplicates = "group") -> Indices:
    """A number for each item, shared by those that stay together: of one named group, and duplicates of each other."""
    single = np.arange(len(source))
    copies = scan.group if duplicates == "group" else single
    return copies if source.grouping is None else united(source.grouping.numbers, copies)


def _keys(source: Source, scan: Scan) -> list[str]:
    """What an item's place follows from: the name of its group, or else its content."""
    names = [None] * len(source) if source.grouping is None else source.grouping.names
    return [facts.sha256 if name is None else f"group {name}" for name, facts in zip(names, scan.facts, strict=True)]


def _limited(
    source: Source, indices: Indices, labels: NDArray[Any], groups: Indices, limit: int, least: int
) -> Indices:
    """At most `limit` of the indices, in whole groups where groups are named."""
    if source.grouping is None:
        return limited(indices, labels, limit, least)
    kept = limited_groups(indices, labels, groups, limit, least)
    if len(kept) > limit:
        fewest = count_noun(least, "group")
        raise DataSplitError(
            f"--limit {limit}: groups stay whole, and {fewest} of each class are {_images(len(kept))} at least: take "
            "a larger limit, or none."
        )
    return kept


def _given(source: Source, usable: Indices) -> tuple[Indices, Indices | None, Indices | None, str]:
    """(train, validation, test, a note on them); None for a set that has to be chosen from train."""
    splits = np.asarray([source.items[i].split or "" for i in usable.tolist()])
    given = {name: usable[splits == name] for name in source.splits}
    for name, indices in given.items():
        if len(indices) == 0:
            raise DataSplitError(f"no usable {name} images in {display(source.given)!r}: every one of them is left out")
    count = {name: _images(len(indices)) for name, indices in given.items()}
    match tuple(given):
        case ():
            return usable, None, None, ""
        case ("train",):
            return given["train"], None, None, "all images are given as train: "
        case ("train", "val"):
            note = f"val is the locked test set ({count['val']}), for no test images are given"
            return given["train"], None, given["val"], note
        case _:  # `Source` has made sure that there are train images
            note = f"the given test images are the locked test set ({count['test']})"
            note += f", val is validation ({count['val']})" if "val" in given else ""
            return given["train"], given.get("val"), given["test"], note


def _exact(scan: Scan) -> Indices:
    """A number per item, shared by exact duplicates."""
    number = np.arange(scan.files)
    for group in scan.exact_duplicates:
        number[group] = group[0]
    return number


def _without_held_out(
    source: Source,
    scan: Scan,
    train: Indices,
    validation: Indices | None,
    test: Indices,
    duplicates: Duplicates,
) -> tuple[Indices, Indices | None, Indices, str]:
    """(train, validation, what was dropped of either, a note): no copy of a held-out image, and none of its group."""
    labels = source.labels
    held = test if validation is None else np.concatenate([test, validation])
    copies = scan.group if duplicates == "group" else np.arange(len(source))
    exact = _exact(scan) if duplicates == "group" else copies
    train, split_up = _without_groups(source, train, held)
    train, dropped, similar = _without_copies(train, held, labels, copies, exact, 2 if validation is None else 1)
    where, of_groups, note = "train", "train", ""
    if validation is not None:
        validation, more_split_up = _without_groups(source, validation, test)
        validation, more, more_similar = _without_copies(validation, test, labels, copies, exact, 1)
        where = "train and val" if len(more) else where
        of_groups = "train and val" if len(more_split_up) else of_groups
        split_up, dropped = np.union1d(split_up, more_split_up), np.union1d(dropped, more)
        similar += more_similar
    if len(split_up):
        note += f"; {_images(len(split_up))} of held-out groups dropped from {of_groups}"
    if len(dropped):
        note += f"; {_images(len(dropped))} of which the held-out images have a copy dropped from {where}"
    if similar:
        note += (
            f"; {_images(similar)} kept though a held-out image is nearly the same: without them a class would lose "
            "more than half of its images"
        )
    return train, validation, np.union1d(dropped, split_up), note


def _without_groups(source: Source, indices: Indices, held: Indices) -> tuple[Indices, Indices]:
    """(those whose named group has no held-out image, the others)."""
    if source.grouping is None:
        return indices, indices[:0]
    shared = np.isin(source.grouping.numbers[indices], source.grouping.numbers[held])
    return indices[~shared], indices[shared]


def _without_copies(
    indices: Indices, held: Indices, labels: NDArray[Any], groups: Indices, exact: Indices, least: int
) -> tuple[Indices, Indices, int]:
    """Drop the images that have a copy among the held-out ones: (the rest, the dropped, near duplicates in the rest).

    Exact copies are dropped. If a class would lose more than half of its images, or have fewer than `least` left, its
    near duplicates stay, because different images of such a class are similar (X-rays, or a product on one background).
    """
    duplicate = np.isin(groups[indices], groups[held])
    copy = np.isin(exact[indices], exact[held])
    total = class_counts(labels[indices[~copy]], class_number(labels))
    left = total - class_counts(labels[indices[duplicate & ~copy]], len(total))
    too_few = (left < least) | (2 * left < total)
    stays = duplicate & ~copy & has_any(labels[indices], too_few)
    return indices[~duplicate | stays], indices[duplicate & ~stays], int(stays.sum())


def _images(count: int) -> str:
    return count_noun(count, "image")


def _share(count: int, total: int) -> str:
    share = 100 * count / max(total, 1)
    return f"{_images(total)} ({f'{share:.0f} %' if share >= 1 or not count else 'less than 1 %'})"


def _share_note(source: Source, count: int, total: int, aim: float, groups: NDArray[np.integer]) -> str:
    """A note if a share differs from the intended one, else nothing."""
    if abs(count / max(total, 1) - aim) <= max(0.05, 1 / max(total, 1)):
        return ""
    largest = int(np.bincount(groups).max())
    what = "duplicates" if source.grouping is None else "images of a group"
    why = f", but up to {largest:,} {what} stay together" if largest > 1 else ""
    return f" ({100 * aim:g} % was meant{why})"


def _because(source: Source, indices: Indices, groups: NDArray[np.integer]) -> str:
    """What to do if there are too few images because of groups or duplicates."""
    count = len(np.unique(groups[indices]))
    if source.grouping is not None and count < len(indices):
        labels = source.labels[indices]
        each = [np.unique(groups[indices[of_class(labels, k)]]) for k in range(len(source.classes))]
        one = all(len(of_one) < 2 for of_one in each)
        what = "each of them is one group" if one else f"they have {count_noun(count, 'group')}"
        return (
            f". With {source.grouping.by} {what}, and a group stays on one side: a class needs one to train on, one to "
            "validate and one to test, or one for each fold. Name smaller groups, or add images of other groups"
        )
    copies = len(indices) - count
    if not copies:
        return ""
    return (
        f". {_images(copies)} are duplicates of others and stay together with them (`gapstone check` shows them); "
        "--duplicates keep counts them as any other"
    )


def _check_classes(
    source: Source,
    labels: NDArray[Any],
    groups: NDArray[np.integer],
    train: Indices,
    test: Indices,
    *,
    at_least: int,
    what: str = "a training, a validation and a test set",
    tested: bool = False,
    dropped: Indices | None = None,
) -> None:
    """Raise DataSplitError if a class lacks training or, if `tested`, test images, or if there are no test images."""
    classes = len(source.classes)
    to_train, to_test = class_counts(labels[train], classes), class_counts(labels[test], classes)
    lacking = (to_train < at_least) | (tested & (to_test < 1))
    if lacking.any():
        named = np.flatnonzero(lacking).tolist()
        listed = ", ".join(f"{source.classes[k]!r} ({to_train[k]} to train, {to_test[k]} to test)" for k in named[:5])
        both = np.concatenate([train, test])
        because = _because(source, both[has_any(labels[both], lacking)], groups)
        if dropped is not None and (count := int(has_any(labels[dropped], lacking).sum())):
            why = "have a copy" if source.grouping is None else "have a copy, or are of the same group"
            because += f". Of them {_images(count)} dropped from train: the held-out images {why}"
        raise DataSplitError(
            f"too few different images for {what}: {listed}{', …' if len(named) > 5 else ''}. Duplicates and unusable "
            f"files do not count; add images, or leave these classes out{because}."
        )
    if is_multi_label(labels) and (always := np.flatnonzero(to_train > len(train) - at_least).tolist()):
        raise DataSplitError(
            f"every image to train on has {few([source.classes[k] for k in always])}, or all but one: there is nothing "
            "to tell apart. Add images without, or leave the class out."
        )
    if len(test) == 0:
        raise DataSplitError(f"no usable test images in {display(source.given)!r}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise DataSplitError(f"{name}={share}: expected a share between 0 and 1, such as 0.2")
