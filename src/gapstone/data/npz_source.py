"""Opens sources that are an .npz file of arrays; nothing is unpickled, and no more is unpacked than memory holds."""

import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.file_names import composed
from gapstone.data.groups import group_columns
from gapstone.data.label_forms import FoundLabels, array_labels, cell_labels
from gapstone.data.memory_limits import check_unpacked
from gapstone.data.sources import DataError, Item, Source, SplitName
from gapstone.data.split_names import split_name
from gapstone.storage.paths import open_input

ARRAYS = ("images", "labels", "classes", "split")
"""The arrays that are read from an .npz file."""


def open_npz(given: str, path: Path, group: str | None = None, multi_label: bool = False) -> Source:
    """Open an .npz file with `images`, `labels` and, optionally, `classes` and `split`; nothing is unpickled.

    `labels` is (N,), or (N, K) of 0 and 1 for each class. `Source.columns` has the array `group`, and those that look
    like groups.
    """
    shown = display(given)
    arrays = _arrays(shown, path, group)
    pixels = _pixels(shown, arrays["images"])
    found = _labels(shown, len(pixels), arrays["labels"], arrays.get("classes"), multi_label)
    classes, sets, notes = found.numbered()
    splits: list[SplitName | None] = [None] * len(pixels)
    if "split" in arrays:
        if arrays["split"].shape != (len(pixels),):
            raise DataError(f"DATA {shown!r}: split has shape {arrays['split'].shape}; expected ({len(pixels)},).")
        words = [_text(word).strip() for word in arrays["split"].tolist()]
        known = split_name(words)
        if wrong := next(((row, word) for row, word in enumerate(words) if word not in known), None):
            raise DataError(f"DATA {shown!r}: split[{wrong[0]}] is {display(wrong[1])!r}; expected train, val or test.")
        splits = [known[word] for word in words]
    items = [
        Item(f"{split or 'image'} #{row}", labels, split, None, row)
        for row, (labels, split) in enumerate(zip(sets, splits, strict=True))
    ]
    columns = {
        name.lower(): _cells(shown, name, array, len(pixels), asked=group is not None)
        for name, array in arrays.items()
        if (name.lower() == group.strip().lower() if group is not None else name not in ARRAYS)
    }
    return Source(
        given,
        "npz",
        classes,
        items,
        notes,
        array=pixels,
        columns={k: v for k, v in columns.items() if v},
        multi_label=found.why is not None,
        hints=(*found.told(), *found.hints),
    )


def _cells(shown: str, name: str, array: NDArray[np.generic], images: int, asked: bool) -> list[str]:
    """The groups in an array, as text; none where nobody asked and it is no list of groups."""
    if array.shape == (images,) and array.dtype.kind in "iuUS":
        return [composed(_text(value).strip()) for value in array.tolist()]
    if not asked:
        return []
    raise DataError(
        f"--group {display(name)}: DATA {shown!r} has {array.dtype} of shape {array.shape} there; expected a whole "
        f"number or a string for each of its {images:,} images."
    )


def _arrays(shown: str, path: Path, group: str | None) -> dict[str, NDArray[np.generic]]:
    what = f"DATA {shown!r}"
    with open_input(what, path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
                for needed in ("images", "labels"):
                    if needed not in members:
                        has = ", ".join(sorted(map(display, members))) or "nothing"
                        raise DataError(f"{what} has no {needed!r} array; it has {has}.")
                grouped = group_columns(shown, [name.lower() for name in members], group)
                members = {name: m for name, m in members.items() if name in ARRAYS or name.lower() in grouped}
                size = os.fstat(file.fileno()).st_size
                check_unpacked(what, size, sum(member.file_size for member in members.values()))
                for name, member in members.items():  # all of them, before any array is read
                    _check_header(what, archive, name, member)
                return {name: _array(archive, member) for name, member in members.items()}
        except DataError:
            raise
        except NotImplementedError as e:  # zipfile does not know the compression method or the version
            raise DataError(f"{what} is packed in a way that cannot be read ({e}); save it again with np.savez.") from e
        except Exception as e:  # zipfile, zlib and numpy raise many kinds of errors for damaged files
            raise DataError(f"{what} cannot be read as .npz ({e}); save it again with np.savez.") from e


def _check_header(what: str, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> None:
    """Raise DataError if a member is no array, does not fit its header, or holds pickled objects."""
    with archive.open(member) as file:
        if (magic := file.read(6)) != np.lib.format.MAGIC_PREFIX:
            _check_checksum(archive, member)
            raise DataError(
                f"{what}: its member {name!r} is no array (it begins with {magic!r}, an array with "
                f"{np.lib.format.MAGIC_PREFIX!r}); save it again with np.savez."
            )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        size = member.file_size - file.tell()
    if dtype.hasobject:
        _check_checksum(archive, member)
        raise DataError(f"{what}: {name} holds pickled objects, which are never loaded; save plain arrays.")
    if math.prod(shape) * dtype.itemsize != size:
        raise DataError(
            f"{what}: {name} should have {math.prod(shape) * dtype.itemsize:,} bytes, as its header says "
            f"{dtype} of shape {shape}, and has {size:,}; save it again with np.savez."
        )


def _check_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise BadZipFile if a member does not fit its checksum: then its header is wrong because it is damaged."""
    with archive.open(member) as file:
        while file.read(1 << 20):
            pass


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    # not np.load: if the first bytes are damaged, it takes the file for pickled data
    with archive.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _pixels(shown: str, images: NDArray[np.generic]) -> NDArray[np.uint8]:
    expected = "expected (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 or float from 0 to 1"
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = "; channels come last: images.transpose(0, 2, 3, 1)"
        raise DataError(f"DATA {shown!r}: images has shape {images.shape}; {expected}{hint}.")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images, dtype=np.uint8)
    if images.dtype.kind != "f":
        raise DataError(f"DATA {shown!r}: images is {images.dtype}; {expected}.")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also false for nan
        raise DataError(f"DATA {shown!r}: images is {images.dtype} from {low:g} to {high:g}; {expected}.")
    out = np.empty(images.shape, np.uint8)
    for i in range(0, len(images), 4096):
        out[i : i + 4096] = np.rint(images[i : i + 4096].astype(np.float32) * 255)
    return out


def _labels(
    shown: str, images: int, labels: NDArray[np.generic], classes: NDArray[np.generic] | None, multi_label: bool
) -> FoundLabels:
    what = f"DATA {shown!r}"
    names = None
    if classes is not None:
        if classes.ndim != 1:
            raise DataError(f"{what}: classes has shape {classes.shape}; expected one name per class.")
        names = [composed(_text(c)) for c in classes.tolist()]
        if len(set(names)) < len(names):
            raise DataError(f"{what}: classes names the same class twice.")
    if labels.ndim == 2 and len(labels) == images and labels.shape[1] > 1:
        if names is not None and len(names) != labels.shape[1]:
            raise DataError(f"{what}: labels has shape {labels.shape}, but classes has {len(names)} names.")
        return array_labels(what, labels, names or list(map(str, range(labels.shape[1]))), multi_label)
    if labels.shape != (images,):
        raise DataError(
            f"{what}: {images} images, but labels of shape {labels.shape}; expected ({images},), or ({images}, K) of 0 "
            "and 1 for each of K classes, at least two."
        )
    if labels.dtype.kind not in "iuUS":
        raise DataError(f"{what}: labels is {labels.dtype}; expected whole numbers or strings.")
    texts = [_text(v) for v in labels.tolist()]
    found = cell_labels(what, list(enumerate(texts)), multi_label, "labels[{}]")
    if names is None:
        return found
    if labels.dtype.kind in "iu":
        known = {str(k): name for k, name in enumerate(names)}
    else:
        known = {name: name for name in names}
    if wrong := next((t for labels in found.sets for t in labels if composed(t) not in known), None):
        raise DataError(f"{what}: label {display(wrong)!r} is not among its {len(names)} classes.")
    sets = [tuple(known[composed(label)] for label in labels) for labels in found.sets]
    return replace(found, sets=sets, order=tuple(names))
