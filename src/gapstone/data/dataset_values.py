"""The images of Datasets of torch, by their row: values as the items have them, or 0…255 where 8 bits hold them all."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun
from gapstone.data.array_source import NORMALISED, has_8_bits
from gapstone.data.dataset_items import as_8_bits, item_values, read_item, refuse_normalised
from gapstone.data.dataset_parts import Part
from gapstone.data.deep_images import DeepImages, spread_or_none
from gapstone.data.sources import DecodedImages
from gapstone.images.intensity_range import AnySpread, ValueSpread
from gapstone.images.load import ImageError
from gapstone.runtime.environment import memory

_KEPT = 2 << 30
"""Bytes of decoded images that stay in memory; less where the machine has less than 16 GB."""
_ANOTHER = (
    "is another image when it is read again: give a Dataset whose images stay the same, and the one with random "
    "transforms as augmented="
)


class DatasetValues:
    """Images (H, W, C) by their row; those beyond the memory that they may take are read again.

        >>> values = DatasetValues("DATA")
        >>> label = values.add("image #0", Part(None, [(np.ones((20, 30, 5), np.uint16), "cat")], [0]), 0)
        >>> label, values.deep, values.as_pixels()[0].dtype
        ('cat', True, dtype('uint8'))

    As long as 8 bits hold all images, they are 0…255, also where the items are floats from 0 to 1. From the first on
    of which that does not hold, all are as the items have them, for their range depends on all of them.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.deep = False
        """Whether there is an image that 8 bits do not hold."""
        self.rounded = 0
        """How many images lost something as 8 bits."""
        self.kept: dict[int, NDArray[Any]] = {}
        self._room = min(_KEPT, memory() // 8)
        self._places: list[tuple[Part, int, bytes]] = []
        self._spreads: dict[int, AnySpread | None] = {}
        self._types: list[np.dtype[Any]] = []

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> NDArray[Any]:
        if row in self.kept:
            return self.kept[row]
        part, index, digest = self._places[row]
        values = item_values(self.what, f"item {index}", read_item(self.what, part.item(index))[0])
        if _digest(values) != digest:
            raise ImageError(_ANOTHER)
        return values if self.deep else as_8_bits(values)[0]

    def add(self, name: str, part: Part, index: int) -> object:
        """Read an item; return its label."""
        image, label = read_item(self.what, part.item(index))
        values = item_values(self.what, name, image)
        refuse_normalised(self.what, name, values)
        row = len(self)
        if not self.deep and not has_8_bits(values):
            self._deepen()
        if self.deep:
            self._spreads[row] = spread_or_none(values)
            kept = values
        else:
            kept, exact = as_8_bits(values)
            self.rounded += not exact
        self._places.append((part, index, _digest(values)))
        self._types.append(values.dtype)
        if kept.nbytes <= self._room:
            self._room -= kept.nbytes
            self.kept[row] = kept.copy()
        return label

    def _deepen(self) -> None:
        """Forget the images that were kept as 0…255 and are floats."""
        self.deep, self.rounded = True, 0
        for row in [row for row in self.kept if self._types[row] != np.uint8]:
            self._room += self.kept.pop(row).nbytes

    def kind(self, row: int) -> str:
        """What its values are (`kind_of`); where 8 bits hold all images, "uint8"."""
        return kind_of(self._types[row]) if self.deep else "uint8"

    def as_pixels(self) -> DecodedImages:
        """The images as 0…255."""
        return DeepImages(self, self._spreads) if self.deep else self

    def notes(self) -> list[str]:
        """What is to be known of images of more than 8 bits."""
        kinds = Counter(map(self.kind, range(len(self))))
        found = []
        if len(kinds) > 1:
            shown = ", ".join(f"{count_noun(count, 'image')} of {kind}" for kind, count in kinds.most_common())
            found.append(f"{shown}: each kind has a range of its own, and uint8 stays as it is")
        of_floats = [s for s in self._spreads.values() if isinstance(s, ValueSpread) and s.kind == "floats"]
        if any(spread.lowest < 0 or spread.highest > 1 for spread in of_floats):
            found.append(NORMALISED)
        return found


def kind_of(dtype: np.dtype[Any]) -> str:
    """>>> kind_of(np.dtype(np.int16))
    'whole numbers'
    """
    return "uint8" if dtype == np.uint8 else "floats" if dtype.kind == "f" else "whole numbers"


def _digest(values: NDArray[Any]) -> bytes:
    """Of values, their type and their shape."""
    digest = hashlib.blake2b(f"{values.dtype.str} {values.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
