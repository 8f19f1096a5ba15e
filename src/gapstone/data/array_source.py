"""Opens sources that are arrays of images and labels: a pair, a dictionary, or the arrays of an .npz file.

`find_arrays` knows the usual names of them: images and labels, x_train and y_train (Keras), train_images and
train_labels (MedMNIST), and so on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.channel_axis import EXPECTED, Channels, channels_last, channels_said
from gapstone.data.deep_images import DeepImages
from gapstone.data.file_names import composed
from gapstone.data.groups import NOTHING_ASKED, AskedColumns, kept_columns, key
from gapstone.data.label_forms import FoundLabels, array_labels, cell_labels
from gapstone.data.sources import SPLITS, DataError, Item, Kind, Source, SplitName
from gapstone.data.split_names import split_name
from gapstone.images.as_picture import GRAY_OR_RGB

Arrays = Mapping[str, NDArray[Any]]
ARRAYS = ("images", "labels", "classes", "split", "channels")
_IMAGES = ("images", "x", "data", "image", "imgs")
_LABELS = ("labels", "y", "targets", "target", "label")
ROUNDED = "floats of more than 256 levels, rounded to 0…255"


@dataclass(frozen=True)
class FoundArrays:
    """Which arrays hold the images and the labels, by their names."""

    parts: tuple[tuple[SplitName | None, str, str], ...]
    """(split, name of the images, name of the labels); a single one without a split, or one for each split."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """The names of all arrays that are read."""
        own = {name for _, images, labels in self.parts for name in (images, labels)}
        return own | {"classes", "channels"} | ({"split"} if self.parts[0][0] is None else set())


def find_arrays(what: str, names: Sequence[str]) -> FoundArrays:
    """The arrays that hold images and labels.

        >>> find_arrays("DATA 'a.npz'", ["x_train", "y_train", "x_test", "y_test"]).parts
        (('train', 'x_train', 'y_train'), ('test', 'x_test', 'y_test'))

    Raises:
        DataError: there are none, or which ones is not clear; the message lists all.
    """
    roles: dict[SplitName | None, tuple[list[str], list[str]]] = {}
    for name in names:
        if (role := _role(name)) is not None:
            split, is_labels = role
            roles.setdefault(split, ([], []))[is_labels].append(name)
    if None in roles and (all(roles[None]) or len(roles) == 1):
        roles = {None: roles[None]}
    else:
        roles.pop(None, None)
    parts: list[tuple[SplitName | None, str, str]] = []
    notes: list[str] = []
    for split in sorted(roles, key=lambda split: -1 if split is None else SPLITS.index(split)):
        images, labels = (_one(what, names, found) for found in roles[split])
        if images and labels:
            parts.append((split, images, labels))
        elif images and split not in (None, "train"):
            notes.append(f"array {display(images)!r} has no labels beside it: not read")
        else:
            missing = "images" if labels else "labels"
            raise DataError(f"{what} has no {missing!r} array{_of(split)}; {_has(names)}.")
    if not parts:
        raise DataError(f"{what} has no 'images' array; {_has(names)}.")
    found = FoundArrays(tuple(parts), tuple(notes))
    if found.parts != ((None, "images", "labels"),):
        read = [" and ".join(display(str(part[k])) for part in parts) for k in (1, 2)]
        found = replace(found, notes=(f"arrays read: {read[0]} as images, {read[1]} as labels", *notes))
    return found


def is_array_name(name: str) -> bool:
    """Whether an array of that name holds images or labels."""
    return _role(name) is not None


def _role(name: str) -> tuple[SplitName | None, bool] | None:
    """(split or None, whether it holds labels) of the array of that name; None if it holds neither."""
    words = name.lower().split("_")
    split = None
    if len(words) == 2:
        found = split_name(words)
        if len(found) != 1:
            return None
        ((word, split),) = found.items()
        words.remove(word)
    if len(words) != 1 or words[0] not in (*_IMAGES, *_LABELS):
        return None
    return split, words[0] in _LABELS


def _one(what: str, names: Sequence[str], found: Sequence[str]) -> str | None:
    """The one array of several candidates; the usual name wins."""
    usual = [name for name in found if name in ("images", "labels")] or list(found)
    if len(usual) > 1:
        both = " or ".join(map(repr, map(display, usual)))
        raise DataError(
            f"{what}: is {both} meant? {_has(names)}. Name the one images (or labels), and the other not so."
        )
    return usual[0] if usual else None


def _of(split: SplitName | None) -> str:
    return "" if split is None else f" of the {split} images"


def _has(names: Sequence[str]) -> str:
    return f"it has {', '.join(sorted(map(display, names))) or 'nothing'}"


def open_arrays(
    given: str,
    kind: Kind,
    arrays: Arrays,
    found: FoundArrays,
    asked: AskedColumns = NOTHING_ASKED,
    multi_label: bool = False,
) -> Source:
    """The source of arrays that `find_arrays` found.

    Labels are (N,) or (N, 1), or (N, K) of 0 and 1 for each class. `Source.columns` has the arrays that are `asked`
    for, and those that look like groups.
    """
    what, notes = f"DATA {display(given)!r}", list(found.notes)
    pixels, splits = _all_images(what, arrays, found, notes)
    labels = np.concatenate([_column(arrays[name]) for _, _, name in found.parts])
    several = label_arrays(what, len(pixels), labels, arrays.get("classes"), multi_label)
    classes, sets, label_notes = several.numbered()
    if found.parts[0][0] is None and "split" in arrays:
        splits = _splits(what, len(pixels), arrays["split"])
    items = [
        Item(f"{split or 'image'} #{row}", labels, split, None, row)
        for row, (labels, split) in enumerate(zip(sets, splits, strict=True))
    ]
    columns = {
        name.lower(): _cells(what, name, array, len(pixels), asked)
        for name, array in arrays.items()
        if name.lower() in asked.names or (asked.group is None and name not in found.names | set(ARRAYS))
    }
    return Source(
        given,
        kind,
        classes,
        items,
        (*notes, *label_notes),
        array=pixels,
        columns={k: v for k, v in columns.items() if v},
        multi_label=several.why is not None,
        hints=(*several.told(), *several.hints),
    )


def open_objects(
    given: str, data: Mapping[Any, Any], asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False
) -> Source:
    """The source of a dictionary of arrays, tensors or lists: {"images": …, "labels": …}."""
    what = f"DATA {display(given)!r}"
    named = {str(name): value for name, value in data.items()}
    found = find_arrays(what, list(named))
    kept = kept_columns(display(given), [name.lower() for name in named], asked)
    used = [name for name in named if name in found.names or name.lower() in kept]
    return open_arrays(
        given, "arrays", {name: as_array(what, name, named[name]) for name in used}, found, asked, multi_label
    )


def as_array(what: str, name: str, value: Any) -> NDArray[Any]:
    """A NumPy array of an array, a tensor (also on a GPU) or a list. Raises DataError if it is none."""
    try:
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what}: {name} is no array ({' '.join(str(error).split())[:120]}). For images of different sizes give a "
            "Dataset, a list of (image, label) pairs, or files."
        ) from error
    texts = array.dtype.kind in "OT" and all(isinstance(each, str) for each in array.ravel().tolist())
    return array.astype(np.str_) if texts else array


def _all_images(
    what: str, arrays: Arrays, found: FoundArrays, notes: list[str]
) -> tuple[NDArray[np.uint8] | DeepImages, list[SplitName | None]]:
    """(the images of all parts, the split of each)."""
    said = channels_said(what, arrays.get("channels"))
    images: list[NDArray[Any]] = []
    splits: list[SplitName | None] = []
    names = [name for _, name, _ in found.parts]
    for split, name, labels in found.parts:
        images.append(_images(what, name, arrays[name], said, notes))
        splits += [split] * len(images[-1])
        if len(found.parts) > 1 and len(arrays[labels]) != len(images[-1]):
            raise DataError(f"{what}: {name} has {len(images[-1])} images, {labels} {len(arrays[labels])} labels.")
        if images[-1].shape[1:] != images[0].shape[1:]:
            shapes = f"{arrays[names[0]].shape} and {arrays[name].shape}"
            raise DataError(f"{what}: {names[0]} and {name} have images of two shapes, {shapes}.")
    if all(map(has_8_bits, images)):
        pixels = [_pixels(name, part, notes) for name, part in zip(names, images, strict=True)]
        return pixels[0] if len(pixels) == 1 else np.concatenate(pixels), splits
    if len(kinds := {part.dtype for part in images}) > 1:
        types = ", ".join(f"{display(name)} {part.dtype}" for name, part in zip(names, images, strict=True))
        raise DataError(f"{what}: images of {len(kinds)} types, {types}; expected one type and scale for all.")
    notes += _deep_notes(images)
    return DeepImages(images[0] if len(images) == 1 else np.concatenate(images)), splits


def _column(labels: NDArray[Any]) -> NDArray[Any]:
    """(N,) of labels (N, 1), as MedMNIST and Keras have them."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _splits(what: str, images: int, split: NDArray[Any]) -> list[SplitName | None]:
    if split.shape != (images,):
        raise DataError(f"{what}: split has shape {split.shape}; expected ({images},).")
    words = [text_of(word).strip() for word in split.tolist()]
    known = split_name(words)
    if wrong := next(((row, word) for row, word in enumerate(words) if word not in known), None):
        raise DataError(f"{what}: split[{wrong[0]}] is {display(wrong[1])!r}; expected train, val or test.")
    return [known[word] for word in words]


def _cells(what: str, name: str, array: NDArray[Any], images: int, asked: AskedColumns) -> list[str]:
    """The values in an array, as text; none where nobody asked and it is no list of groups."""
    options = [option for option, column in asked.options.items() if key(column) == name.lower()]
    kinds = "iuUSf" if options == ["--sample-weight"] else "iuUS"
    if array.shape == (images,) and array.dtype.kind in kinds:
        return [composed(text_of(value).strip()) for value in array.tolist()]
    if not options:
        return []
    raise DataError(
        f"{options[0]} {display(name)}: {what} has {array.dtype} of shape {array.shape} there; expected a "
        f"{'number' if 'f' in kinds else 'whole number or a string'} for each of its {images:,} images."
    )


def text_of(value: object) -> str:
    """A value of an array as text."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _images(what: str, name: str, images: NDArray[Any], said: Channels | None, notes: list[str]) -> NDArray[Any]:
    """(N, H, W, C) as they are; channels that come first are put last. Raises DataError for another shape or type."""
    shape = images.shape
    images = channels_last(what, name, images, said)
    if images.shape[3] > 1 and images.shape[3] == shape[1] != shape[3]:
        notes.append(f"{display(name)} of shape {shape} has its channels first: put last")
    check_values(f"{what}: {display(name)}", images)
    return images


def check_values(what: str, images: NDArray[Any]) -> None:
    """Raises DataError for values that are no numbers, and for RGB with an alpha that says nothing."""
    if images.dtype.kind not in "uif":
        raise DataError(f"{what} is {images.dtype}; {EXPECTED}. Of a mask: .astype('uint8').")
    if images.dtype == np.uint8 and images.shape[-1] == 4 and int(images[..., 3].min()) == 255:
        raise DataError(
            f"{what} has four channels, of which the last is 255 everywhere, as alpha is: give images[..., :3]."
        )


def has_8_bits(images: NDArray[Any]) -> bool:
    """Whether images (…, C) are 0…255, or gray or RGB floats from 0 to 1."""
    if images.dtype == np.uint8:
        return True
    if images.dtype.kind != "f" or images.shape[-1] not in GRAY_OR_RGB:
        return False
    return bool(images.min() >= 0 and images.max() <= 1)  # also false for nan


def _deep_notes(images: Sequence[NDArray[Any]]) -> list[str]:
    """What is to be known of floats that are gray or RGB and not from 0 to 1."""
    if images[0].dtype.kind != "f" or images[0].shape[3] not in GRAY_OR_RGB:
        return []
    return [NORMALISED]


NORMALISED = (
    "floats beyond 0 to 1 get one range for all images. If they were normalised (Normalize, / std), leave that out, as "
    "gapstone does it: weights that are trained expect the plain picture"
)


def _pixels(name: str, images: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """(N, H, W, C) uint8, of such values or of floats from 0 to 1."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images, dtype=np.uint8)
    out, exact = np.empty(images.shape, np.uint8), True
    for i in range(0, len(images), 4096):
        out[i : i + 4096], is_exact = as_bytes(images[i : i + 4096])
        exact &= is_exact
    if not exact:
        notes.append(f"{display(name)}: {ROUNDED}")
    return out


def as_bytes(values: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
    """Floats from 0 to 1 as 0 to 255, and whether nothing was lost: all of them are n / 255.

    >>> as_bytes(np.array([1 / 255, 0.5]))
    (array([  1, 128], dtype=uint8), False)
    """
    scaled = values.astype(np.float32) * 255
    whole = np.rint(scaled)
    lost = float(np.abs(scaled - whole).max())
    return whole.astype(np.uint8), lost <= 2 * 255 * float(np.finfo(values.dtype).eps)


def label_arrays(
    what: str, images: int, labels: NDArray[Any], classes: NDArray[Any] | None, multi_label: bool
) -> FoundLabels:
    """The labels of each image, from (N,) numbers or texts, or (N, K) of 0 and 1; `classes` are their names."""
    names = None
    if classes is not None:
        if classes.ndim != 1:
            raise DataError(f"{what}: classes has shape {classes.shape}; expected one name per class.")
        names = [composed(text_of(c)) for c in classes.tolist()]
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
    texts = [text_of(v) for v in labels.tolist()]
    found = cell_labels(what, list(enumerate(texts)), multi_label, "labels[{}]")
    if names is None:
        return found
    known = (
        {str(k): name for k, name in enumerate(names)}
        if labels.dtype.kind in "iu"
        else dict(zip(names, names, strict=True))
    )
    if wrong := next((t for labels in found.sets for t in labels if composed(t) not in known), None):
        raise DataError(f"{what}: label {display(wrong)!r} is not among its {len(names)} classes.")
    sets = [tuple(known[composed(label)] for label in labels) for labels in found.sets]
    return replace(found, sets=sets, order=tuple(names))
