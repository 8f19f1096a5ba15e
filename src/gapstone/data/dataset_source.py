"""Opens sources that are a map-style Dataset of torch: anything whose items are (image, label).

Each item is read once, in order, in this process; an image that memory has no room for is read again when it is needed,
and has to be the same then. Images that are files (an `ImageFolder` without a transform) are read as files are.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.array_source import ROUNDED, label_arrays
from gapstone.data.dataset_parts import Part, is_plain_folder, look_for_random, unwrapped
from gapstone.data.dataset_values import DatasetValues
from gapstone.data.drawn_images import DrawnImages
from gapstone.data.own_transforms import Place, drawn_of
from gapstone.data.python_objects import splits_of
from gapstone.data.sources import DataError, Item, Source, few

Progress = Callable[[int, int], None]


def open_dataset(
    given: str,
    data: object,
    multi_label: bool = False,
    progress: Progress = lambda done, total: None,
    augmented: object = None,
) -> Source:
    """Open a Dataset, or a dictionary of them by split.

    An image is a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W), of up to 16 channels: uint8, or values
    of another range, which become 0…255 on one that is decided for all (decision 44). A label is a number, a text, or a
    vector of 0 and 1 for each class. `augmented` is the same Dataset with random
    transforms, or that of train: training draws from it, and so it does where train alone has them (`Source.drawn`).

    Raises:
        DataError: items of another form; images to be tested that differ when they are read twice, as random transforms
            make them; `augmented` is not of these images.
    """
    what = f"DATA {display(given)!r}"
    parts = [unwrapped(split, dataset) for split, dataset in (splits_of(data) or {None: data}).items()]
    parts = look_for_random(what, parts, augmented is not None)
    if all(is_plain_folder(part.dataset) for part in parts):
        return _open_files(given, what, parts, multi_label, augmented)
    images = DatasetValues(what)
    labels: list[object] = []
    where: list[Place] = []
    failed: list[str] = []
    total = sum(len(part.indices) for part in parts)
    for part in parts:
        for number, index in enumerate(part.indices):
            name = f"{part.split or 'image'} #{number}"
            try:
                labels.append(images.add(name, part, index))
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
    drawn = drawn_of(what, parts, where, labels, augmented, images)
    return _source(given, what, parts, where, labels, failed, images, multi_label, drawn)


def _source(
    given: str,
    what: str,
    parts: Sequence[Part],
    where: Sequence[Place],
    labels: Sequence[object],
    failed: Sequence[str],
    images: DatasetValues,
    multi_label: bool,
    drawn: DrawnImages | None,
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
    notes += images.notes()
    left_out: tuple[str, ...] = ()
    if failed:
        left_out = (f"{count_noun(len(failed), 'item')} cannot be read, left out: {few(failed, 3, quote=False)}",)
    return Source(
        given,
        "dataset",
        names,
        items,
        (*notes, *label_notes),
        array=images.as_pixels(),
        multi_label=several.why is not None,
        hints=(*left_out, *_told_once(parts), *several.told(), *several.hints),
        drawn=drawn,
    )


def _told_once(parts: Sequence[Part]) -> list[str]:
    if not any(part.seeded for part in parts):
        return []
    return [
        "train has random transforms, which draw its images anew in each epoch. They are looked at as drawn once: a "
        "picture of train that is also in val or test may go unnoticed. To have it found, give train without them, and "
        "the one with them as augmented=."
    ]


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


def _fitting(what: str, parts: Sequence[Part], labels: NDArray[Any]) -> tuple[NDArray[Any] | None, list[str]]:
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


def _open_files(given: str, what: str, parts: Sequence[Part], multi_label: bool, augmented: object) -> Source:
    rows = [(part, *part.dataset.samples[index]) for part in parts for index in part.indices]
    where = [(part.split, number) for part in parts for number in range(len(part.indices))]
    drawn = drawn_of(what, parts, where, [label for *_, label in rows], augmented)
    labels = np.asarray([part.dataset.classes[label] for part, _, label in rows], np.str_)
    several = label_arrays(what, len(rows), labels, None, multi_label)
    classes, sets, notes = several.numbered()
    names = [Path(path).relative_to(part.dataset.root).as_posix() for part, path, _ in rows]
    items = [
        Item(display(f"{part.split}/{name}" if part.split else name), labels, part.split, Path(path), row)
        for row, ((part, path, _), name, labels) in enumerate(zip(rows, names, sets, strict=True))
    ]
    is_multi_label = several.why is not None
    return Source(
        given, "dataset", classes, items, notes, multi_label=is_multi_label, hints=several.told(), drawn=drawn
    )


def _reason(error: Exception) -> str:
    return display(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
