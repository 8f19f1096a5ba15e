"""DATA that is a Python object: which form it has, and what it is called in messages and results."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gapstone.console.formatting import count_noun
from gapstone.data.array_source import find_arrays, is_array_name
from gapstone.data.sources import DataError
from gapstone.data.split_names import SplitName, split_name

Form = Literal["path", "arrays", "array splits", "frame", "arrow", "dataset"]
OBJECTS = """From Python, DATA may also be
  (images, labels)         arrays or tensors; or a dictionary with these and, if you like, classes and split
  a DataFrame              with the columns of a .csv file; paths are relative to the working folder
  a Dataset                of torch, whose items are (image, label), without random transforms and Normalize
  a Dataset                of Hugging Face's `datasets`
  a dictionary             {"train": …, "val": …, "test": …} of two or three of them (not of DataFrames)"""


def form_of(data: object) -> Form:
    """The form of DATA. Raises DataError for an object that has none."""
    if isinstance(data, str | os.PathLike):
        return "path"
    if _is_arrow(data):
        return "arrow"
    if isinstance(data, Mapping):
        return _form_of_mapping(data)
    if _is_pair(data):
        return "arrays"
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return "frame"
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _is_array(data):
        return "dataset"
    raise DataError(f"DATA is {_named(data)}.{_advice(data)}\n{OBJECTS}")


def described(data: object) -> str:
    """DATA as text: a path as it is given, an object in a few words.

    >>> described("photos/"), described([(image, 0), (image, 1)])
    ('photos/', 'a list of 2 images')
    """
    form = form_of(data)
    if form == "path":
        return os.fspath(data)  # type: ignore[call-overload, no-any-return]
    if form == "frame":
        return f"a DataFrame of {count_noun(len(data), 'row')}"  # type: ignore[arg-type]
    if form == "arrays":
        return f"arrays of {count_noun(_length_of_arrays(data), 'image')}"
    parts = splits_of(data) or {None: data}
    first = next(iter(parts.values()))
    of = {"arrow": "a Hugging Face Dataset", "array splits": "arrays"}.get(form) or (
        "a list" if type(first) in (list, tuple) else type(first).__name__
    )
    sizes = {split: len(part[0]) if form == "array splits" else len(part) for split, part in parts.items()}
    if None in sizes:
        return f"{of} of {count_noun(sizes[None], 'image')}"
    *others, last = (f"{size:,} ({split})" for split, size in sizes.items())
    return f"{of} of {', '.join(others)}{' and ' if others else ''}{last} images"


def splits_of(data: object) -> dict[SplitName | None, Any]:
    """The splits of a dictionary, in the order train, val, test; empty if DATA is none.

    Raises:
        DataError: a key is no split, or two are the same.
    """
    if not isinstance(data, Mapping):
        return {}
    known = split_name(map(str, data))
    named: dict[SplitName | None, Any] = {split: data[word] for word, split in known.items() if word in data}
    if len(named) < len(data):
        raise DataError(
            f"DATA is a dictionary with the keys {_keys(data)}; expected train and, if you like, val "
            f"and test, each once, or images and labels.\n{OBJECTS}"
        )
    return {None: named["train"]} if set(named) == {"train"} else named


def _form_of_mapping(data: Mapping[Any, Any]) -> Form:
    values = list(data.values())
    if any(is_array_name(str(name)) for name in data):
        return "arrays"
    if not data or any(_is_array(value) for value in values):
        raise DataError(f"DATA is a dictionary with the keys {_keys(data)}; expected images and labels.\n{OBJECTS}")
    if all(map(_is_arrow, values)):
        return "arrow"
    if all(map(_is_pair, values)):
        return "array splits"
    if {form_of(value) for value in values} == {"dataset"}:
        return "dataset"
    raise DataError(
        f"DATA is a dictionary of {', '.join(_named(value) for value in values)}; expected Datasets, or pairs "
        f"(images, labels). Of DataFrames or tables, make one with a column split.\n{OBJECTS}"
    )


def _keys(data: Mapping[Any, Any]) -> str:
    return ", ".join(map(repr, data)) or "(none)"


def _is_arrow(data: object) -> bool:
    """Whether it is a Dataset or DatasetDict of Hugging Face's `datasets`."""
    return any(each.__module__.split(".")[0] == "datasets" for each in type(data).__mro__) and (
        (hasattr(data, "features") and hasattr(data, "__len__"))
        or (isinstance(data, Mapping) and all(map(_is_arrow, data.values())))
    )


def _is_pair(data: object) -> bool:
    """Whether it is (images, labels); a list or tuple of two pairs (image, label) is none."""
    if type(data) is not tuple or len(data) != 2:
        return False
    return _is_array(data[0]) or (isinstance(data[0], list) and not _is_item(data[0]))


def _is_item(data: Sequence[object]) -> bool:
    return len(data) == 2 and isinstance(data[1], int | str)


def _is_array(data: object) -> bool:
    return hasattr(data, "shape") and hasattr(data, "dtype") and not hasattr(data, "columns")


def _length_of_arrays(data: object) -> int:
    if isinstance(data, Mapping):
        parts = find_arrays("DATA", list(map(str, data))).parts
        named = {str(name): value for name, value in data.items()}
        return sum(len(named[images]) for _, images, _ in parts)
    return len(data[0])  # type: ignore[index]


def _named(data: object) -> str:
    """The type of an object, in words."""
    return "None" if data is None else f"an object of type {type(data).__module__}.{type(data).__qualname__}"


def _advice(data: object) -> str:
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        return " Of a DataLoader, give its Dataset: loader.dataset."
    if type(data).__module__.split(".")[0] == "webdataset":
        return " Of a WebDataset, give the path of its .tar files' folder, or of one of them."
    if hasattr(data, "__iter__") and not hasattr(data, "__len__"):
        return " What can only be iterated over has no lasting order: give a Dataset with __len__ and __getitem__."
    if _is_array(data):
        return " Labels are missing: (images, labels)."
    return ""
