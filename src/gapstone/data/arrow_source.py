"""Opens sources that are Arrow tables of images: parquet files, folders of `save_to_disk`, Datasets of Hugging Face.

The bytes of the images are not decoded by `datasets`: they are read as those of files are, with the same checks and the
same hashes.
"""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapstone.console.formatting import count_noun, display
from gapstone.data.array_source import label_arrays
from gapstone.data.arrow_columns import ArrowColumn, columns_of, image_column, label_column
from gapstone.data.arrow_parts import ArrowFilePart, ArrowImages, ArrowPart, DatasetPart, ParquetPart
from gapstone.data.file_names import composed
from gapstone.data.groups import NOTHING_ASKED, AskedColumns, kept_columns
from gapstone.data.label_forms import FoundLabels, cell_labels
from gapstone.data.python_objects import splits_of
from gapstone.data.shard_files import place_of, shard_files, shard_splits
from gapstone.data.sources import DataError, Item, Kind, Source, SplitName, few, unique
from gapstone.data.split_names import split_name

PARQUET = ".parquet"
_STATE, _DICTIONARY = "state.json", "dataset_dict.json"


def holds_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / _STATE).is_file() or (folder / _DICTIONARY).is_file()


def open_parquet(given: str, path: Path, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open a parquet file, or a folder of them; train-00000-of-00002.parquet names its split."""
    what = f"DATA {display(given)!r}"
    _check_pyarrow(what)
    files = shard_files(path, PARQUET)
    splits = shard_splits(what, files)
    parts = [ParquetPart(what, file, place_of(path, file), splits[file]) for file in files]
    return _open_parts(given, "parquet", parts, asked, multi_label)


def open_saved_dataset(
    given: str, path: Path, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False
) -> Source:
    """Open a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    what = f"DATA {display(given)!r}"
    _check_pyarrow(what)
    names = [""]
    if (path / _DICTIONARY).is_file():
        names = _texts(what, _DICTIONARY, _json(what, path / _DICTIONARY).get("splits"))
    known = split_name(names)
    if len(names) > 1 and len(known) < len(names):
        raise DataError(f"{what} holds the splits {few(names)}; expected train and, if you like, val and test.")
    parts: list[ArrowPart] = []
    for name in names:
        state = _json(what, path / name / _STATE)
        if state.get("_indices_data_files"):
            raise DataError(
                f"{what} was saved by datasets before version 2 with rows selected: load it there, and save "
                "dataset.flatten_indices()."
            )
        files = state.get("_data_files")
        if isinstance(files, list):
            files = [file.get("filename") if isinstance(file, dict) else None for file in files]
        for file in _texts(what, _STATE, files):
            place = f"{name}/{file}" if name else file
            parts.append(ArrowFilePart(what, path / place, place, known.get(name) if len(names) > 1 else None))
    return _open_parts(given, "arrow", parts, asked, multi_label)


def open_hf_dataset(given: str, data: Any, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open a Dataset, a DatasetDict, or a dictionary of Datasets of Hugging Face's `datasets`."""
    parts = [DatasetPart(split or "", dataset, split) for split, dataset in (splits_of(data) or {None: data}).items()]
    notes = []
    if any(dataset.format["type"] == "custom" for dataset in (data.values() if isinstance(data, dict) else [data])):
        notes.append(
            "the transform of the Dataset is not used: gapstone resizes, normalises and augments images itself"
        )
    return _open_parts(given, "arrow", parts, asked, multi_label, notes)


def _open_parts(
    given: str,
    kind: Kind,
    parts: Sequence[ArrowPart],
    asked: AskedColumns,
    multi_label: bool,
    notes: Sequence[str] = (),
) -> Source:
    what = f"DATA {display(given)!r}"
    parts = [part for part in parts if sum(part.blocks)]
    if not parts:
        raise DataError(f"{what} has no rows.")
    columns = columns_of(parts[0].schema)
    kinds = ("value", "number")
    named = {column.name.lower(): column.name for column in columns if column.kind in kinds and not column.is_list}
    kept = kept_columns(display(given), list(named), asked)
    image = image_column(what, columns)
    label = label_column(what, columns, [*kept, "split"])
    for part in parts[1:]:
        own = {column.name: column for column in columns_of(part.schema)}
        if any(name not in own or own[name].kind != of.kind for name, of in ((image.name, image), (label.name, label))):
            raise DataError(
                f"{what}: {display(part.place)} has other columns than {display(parts[0].place)}: "
                f"{display(', '.join(own))}, not {display(', '.join(column.name for column in columns))}."
            )
    labels = [value for part in parts for value in _label_values(part, label.name)]
    rows = [row for row, value in enumerate(labels) if value is not None]
    if not rows:
        raise DataError(f"{what}: column {display(label.name)!r} has no label.")
    found = _labels(what, label, {row: labels[row] for row in rows}, multi_label, _order(parts, label.name))
    classes, sets, label_notes = found.numbered()
    names = _names(parts, image)
    splits = _splits(parts, named.get("split"))
    shown = unique([names[row] for row in rows])
    items = [Item(name, of, splits[row], None, row) for name, of, row in zip(shown, sets, rows, strict=True)]
    read = [f"columns read: {display(image.name)!r} as image, {display(label.name)!r} as label"]
    if (image.name, label.name) == ("image", "label"):
        read = []
    missing = len(labels) - len(rows)
    left_out = [f"{count_noun(missing, 'image')} without a label left out"] if missing else []
    cells = {name: [value for part in parts for value in part.values(named[name])] for name in kept}
    return Source(
        given,
        kind,
        classes,
        items,
        (*notes, *read, *left_out, *label_notes),
        encoded=ArrowImages(parts, image),
        columns={name: [_cell(of[row]) for row in rows] for name, of in cells.items()},
        multi_label=found.why is not None,
        hints=(*found.told(), *found.hints),
    )


def _label_values(part: ArrowPart, name: str) -> list[Any]:
    """The labels of a part, classes by their names; None where there is none, or it is −1."""
    column = next(column for column in columns_of(part.schema) if column.name == name)
    values, names = part.values(name), column.names
    if not names:
        return values

    def named(number: int | None) -> str | None:
        if number is not None and number >= len(names):
            raise DataError(f"{display(part.place)}: column {display(name)!r} has {number}, of {len(names)} classes.")
        return None if number is None or number < 0 else names[number]

    if not column.is_list:
        return [named(number) for number in values]
    return [
        None if cell is None else [text for number in cell if (text := named(number)) is not None] for cell in values
    ]


def _splits(parts: Sequence[ArrowPart], column: str | None) -> list[SplitName | None]:
    """The split of each row: that of its part, or what a column split says in all rows."""
    given = [part.split for part in parts for _ in range(sum(part.blocks))]
    if column is None or any(given):
        return given
    cells = [_cell(value) for part in parts for value in part.values(column)]
    known = split_name(cells)
    return [known[cell] for cell in cells] if set(known) == set(cells) and "train" in known.values() else given


def _order(parts: Sequence[ArrowPart], name: str) -> tuple[str, ...] | None:
    """The names of the classes, in their order; None where parts have several, or none."""
    found = {column.names for part in parts for column in columns_of(part.schema) if column.name == name}
    return next(iter(found)) or None if len(found) == 1 else None


def _labels(
    what: str, column: ArrowColumn, labels: Mapping[int, Any], multi_label: bool, order: tuple[str, ...] | None
) -> FoundLabels:
    """The labels of each image; `labels` are by row."""
    shown, values = display(column.name), list(labels.values())
    if not column.is_list:
        if column.names:
            return FoundLabels([(name,) for name in values], "--multi-label" if multi_label else None, order)
        return cell_labels(what, [(row, _cell(value)) for row, value in labels.items()], multi_label, "row {}")
    lengths = {len(value) for value in values}
    if not column.names and len(lengths) == 1 and max(lengths) > 1 and all(set(value) <= {0, 1} for value in values):
        return label_arrays(what, len(values), np.asarray(values), None, multi_label)
    if lengths == {1} and not multi_label:
        raise DataError(
            f"{what}: column {shown!r} holds lists, each with one label. If an image has one label, store it without "
            "the list; if it may have several: --multi-label."
        )
    return FoundLabels([tuple(map(_cell, value)) for value in values], f"lists in the column {shown!r}", order)


def _names(parts: Sequence[ArrowPart], image: ArrowColumn) -> list[str]:
    """What the images are called: the place of their part with their own path, or their number there."""
    each = [part.paths(image.name) if image.is_struct else [None] * sum(part.blocks) for part in parts]
    known = [path for paths in each for path in paths if path]
    if known and all(map(os.path.isabs, known)) and len(known) == sum(map(len, each)):  # files of a folder
        base = os.path.commonpath(list(map(os.path.dirname, known)))
        return [os.path.relpath(path, base) for path in known]
    names = []
    for part, paths in zip(parts, each, strict=True):
        prefix = f"{part.place}/" if part.place else ""
        names += [f"{prefix}{path}" if path else f"{part.place or 'image'} #{k}" for k, path in enumerate(paths)]
    return names


def _cell(value: object) -> str:
    return "" if value is None else composed(str(value).strip())


def _json(what: str, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{what}: {display(file.name)} cannot be read ({display(str(error), 120)}).") from error
    if not isinstance(document, dict):
        raise DataError(f"{what}: {display(file.name)} is none that save_to_disk writes.")
    return document


def _texts(what: str, file: str, values: object) -> list[str]:
    """Names of files or folders beside `file`. Raises DataError for anything else, as for those elsewhere."""
    if not isinstance(values, list) or any(not isinstance(name, str) or Path(name).name != name for name in values):
        raise DataError(f"{what}: {file} is none that save_to_disk writes.")
    return values


def _check_pyarrow(what: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"{what} needs pyarrow to be read: pip install 'gapstone[datasets]'.")
