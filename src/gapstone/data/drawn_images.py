"""Training images as a Dataset's own random transforms draw them, anew in each epoch."""

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.data.dataset_items import item_pixels, read_item
from gapstone.data.seeded_items import SeededItems
from gapstone.data.sources import DataError
from gapstone.images.intensity_range import UNDECIDED, Ranges
from gapstone.runtime.code_digest import UnknownCodeError, code_digest
from gapstone.workers.user_pickle import UserPickle, changed


@dataclass(frozen=True)
class DrawnImages:
    """A Dataset with random transforms, from which the items of a source are drawn by a seed.

        >>> drawn = DrawnImages.of("augmented", dataset, np.arange(len(dataset)))
        >>> drawn.draw(7, (0, 1)).shape                # item 7, seed 0, epoch 1
        (224, 224, 3)

    It may be sent to another process, also where its class stands in a script or a notebook.
    """

    what: str
    """How messages call it."""
    items: SeededItems = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)
    """By item of the source, the index in the Dataset; -1: it is not drawn."""
    digest: str
    """Of what the Dataset and its transforms do."""
    unknown: str | None
    """The part of it that cannot be told from an edited one; `digest` is then another in each process."""
    pickled: UserPickle = field(repr=False)

    @classmethod
    def of(cls, what: str, dataset: Any, indices: NDArray[np.int64]) -> "DrawnImages":
        """Raises DataError if it cannot be sent to another process."""
        try:
            pickled = UserPickle.of(dataset, what, "or open them in __getitem__")
        except ValueError as error:
            raise DataError(str(error)) from error
        items, unknown = SeededItems(dataset), None
        try:
            digest = _digest(items)
        except UnknownCodeError as error:
            digest, unknown = secrets.token_hex(8), str(error)
        return cls(what, items, indices, digest, unknown, pickled)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.what, self.pickled, self.indices, self.digest, self.unknown)

    def random_state_kept(self) -> AbstractContextManager[None]:
        """What is drawn within does not change the random numbers that anything draws afterwards."""
        return self.items.random_state_kept()

    def draw(self, item: int, seed: Sequence[int], ranges: Ranges = UNDECIDED) -> NDArray[np.uint8]:
        """The image (H, W, C) of an item of the source, on the ranges of its values.

        Raises DataError for what is no image, or normalised, and for values that have no range.
        """
        index = int(self.indices[item])
        image, _ = read_item(self.what, self.items.draw(index, seed))
        return item_pixels(self.what, f"item {index}", image, ranges)


def _restored(
    what: str, pickled: UserPickle, indices: NDArray[np.int64], digest: str, unknown: str | None
) -> DrawnImages:
    items = SeededItems(pickled.load())
    if unknown is None and _digest(items) != digest:
        raise changed(what)
    return DrawnImages(what, items, indices, digest, unknown, pickled)


def _digest(items: SeededItems) -> str:
    with items.random_state_kept():
        items.seed((0,))  # else the state of its generators would count
        return code_digest(items.dataset)
