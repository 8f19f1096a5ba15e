"""From which Dataset training images are drawn: `augmented`, or train where it has random transforms."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gapstone.console.formatting import display
from gapstone.data.dataset_items import item_pixels, read_item
from gapstone.data.dataset_parts import NO_SEED, Part
from gapstone.data.drawn_images import DrawnImages
from gapstone.data.sources import DataError, SplitName

Place = tuple[SplitName | None, int]
"""Of an item of the source: its part of DATA, and its number there."""
_LOOKED_AT = 32
"""How many items of `augmented`, spread over all, are compared with those of DATA before the work."""


def drawn_of(
    what: str, parts: Sequence[Part], where: Sequence[Place], labels: Sequence[object], augmented: object
) -> DrawnImages | None:
    """The Dataset that training draws from, for items at these places with these labels; None: there is none.

    Raises:
        DataError: `augmented` is no Dataset, or one of other images or labels, or of images that are normalised.
    """
    if augmented is None:
        random = next((part for part in parts if part.seeded is not None), None)
        if random is None:
            return None
        index = [random.indices[number] if split == random.split else -1 for split, number in where]
        return DrawnImages.of(f"{what}, {random.split}", random.dataset, np.asarray(index, np.int64))
    target = next(part for part in parts if part.split in (None, "train"))
    if not (hasattr(augmented, "__getitem__") and hasattr(augmented, "__len__")):
        raise DataError(f"augmented= is of the type {type(augmented).__name__}; expected a Dataset, as data is.")
    if len(augmented) != len(target.indices):
        raise DataError(
            f"augmented= has {len(augmented):,} items, and {target.split or 'data'} {len(target.indices):,}; expected "
            "the same images in the same order, with random transforms."
        )
    index = [number if split == target.split else -1 for split, number in where]
    drawn = DrawnImages.of("augmented=", augmented, np.asarray(index, np.int64))
    _check(drawn, labels)
    return drawn


def _check(drawn: DrawnImages, labels: Sequence[object]) -> None:
    """Raises DataError if some of its items have other labels, are no images, or cannot be repeated."""
    items = np.flatnonzero(drawn.indices >= 0)
    for item in items[np.unique(np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int))].tolist():
        index = int(drawn.indices[item])
        with drawn.items.random_state_kept():
            image, label = read_item(drawn.what, drawn.items.draw(index, (0, 0)))
            again, _ = read_item(drawn.what, drawn.items.draw(index, (0, 0)))
        first, second = (item_pixels(drawn.what, f"item {index}", each)[0] for each in (image, again))
        if first.shape != second.shape or not np.array_equal(first, second):
            raise DataError(f"{drawn.what}: item {index} {NO_SEED}")
        if not _equal(label, labels[item]):
            raise DataError(
                f"{drawn.what}: item {index} has the label {display(repr(label))}, and data "
                f"{display(repr(labels[item]))}; expected the same images in the same order, with random transforms."
            )


def _equal(first: Any, second: Any) -> bool:
    one, other = (each.detach().cpu().numpy() if hasattr(each, "detach") else each for each in (first, second))
    return bool(np.array_equal(np.asarray(one).ravel(), np.asarray(other).ravel()))
