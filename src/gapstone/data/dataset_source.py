"""Opens sources that are a map-style Dataset of torch: anything whose items are (image, label).

Each item is read once, in order, in this process; an image that memory has no room for is read again when it is needed,
and has to be the same then. Images that are files (an `ImageFolder` without a transform) are read as files are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.array_source import ROUNDED, label_arrays
from gapstone.data.dataset_items import PLAIN, item_pixels, read_item
from gapstone.data.image_info import is_gray, pixel_hash
from gapstone.data.python_objects import splits_of
from gapstone.data.sources import DataError, Item, Source, SplitName, few
from gapstone.images.load import ImageError
from gapstone.runtime.environment import memory

Progress = Callable[[int, int], None]
_KEPT = 2 << 30
"""Bytes of decoded images that stay in memory; less where the machine has less than 16 GB."""
_TWICE = 8
"""How many of the first items are read twice: random transforms show there."""
_ANOTHER = f"is another image when it is read again, as random transforms make it. {PLAIN}"


@dataclass(frozen=True)
class _Part:
    """A Dataset, and which of its items are meant."""

    split: SplitName | None
    dataset: Any
    indices: Sequence[int]

    def class_lists(self) -> list[list[str]]:
        """The names of its classes, where it has them; of a ConcatDataset, those of each of its parts."""
        whole = self.dataset
        parts = getattr(whole, "datasets", None) if not hasattr(whole, "classes") else None  # of a ConcatDataset
        lists = [list(getattr(each, "classes", None) or ()) for each in map(_innermost, parts or [whole])]
        return [names for names in lists if names and all(isinstance(name, str) for name in names)]


def open_dataset(
    given: str, data: object, multi_label: bool = False, progress: Progress = lambda done, total: None
) -> Source:
    """Open a Dataset, or a dictionary of them by split.

    An image is a PIL image, an array (H, W[, 1 or 3]) or a tensor (1 or 3, H, W), of uint8 or of floats from 0 to 1. A
    label is a number, a text, or a vector of 0 and 1 for each class.

    Raises:
        DataError: items of another form, or that differ when they are read twice, as random transforms make them.
    """
    what = f"DATA {display(given)!r}"
    parts = [_unwrapped(split, dataset) for split, dataset in (splits_of(data) or {None: data}).items()]
    if all(_is_plain_folder(part.dataset) for part in parts):
        return _open_files(given, what, parts, multi_label)
    images = _DatasetImages(what)
    labels: list[object] = []
    where: list[tuple[SplitName | None, int]] = []
    failed: list[str] = []
    total = sum(len(part.indices) for part in parts)
    for part in parts:
        for number, index in enumerate(part.indices):
            name = f"{part.split or 'image'} #{number}"
            try:
                labels.append(images.add(name, part.dataset, index))
                where.append((part.split, number))
            except DataError:
                raise
            except Exception as error:  # whatever the Dataset's own code raises
                if not where:
                    raise DataError(f"{what}: its item 0 cannot be read: {_reason(error)}") from error
                failed.append(f"{name} ({_reason(error)})")
            progress(len(where) + len(failed), total)
    if not where:
        raise DataError(f"{what} has no items.")
    return _source(given, what, parts, where, labels, failed, images, multi_label)


def _source(
    given: str,
    what: str,
    parts: Sequence[_Part],
    where: Sequence[tuple[SplitName | None, int]],
    labels: Sequence[object],
    failed: Sequence[str],
    images: "_DatasetImages",
    multi_label: bool,
) -> Source:
    array = _label_array(what, labels)
    classes, notes = _fitting(what, parts, array)
    several = label_arrays(what, len(labels), array, classes, multi_label)
    names, sets, label_notes = several.numbered()
    items = [
        Item(f"{split or 'image'} #{number}", of_item, split, None, row)
        for row, ((split, number), of_item) in enumerate(zip(where, sets, strict=True))
    ]
    if images.rounded:
        notes.append(f"{count_noun(images.rounded, 'image')}: {ROUNDED}")
    left_out: tuple[str, ...] = ()
    if failed:
        left_out = (f"{count_noun(len(failed), 'item')} cannot be read, left out: {few(failed, 3, quote=False)}",)
    return Source(
        given,
        "dataset",
        names,
        items,
        (*notes, *label_notes),
        array=images,
        multi_label=several.why is not None,
        hints=(*left_out, *several.told(), *several.hints),
    )


class _DatasetImages:
    """The decoded images of Datasets by their row; those beyond the memory that they may take are read again."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.room = min(_KEPT, memory() // 8)
        self.kept: dict[int, NDArray[np.uint8]] = {}
        self.places: list[tuple[Any, int, bytes]] = []
        self.rounded = 0

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        if row in self.kept:
            return self.kept[row]
        dataset, index, digest = self.places[row]
        pixels, _ = item_pixels(self.what, f"item {index}", read_item(self.what, dataset, index)[0])
        if pixel_hash(pixels, is_gray(pixels)) != digest:
            raise ImageError(_ANOTHER)
        return pixels

    def add(self, name: str, dataset: Any, index: int) -> object:
        """Read an item; return its label."""
        image, label = read_item(self.what, dataset, index)
        pixels, exact = item_pixels(self.what, name, image)
        if len(self.places) < _TWICE:
            again, _ = item_pixels(self.what, name, read_item(self.what, dataset, index)[0])
            if again.shape != pixels.shape or not np.array_equal(again, pixels):
                raise DataError(f"{self.what}: {name} {_ANOTHER}")
        self.rounded += not exact
        row = len(self.places)
        self.places.append((dataset, index, pixel_hash(pixels, is_gray(pixels))))
        if pixels.nbytes <= self.room:
            self.room -= pixels.nbytes
            self.kept[row] = pixels.copy()
        return label


def _label_array(what: str, labels: Sequence[object]) -> NDArray[Any]:
    """(N,) of numbers or texts, or (N, K)."""
    values = [each.detach().cpu().numpy() if hasattr(each, "detach") else each for each in labels]
    kinds = {"text" if isinstance(each, str) else np.ndim(each) for each in values}  # type: ignore[arg-type]
    try:
        array = np.asarray(values) if len(kinds) == 1 else None
    except ValueError:  # vectors of different lengths
        array = None
    if array is None or array.dtype.kind not in "biufU":
        shown = ", ".join(sorted({type(each).__name__ for each in labels}))
        raise DataError(
            f"{what}: its labels are of the type {shown}; expected a whole number or a text each, or a vector of 0 and "
            "1, as long for each."
        )
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _fitting(what: str, parts: Sequence[_Part], labels: NDArray[Any]) -> tuple[NDArray[Any] | None, list[str]]:
    """(the names of the classes where they fit the labels, notes)."""
    found = [names for part in parts for names in part.class_lists()]
    if not found:
        return None, []
    names = found[0]
    if other := next((each for each in found if each != names), None):
        if labels.dtype.kind == "U":
            return None, []
        raise DataError(
            f"{what}: the number of a class means another one in each part: their attributes classes are "
            f"{few(names)} and {few(other)}. Give all parts the same classes, in the same order."
        )
    if len(set(names)) < len(names):
        return None, ["its attribute classes has a name twice: not read"]
    if labels.ndim == 2:
        fits = labels.shape[1] == len(names)
    elif labels.dtype.kind in "iu":
        fits = int(labels.min()) >= 0 and int(labels.max()) < len(names)
    else:
        fits = labels.dtype.kind == "U" and set(labels.tolist()) <= set(names)
    if fits:
        return np.asarray(names), []
    return None, [f"the {len(names)} names in its attribute classes do not fit its labels: not read"]


def _unwrapped(split: SplitName | None, dataset: Any) -> _Part:
    """The Dataset within torch's `Subset`s."""
    indices: Sequence[int] = range(len(dataset))
    while _is_subset(dataset):
        inner = [int(i) for i in dataset.indices]
        dataset, indices = dataset.dataset, [inner[i] for i in indices]
    return _Part(split, dataset, indices)


def _innermost(dataset: Any) -> Any:
    while _is_subset(dataset):
        dataset = dataset.dataset
    return dataset


def _is_subset(dataset: Any) -> bool:
    return type(dataset).__name__ == "Subset" and hasattr(dataset, "indices") and hasattr(dataset, "dataset")


def _is_plain_folder(dataset: Any) -> bool:
    """Whether it is torchvision's `ImageFolder` as it is, which gives files and changes nothing."""
    return (
        f"{type(dataset).__module__}.{type(dataset).__qualname__}" == "torchvision.datasets.folder.ImageFolder"
        and dataset.transforms is None
        and getattr(dataset.loader, "__name__", "") == "default_loader"
    )


def _open_files(given: str, what: str, parts: Sequence[_Part], multi_label: bool) -> Source:
    rows = [(part, *part.dataset.samples[index]) for part in parts for index in part.indices]
    labels = np.asarray([part.dataset.classes[label] for part, _, label in rows], np.str_)
    several = label_arrays(what, len(rows), labels, None, multi_label)
    classes, sets, notes = several.numbered()
    names = [Path(path).relative_to(part.dataset.root).as_posix() for part, path, _ in rows]
    items = [
        Item(display(f"{part.split}/{name}" if part.split else name), labels, part.split, Path(path), row)
        for row, ((part, path, _), name, labels) in enumerate(zip(rows, names, sets, strict=True))
    ]
    return Source(given, "dataset", classes, items, notes, multi_label=several.why is not None, hints=several.told())


def _reason(error: Exception) -> str:
    return display(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
