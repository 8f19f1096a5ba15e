"""The parts of DATA that are Datasets: which items are meant, and whether they are the same at each reading."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gapstone.data.dataset_items import item_values, read_item
from gapstone.data.seeded_items import SeededItems
from gapstone.data.sources import DataError, SplitName

_LOOKED_AT = 8
"""How many of the first items are read twice: random transforms show there."""
_ONCE = (0, 0)
"""What random transforms are seeded with where images are looked at: epoch 0, which no training has."""


@dataclass(frozen=True)
class Part:
    """A Dataset, and which of its items are meant."""

    split: SplitName | None
    dataset: Any
    indices: Sequence[int]
    seeded: SeededItems | None = None
    """Where its transforms are random: they are drawn once, by a seed, to look at the images."""

    @property
    def name(self) -> str:
        return "it" if self.split is None else self.split

    def item(self, index: int) -> Any:
        """The item of the Dataset at `index`, which is one of `indices`."""
        if self.seeded is None:
            return self.dataset[index]
        with self.seeded.random_state_kept():
            return self.seeded.draw(index, _ONCE)

    def class_lists(self) -> list[list[str]]:
        """The names of its classes, where it has them; of a ConcatDataset, those of each of its parts."""
        whole = self.dataset
        parts = getattr(whole, "datasets", None) if not hasattr(whole, "classes") else None  # of a ConcatDataset
        lists = [list(getattr(each, "classes", None) or ()) for each in map(_innermost, parts or [whole])]
        return [names for names in lists if names and all(isinstance(name, str) for name in names)]


def unwrapped(split: SplitName | None, dataset: Any) -> Part:
    """The Dataset within torch's `Subset`s."""
    indices: Sequence[int] = range(len(dataset))
    while _is_subset(dataset):
        inner = [int(i) for i in dataset.indices]
        dataset, indices = dataset.dataset, [inner[i] for i in indices]
    return Part(split, dataset, indices)


def _innermost(dataset: Any) -> Any:
    while _is_subset(dataset):
        dataset = dataset.dataset
    return dataset


def _is_subset(dataset: Any) -> bool:
    return type(dataset).__name__ == "Subset" and hasattr(dataset, "indices") and hasattr(dataset, "dataset")


def is_plain_folder(dataset: Any) -> bool:
    """Whether it is torchvision's `ImageFolder` as it is, which gives files and changes nothing."""
    return (
        f"{type(dataset).__module__}.{type(dataset).__qualname__}" == "torchvision.datasets.folder.ImageFolder"
        and dataset.transforms is None
        and getattr(dataset.loader, "__name__", "") == "default_loader"
    )


def look_for_random(what: str, parts: Sequence[Part], augmented: bool) -> list[Part]:
    """The parts, where the transforms of train are random with the seed that it is read with.

    Raises:
        DataError: other parts have random transforms, or train has them and validation or test images have to be taken
            from it, or `augmented` images are given besides; or random numbers that no seed makes the same.
    """
    changed = {part.split: name for part in parts if (name := _changes(what, part)) is not None}
    if not changed:
        return list(parts)
    split, name = next(iter(changed.items()))
    begin = f"{what}: {name} is another image when it is read again, as random transforms make it."
    if split is None:
        raise DataError(
            f"{begin} Give the Dataset without them as data, and the one with them as augmented=: training draws from "
            "it anew in each epoch, and what is tested stays the same."
        )
    if set(changed) != {"train"}:
        wrong = next(each for each in changed if each != "train")
        raise DataError(f"{begin} Give {wrong} without them: those of train are enough.")
    if augmented:
        raise DataError(f"{begin} Give train without them: it is drawn from augmented= where it trains.")
    if {"val", "test"} - {part.split for part in parts}:
        raise DataError(
            f"{begin} Validation images, or test images, would be taken from such. Give val and test, too; or give "
            "train without them, and the one with them as augmented=."
        )
    return [_seeded(what, part) if part.split == "train" else part for part in parts]


def _seeded(what: str, part: Part) -> Part:
    seeded = replace(part, seeded=SeededItems(part.dataset))
    if (name := _changes(what, seeded)) is not None:
        raise DataError(f"{what}: {name} {NO_SEED}")
    return seeded


NO_SEED = (
    "is another image at each reading, also where random, numpy.random, torch and the generators that it holds are "
    "seeded: its transforms draw from another source, so that no training could be repeated. Draw from one of these."
)


def _changes(what: str, part: Part) -> str | None:
    """The name of the first item that is another image when it is read again; None if there is none."""
    if is_plain_folder(part.dataset):
        return None
    for number, index in enumerate(part.indices[:_LOOKED_AT]):
        name = f"{part.split or 'image'} #{number}"
        try:
            first, second = (item_values(what, name, read_item(what, part.item(index))[0]) for _ in range(2))
        except Exception:  # it is told where all items are read
            continue
        if not np.array_equal(first, second, equal_nan=True):
            return name
    return None
