"""Which test images belong together, of named groups or as copies: what verdicts and intervals count."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.plan import ComparisonPlan
from gapstone.console.formatting import count_noun
from gapstone.statistics.by_group import Groups, groups_of_classes, too_few
from gapstone.statistics.labels import Labels

NAMED, COPIES, ITSELF = "test group", "different test image", "test image"
"""What is counted instead of test images, where groups are named, and where some are copies of others; instead of
classes with boxes, the images that they are of."""
MAP = "map"
"""Of a class of an image."""


def groups_of(plan: ComparisonPlan, rows: Mapping[int, NDArray[np.int64]], by_class: bool = False) -> Groups | None:
    """Which of these images, by seed or fold, belong together; None where each is by itself.

    An image that stands in `rows` several times is a group. `by_class`: every class counts the same, so that each of
    them needs enough groups.
    """
    prepared, every = plan.prepared, np.unique(np.concatenate([np.empty(0, np.int64), *rows.values()]))
    numbers, named = prepared.groups, prepared.source.grouping is not None
    copies = len(np.unique(numbers[every])) < len(every)
    repeated = any(len(np.unique(at)) < len(at) for at in rows.values())
    if not len(every) or not (named or copies or repeated):
        return None
    of, counted = {seed: numbers[at] for seed, at in rows.items()}, MAP if repeated else "image"
    if not named:
        return Groups(of, COPIES if copies else ITSELF, member=counted)
    labels = prepared.store.labels[every] if by_class else None
    few = too_few(numbers[every], labels)
    more = "Add groups." if plan.request.folds else "Add groups, or test all there are: --folds 5."
    return Groups(of, NAMED, few and f"{few} {more}", counted)


def groups_counted(plan: ComparisonPlan, tested: NDArray[np.int64], by_class: bool) -> dict[str, Any] | None:
    """The "groups" entry of the data in results.json; None where every test image is by itself."""
    groups, named = groups_of(plan, {0: tested}, by_class), plan.prepared.source.grouping
    if groups is None:
        return None
    labels, by = plan.prepared.store.labels[tested], None if named is None else named.by
    return groups_entry(groups.of[0], labels, len(plan.prepared.labels), by, groups.refused)


def groups_entry(
    numbers: NDArray[np.integer], labels: Labels, classes: int, by: str | None, refused: str | None
) -> dict[str, Any]:
    """The "groups" entry, of the group and the label of each test image.

    `by`: the option that names groups, None of copies; `refused`: why there are no intervals.
    """
    sizes = np.unique(numbers, return_counts=True)[1]
    return {
        "by": by,
        "test": len(sizes),
        "images": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())],
        "of_class": groups_of_classes(numbers, labels, classes),
        "refused": refused,
    }


def groups_said(data: dict[str, Any]) -> str | None:
    """A sentence on what verdicts and intervals count instead of images.

    >>> groups_said({"test": 154, "groups": {"by": "--group patient", "test": 15, "images": [4, 10.0, 17]}})
    'Verdicts and intervals are for other groups (--group patient): the 154 test images are of 15 of them, …'
    """
    groups = data["groups"]
    if groups is None:
        return None
    if groups["by"] is None:
        return (
            f"Of {count_noun(data['test'], 'test image')} {groups['test']:,} are different pictures, the others "
            "copies: verdicts and intervals allow for that."
        )
    low, _, high = groups["images"]
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return (
        f"Verdicts and intervals are for other groups ({groups['by']}): the {count_noun(data['test'], 'test image')} "
        f"are of {groups['test']:,} of them, {each} each."
    )
