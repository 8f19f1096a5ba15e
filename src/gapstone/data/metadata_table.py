"""A folder of images with metadata.csv or metadata.jsonl, as Hugging Face's `imagefolder` has them, as one table.

The file lies in the folder, or in each of its train/, val/, test/; file names are relative to where it lies.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.data.file_names import bytes_of, is_folder, is_system
from gapstone.data.label_forms import SEPARATOR
from gapstone.data.memory_limits import check_table
from gapstone.data.read_table import Rows
from gapstone.data.sources import DataError
from gapstone.data.split_names import split_name
from gapstone.data.table_columns import OTHER_WORDS
from gapstone.data.table_sources import Table, read_csv
from gapstone.storage.paths import open_input

_FILES = ("metadata.csv", "metadata.jsonl")
_LABELS = {"label", *OTHER_WORDS["label"][0], *OTHER_WORDS["label"][1]}


def find_table(given: str, folder: Path) -> Table | None:
    """The table of a folder; None where it has none, or where class folders say the labels and the table does not.

    Raises:
        DataError: a file cannot be read, or only some of the splits have one.
    """
    with os.scandir(folder) as entries:
        inside = sorted((e.name for e in entries if is_folder(e) and not is_system(e.name)), key=bytes_of)
    splits = split_name(inside)
    if (file := _metadata_in(folder)) is not None:
        tables = {"": _read(given, file)}
    else:
        found = {name: file for name in splits if (file := _metadata_in(folder / name)) is not None}
        if not found:
            return None
        tables = {name: _read(given, file) for name, file in found.items()}
        if missing := [name for name in splits if name not in found]:
            raise DataError(
                f"DATA {display(given)!r}: {display(next(iter(found)))} has a metadata file, {display(missing[0])} has "
                "none; give each split one, or one to the whole folder."
            )
    header = list(dict.fromkeys(name.lower() for table in tables.values() for name in table.header))
    if inside and not _LABELS & set(header) and not _is_indicator_table(tables):
        return None
    several = len(tables) > 1
    body: Rows = []
    for name, table in tables.items():
        columns = [column.lower() for column in table.header]
        for line, cells in table.body:
            row = dict(zip(columns, cells, strict=True))
            if name and row.get("file_name"):
                row["file_name"] = f"{name}/{row['file_name']}"
            body.append((line, [*(row.get(column, "") for column in header), *([splits[name]] if several else [])]))
    notes = tuple(note for table in tables.values() for note in table.notes)
    columns = [*header, *(["split"] if several else [])]
    return Table(given, "metadata", columns, body, folder, "the folder of the metadata", notes=notes)


def _is_indicator_table(tables: dict[str, Table]) -> bool:
    """Whether some columns hold nothing but 0 and 1, which may be classes."""
    first = next(iter(tables.values()))
    cells = [{row[k] for _, row in first.body} for k in range(len(first.header))]
    return sum(bool(values) and values <= {"0", "1"} for values in cells) > 1


def _metadata_in(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def _read(given: str, file: Path) -> Table:
    table = read_csv(given, file) if file.suffix == ".csv" else _read_lines(given, file)
    if "file_name" not in [name.lower() for name in table.header]:
        raise DataError(
            f"{table.what}: {file.name} has no column file_name; it has "
            f"{display(', '.join(table.header), 80) or 'none'}."
        )
    return table


def _read_lines(given: str, file: Path) -> Table:
    """A file with a JSON object in each line."""
    what = f"DATA {display(given)!r}: {file.name}"
    with open_input(what, file) as opened:
        check_table(what, os.fstat(opened.fileno()).st_size)
        lines = opened.read().decode("utf-8-sig", "replace").split("\n")
    objects: list[tuple[int, dict[str, object]]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{what}, line {number} is no JSON: {display(str(error), 80)}.") from error
            if not isinstance(value, dict):
                raise DataError(f"{what}, line {number} is no object; expected {{'file_name': …, 'label': …}}.")
            objects.append((number, value))
    header = list(dict.fromkeys(name for _, value in objects for name in value))
    body = [
        (number, [_cell(f"{what}, line {number}", value.get(name)) for name in header]) for number, value in objects
    ]
    return Table(given, "metadata", header, body, file.parent, "the folder of the metadata")


def _cell(where: str, value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = list(map(str, value))
        if wrong := next((part for part in parts if SEPARATOR in part), None):
            raise DataError(f"{where}: a list holds {display(wrong)!r}: no {SEPARATOR} in a label.")
        return SEPARATOR.join(parts)
    return "" if value is None else str(value)
