"""From which Dataset training images are drawn: `augmented`, or train where it has random transforms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.dataset_items import item_pixels, item_values, read_item
from gapstone.data.dataset_parts import NO_SEED, Part
from gapstone.data.dataset_values import DatasetValues, kind_of
from gapstone.data.drawn_images import DrawnImages
from gapstone.data.sources import DataError, SplitName

Place = tuple[SplitName | None, int]
"""Of an item of the source: its part of DATA, and its number there."""
_LOOKED_AT = 32
"""How many items of `augmented`, spread over all, are compared with those of DATA before the work."""
_SCALES = 8
"""Values that differ by more than this factor are on two scales; no change of brightness does so much."""
_SAME_VALUES = (
    "the range of values is decided by data: expected the same kind and scale, without ToDtype(scale=True) or Normalize"
)


def drawn_of(
    what: str,
    parts: Sequence[Part],
    where: Sequence[Place],
    labels: Sequence[object],
    augmented: object,
    values: DatasetValues | None = None,
) -> DrawnImages | None:
    """The Dataset that training draws from, for items at these places with these labels; None: there is none.

    `values` are the images at these places, unless they are files.

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
    _check(drawn, labels, values)
    return drawn


def _check(drawn: DrawnImages, labels: Sequence[object], values: DatasetValues | None) -> None:
    """Raises DataError if some of its items have other labels or values, are no images, or cannot be repeated."""
    items = np.flatnonzero(drawn.indices >= 0)
    pairs: list[tuple[float, float]] = []
    for item in items[np.unique(np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int))].tolist():
        index = int(drawn.indices[item])
        with drawn.items.random_state_kept():
            image, label = read_item(drawn.what, drawn.items.draw(index, (0, 0)))
            again, _ = read_item(drawn.what, drawn.items.draw(index, (0, 0)))
        first, second = (item_values(drawn.what, f"item {index}", each) for each in (image, again))
        if not np.array_equal(first, second, equal_nan=True):
            raise DataError(f"{drawn.what}: item {index} {NO_SEED}")
        if not _equal(label, labels[item]):
            raise DataError(
                f"{drawn.what}: item {index} has the label {display(repr(label))}, and data "
                f"{display(repr(labels[item]))}; expected the same images in the same order, with random transforms."
            )
        if values is None or not values.deep:
            item_pixels(drawn.what, f"item {index}", image)
            continue
        if (kind := kind_of(first.dtype)) != values.kind(item):
            is_of = f"item {index} is of {kind}, and that of data of {values.kind(item)}"
            raise DataError(f"{drawn.what}: {is_of}; {_SAME_VALUES}")
        pairs.append((_high(first), _high(values[item])))
    ours, theirs = np.asarray(pairs or [(0, 0)], np.float64).mean(0)
    if not theirs / _SCALES <= ours <= theirs * _SCALES:
        raise DataError(
            f"{drawn.what}: its values go up to {ours:.4g}, and those of data to {theirs:.4g}; {_SAME_VALUES}"
        )


def _high(values: NDArray[Any]) -> float:
    """How far the values of an image are from 0, without the rarest."""
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(np.quantile(finite, 0.99)) if finite.size else 0.0


def _equal(first: Any, second: Any) -> bool:
    one, other = (each.detach().cpu().numpy() if hasattr(each, "detach") else each for each in (first, second))
    return bool(np.array_equal(np.asarray(one).ravel(), np.asarray(other).ravel()))
