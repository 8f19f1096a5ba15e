"""Which columns of an Arrow table hold images and labels: by the types that Hugging Face's `datasets` writes down.

A parquet file, a saved Dataset and a Dataset in memory have the same schema; where it has no such notes, the types of
Arrow decide.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gapstone.console.formatting import display
from gapstone.data.sources import DataError
from gapstone.data.table_columns import OTHER_WORDS

_RENAME = (
    "Keep one of them: dataset.remove_columns([…]) in Hugging Face's datasets, or pyarrow.parquet.read_table(path, "
    "columns=[…]); or rename the one that is meant to {name}."
)


@dataclass(frozen=True)
class ArrowColumn:
    """A column: `ArrowColumn("label", "label", ("cat", "dog"))`."""

    name: str
    kind: Literal["image", "label", "value", "number", "other"]
    """`label`: the numbers of classes that have names; `value`: text or whole numbers, which may be anything; `number`:
    one that is not whole."""
    names: tuple[str, ...] = ()
    """Of the classes."""
    is_list: bool = False
    is_struct: bool = False
    """Whether an image is {bytes, path}, not bytes alone."""


def columns_of(schema: Any) -> list[ArrowColumn]:
    """The columns of a pyarrow.Schema."""
    features = _features(schema.metadata or {})
    return [_column(field, features.get(field.name)) for field in schema]


def image_column(what: str, columns: Sequence[ArrowColumn]) -> ArrowColumn:
    """The column of images. Raises DataError if there is none, or if several may be meant."""
    found = [column for column in columns if column.kind == "image"]
    if not found:
        raise DataError(f"{what} has no column of images (bytes of files, or Image); it has {_listed(columns)}.")
    return _one(what, "image", found, ("image", *OTHER_WORDS["path"][0]))


def label_column(what: str, columns: Sequence[ArrowColumn], others: Sequence[str] = ()) -> ArrowColumn:
    """The column of labels: the one of classes, or the one of text or numbers; `others` are columns of something else.

    Raises:
        DataError: there is none, or several may be meant.
    """
    kinds: tuple[Literal["label", "value"], ...] = ("label", "value")
    words = ("label", *OTHER_WORDS["label"][0], *OTHER_WORDS["label"][1])
    for kind in kinds:
        found = [column for column in columns if column.kind == kind and column.name.lower() not in others]
        if found:
            return _one(what, "label", found, words)
    raise DataError(f"{what} has no column of labels (ClassLabel, text or whole numbers); it has {_listed(columns)}.")


def _one(what: str, name: str, found: Sequence[ArrowColumn], words: Sequence[str]) -> ArrowColumn:
    """The only one; of several the one that is called so, or the only one that is usually called so."""
    named = [column for column in found if column.name.lower() == name]
    named = named or [column for column in found if column.name.lower() in words]
    several = named or found
    if len(several) == 1:
        return several[0]
    listed = " or ".join(repr(display(column.name)) for column in several)
    raise DataError(f"{what}: is {listed} the {name}? {_RENAME.format(name=name)}")


def _listed(columns: Sequence[ArrowColumn]) -> str:
    return ", ".join(display(column.name) for column in columns) or "none at all"


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """What `datasets` wrote of the columns; nothing where it is not there, or not understood."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _column(field: Any, feature: Any) -> ArrowColumn:
    from pyarrow import types

    inner, is_list = feature, False
    if isinstance(feature, list) and feature:  # as datasets wrote lists before version 4
        inner, is_list = feature[0], True
    elif isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        inner, is_list = feature.get("feature"), True
    kind = inner.get("_type") if isinstance(inner, dict) else None
    of, of_list = field.type, types.is_list(field.type) or types.is_large_list(field.type)
    element = of.value_type if of_list else of
    whole = types.is_integer(element) or types.is_boolean(element)
    if kind == "ClassLabel" and is_list == of_list and whole:
        names = inner.get("names")
        known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return ArrowColumn(field.name, "label", tuple(names) if known else (), is_list)
    if not of_list and types.is_struct(of):
        inside = {part.name: part.type for part in of}
        if _is_bytes(inside.get("bytes")):
            return ArrowColumn(field.name, "image", is_struct=True)
    if not of_list and _is_bytes(of):
        return ArrowColumn(field.name, "image")
    if types.is_floating(of):
        return ArrowColumn(field.name, "number")
    if whole or types.is_string(element) or types.is_large_string(element):
        return ArrowColumn(field.name, "value", is_list=of_list)
    return ArrowColumn(field.name, "other")


def _is_bytes(of: Any) -> bool:
    from pyarrow import types

    return of is not None and (types.is_binary(of) or types.is_large_binary(of))
