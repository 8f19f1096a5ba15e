"""Opens sources that are a map-style Dataset of torch: anything whose items are (image, label).

Each item is read once, in order, in this process; an image that memory has no room for is read again when it is needed,
and has to be the same then. Images that are files (an `ImageFolder` without a transform) are read as files are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import count_noun, display
from gapstone.data.array_source import label_arrays
from gapstone.data.image_info import is_gray, pixel_hash
from gapstone.data.python_objects import splits_of
from gapstone.data.sources import DataError, Item, Source, SplitName, few
from gapstone.images.colour import to_uint8
from gapstone.images.load import ImageError
from gapstone.runtime.environment import memory

Progress = Callable[[int, int], None]
_KEPT = 2 << 30
"""Bytes of decoded images that stay in memory; less where the machine has less than 16 GB."""
_TWICE = 8
"""How many of the first items are read twice: random transforms show there."""
_WITHOUT = (
    "Give the Dataset without its transform: gapstone resizes and normalises images itself, and augments those that it "
    "trains on."
)

_ANOTHER = f"is another image when it is read again, as random transforms make it. {_WITHOUT}"
_MODES = frozenset(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX", "La", "RGBa"])
"""Pillow's modes of 8 bits or fewer."""


@dataclass(frozen=True)
class _Part:
    """A Dataset, and which of its items are meant."""

    split: SplitName | None
    dataset: Any
    indices: Sequence[int]

    @property
    def classes(self) -> list[str] | None:
        """The names of its classes, where it has them."""
        dataset = self.dataset
        if (parts := getattr(dataset, "datasets", None)) and not hasattr(dataset, "classes"):  # ConcatDataset
            names = [list(getattr(_unwrapped(None, part).dataset, "classes", ())) for part in parts]
            found = names[0] if all(each == names[0] for each in names) else []
        else:
            found = list(getattr(dataset, "classes", None) or ())
        return found if found and all(isinstance(name, str) for name in found) else None


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
    classes, notes = _fitting(parts, array)
    several = label_arrays(what, len(labels), array, classes, multi_label)
    names, sets, label_notes = several.numbered()
    items = [
        Item(f"{split or 'image'} #{number}", of_item, split, None, row)
        for row, ((split, number), of_item) in enumerate(zip(where, sets, strict=True))
    ]
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

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        if row in self.kept:
            return self.kept[row]
        dataset, index, digest = self.places[row]
        pixels = _pixels(self.what, f"item {index}", _item(self.what, dataset, index)[0])
        if pixel_hash(pixels, is_gray(pixels)) != digest:
            raise ImageError(_ANOTHER)
        return pixels

    def add(self, name: str, dataset: Any, index: int) -> object:
        """Read an item; return its label."""
        image, label = _item(self.what, dataset, index)
        pixels = _pixels(self.what, name, image)
        if len(self.places) < _TWICE:
            again = _pixels(self.what, name, _item(self.what, dataset, index)[0])
            if again.shape != pixels.shape or not np.array_equal(again, pixels):
                raise DataError(f"{self.what}: {name} {_ANOTHER}")
        row = len(self.places)
        self.places.append((dataset, index, pixel_hash(pixels, is_gray(pixels))))
        if pixels.nbytes <= self.room:
            self.room -= pixels.nbytes
            self.kept[row] = pixels.copy()
        return label


def _item(what: str, dataset: Any, index: int) -> tuple[Any, Any]:
    item = dataset[index]
    if isinstance(item, Mapping):
        names = [name for name in item if str(name) in ("image", "label")]
        if len(names) == 2:
            return item["image"], item["label"]
        raise DataError(f"{what}: its items have the keys {', '.join(map(str, item))}; expected image and label.")
    if not isinstance(item, Sequence) or len(item) != 2:
        parts = f"{len(item)} parts" if isinstance(item, Sequence) else f"an object of type {type(item).__name__}"
        raise DataError(f"{what}: its items are {parts}; expected (image, label).")
    return item[0], item[1]


def _pixels(what: str, name: str, image: Any) -> NDArray[np.uint8]:
    """(H, W, C) uint8. Raises DataError for an image of another kind."""
    if isinstance(image, Image.Image):
        if image.mode not in _MODES:
            raise DataError(
                f"{what}: {name} is a picture of mode {image.mode}, with more than 8 bits. Give its files instead, as "
                "a folder, a CSV or a DataFrame of paths: their values are scaled together."
            )
        flat, _ = to_uint8(image, [])
        return flat if flat.ndim == 3 else flat[:, :, None]
    is_tensor = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu().numpy() if is_tensor else image)
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and shape[0] in (1, 3) and (is_tensor or shape[2] not in (1, 3)):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in shape:
        of = type(image).__name__ if not array.ndim else f"{type(image).__name__} of shape {shape}"
        raise DataError(
            f"{what}: {name} is {of}; expected a PIL image, an array (H, W), (H, W, 1) or (H, W, 3), or a tensor "
            "(1, H, W) or (3, H, W)."
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and float(array.min()) >= 0 and float(array.max()) <= 1:
        return np.ascontiguousarray(np.rint(array * 255), np.uint8)
    low, high = array.min(), array.max()
    raise DataError(
        f"{what}: {name} is {array.dtype} from {low:.3g} to {high:.3g}, normalised or scaled; expected uint8, or "
        f"floats from 0 to 1. {_WITHOUT}"
    )


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


def _fitting(parts: Sequence[_Part], labels: NDArray[Any]) -> tuple[NDArray[Any] | None, list[str]]:
    """(the names of the classes where they fit the labels, notes)."""
    found = [names for part in parts if (names := part.classes) is not None]
    if not found or any(names != found[0] for names in found) or len(set(found[0])) < len(found[0]):
        return None, []
    names = found[0]
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
    while type(dataset).__name__ == "Subset" and hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        inner = [int(i) for i in dataset.indices]
        dataset, indices = dataset.dataset, [inner[i] for i in indices]
    return _Part(split, dataset, indices)


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
