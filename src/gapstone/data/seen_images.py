"""Leave images that a model was trained on, and copies of them, out of every test: it may know them by heart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun
from gapstone.data.carve import Indices
from gapstone.data.scan import Scan
from gapstone.data.sources import Source, few
from gapstone.data.split import DataSplit, DataSplitError, Duplicates, together
from gapstone.statistics.labels import class_counts


def seen_images(source: Source, scan: Scan, trained: NDArray[np.bool_], duplicates: Duplicates) -> NDArray[np.bool_]:
    """(N,) whether each item was trained on, or one that it stays together with: a near copy, one of its named group.

    `trained` says it of the items alone.
    """
    groups = together(source, scan, duplicates)
    return np.isin(groups, groups[trained])


def without_seen(source: Source, splits: Sequence[DataSplit], seen: NDArray[np.bool_], whose: str) -> list[DataSplit]:
    """The splits without the test images that a model has `seen`; what describes them says how many there were.

        >>> without_seen(source, splits, seen, "--weights m.safetensors")[0].described
        '360 of 1,797 images …; 12 of 360 test images are left out, as --weights m.safetensors was trained on them'

    Raises:
        DataSplitError: a class of which images were tested has none left, or a fold has none.
    """
    tested = np.unique(np.concatenate([parts.test for parts in splits]))
    out = int(seen[tested].sum())
    if not out:
        return list(splits)
    check_left(source, tested, tested[~seen[tested]], whose)
    note = f"{out:,} of {count_noun(len(tested), 'test image')} are left out, as {whose} was trained on them"
    left = []
    for number, parts in enumerate(splits, 1):
        test = parts.test[~seen[parts.test]]
        if not len(test):
            raise DataSplitError(f"{note}: fold {number} has none left. Take fewer folds, or --seeds.")
        left.append(replace(parts, test=test, described=f"{parts.described}; {note}"))
    return left


def check_left(source: Source, tested: Indices, left: Indices, whose: str) -> None:
    """Raises DataSplitError if a class of the `tested` images has none among those that are `left`."""
    before, after = (class_counts(source.labels[rows], len(source.classes)) for rows in (tested, left))
    gone = [source.classes[k] for k in np.flatnonzero((before > 0) & (after == 0)).tolist()]
    if gone:
        of = f"of {few(gone)}" if len(gone) < int((before > 0).sum()) else "at all"
        raise DataSplitError(
            f"{whose} was trained on {len(tested) - len(left):,} of {count_noun(len(tested), 'test image')}, and none "
            f"is left {of}: how good it is on images it knows says nothing. Give images it was not trained on, or add "
            f"new ones."
        )


def unknown_images(whose: str) -> str:
    """A caution about a model that does not say which images it was trained on."""
    return (
        f"Which images {whose} was trained on is not known, or not of all: those of them that are tested make its "
        f"numbers too good."
    )
