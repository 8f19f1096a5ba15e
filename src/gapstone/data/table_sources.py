"""Opens sources that are a table, a CSV file of paths and labels, and the built-in digits."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed, spellings
from gapstone.data.groups import NOTHING_ASKED, AskedColumns, kept_columns
from gapstone.data.label_forms import FoundLabels, cell_labels, indicator_labels
from gapstone.data.read_table import Rows, below_header, read_rows
from gapstone.data.sources import DataError, Item, Kind, Source, SplitName, other_spellings, unique
from gapstone.data.split_names import split_name
from gapstone.data.table_columns import READ, canonical, check_columns

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG", ".TIF", ".npy")


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8; the values 0…16 become 0…255."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    items = [Item(f"digits #{row}", (int(label),), None, None, row) for row, label in enumerate(target)]
    return Source("digits", "digits", tuple("0123456789"), items, array=pixels)


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, wherever they come from."""

    given: str
    kind: Kind
    header: Sequence[str]
    body: Rows
    base: Path
    """Paths are relative to this folder."""
    relative: str
    """The folder in words: "the folder of the CSV file"."""
    place: str = "line {}"
    """How a row is called in messages."""
    notes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        return f"DATA {display(self.given)!r}"

    def where(self, row: int) -> str:
        """The beginning of a message about a row, by its line."""
        return f"{self.what}, {self.place.format(row)}"


def open_csv(given: str, path: Path, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open a CSV file with the columns `path,label[,split]`; `read_rows` says which encodings it may have."""
    return open_table(read_csv(given, path), asked, multi_label)


def read_csv(given: str, path: Path) -> Table:
    """The table in a CSV file. Raises DataError if it is none."""
    notes: list[str] = []
    what = f"DATA {display(given)!r}"
    rows = read_rows(what, path, notes)
    header = [name.strip() for name in rows[0][1]] if rows else []
    body = list(below_header(what, rows)) if any(header) else []
    return Table(given, "csv", header, body, path.parent, "the folder of the CSV file", notes=tuple(notes))


def open_table(table: Table, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """The source of a table with the columns `path,label[,split]`, or the usual other words for them.

    A column of 0 and 1 for each class may take the place of `label`. `Source.columns` has the columns that are `asked`
    for, and those that look like groups.
    """
    what = table.what
    kept = kept_columns(display(table.given), [name.lower() for name in table.header], asked)
    columns, named = canonical(table.what, table.header, table.body, asked.names)
    found = None
    if "path" in columns and "label" not in columns:
        others = {"path", "split", *asked.names}
        header = [name if columns[k] not in others else columns[k] for k, name in enumerate(table.header)]
        found = indicator_labels(what, header, table.body, others, multi_label, table.place)
    indicators = [name.lower() for name in (found.order or ())] if found is not None else []
    kept = [name for name in kept if name not in indicators and name in columns]
    notes = check_columns(table.what, columns, table.header, [*kept, *indicators], found is None)
    read = [name for name in (*READ, *kept) if name in columns]
    cells_of = {name: [cells[columns.index(name)].strip() for _, cells in table.body] for name in read}
    lines = [line for line, _ in table.body]
    if found is None:
        found = cell_labels(what, list(zip(lines, cells_of["label"], strict=True)), multi_label, table.place)
    for line, name in zip(lines, cells_of["path"], strict=True):
        if not name or "\x00" in name:
            raise DataError(f"{table.where(line)}: the path is empty or impossible.")
    splits = _splits(table, lines, cells_of.get("split"))
    paths, path_notes = _paths(table, cells_of["path"])
    used = list(range(len(lines)))
    if found.why is not None:
        same = {"split": splits} | {name: cells_of[name] for name in asked.names if name in cells_of}
        found, used = _joined(table, found, lines, paths, same)
    classes, sets, label_notes = found.numbered()
    names = unique([paths[row] for row in used])
    items = [
        Item(name, labels, splits[row], table.base / paths[row], lines[row])
        for name, labels, row in zip(names, sets, used, strict=True)
    ]
    spelled = other_spellings([label for labels in found.sets for label in labels])
    return Source(
        table.given,
        table.kind,
        classes,
        items,
        (*table.notes, *named, *notes, *path_notes, *label_notes, *spelled),
        columns={name: [composed(cells_of[name][row]) for row in used] for name in kept},
        multi_label=found.why is not None,
        hints=(*found.told(), *found.hints),
    )


def _paths(table: Table, written: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the paths as they are spelled on disk, notes)."""
    base = table.base
    names = [_on_disk(base, name) for name in written]
    if not any(os.path.lexists(base / name) for name in names):
        suffix = next((s for s in _SUFFIXES if os.path.lexists(base / f"{names[0]}{s}")), None) if names else None
        if suffix is None:
            raise DataError(
                f"{table.what}: none of its {len(names)} paths exists. The first is {display(written[0])!r}, "
                f"looked up as {display(base / names[0])!r}: paths are relative to {table.relative}."
            )
        return [f"{name}{suffix}" for name in names], [f"paths without a suffix, read with {suffix}"]
    replaced = sum("\\" in before and before != after for before, after in zip(written, names, strict=True))
    if not replaced:
        return names, []
    return names, [f"{count_noun(replaced, 'path')} with backslashes, as Windows writes them, read as with /"]


def _splits(table: Table, lines: Sequence[int], words: Sequence[str] | None) -> list[SplitName | None]:
    """The split of each row; None where its cell is empty."""
    if words is None:
        return [None] * len(lines)
    known = split_name(words)
    for line, word in zip(lines, words, strict=True):
        if word and word not in known:
            raise DataError(f"{table.where(line)}: split {display(word)!r}; expected train, val or test.")
    return [known.get(word) for word in words]


def _joined(
    table: Table, found: FoundLabels, lines: Sequence[int], paths: Sequence[str], same: Mapping[str, Sequence[object]]
) -> tuple[FoundLabels, list[int]]:
    """(the labels of each path, the first row of each): the rows of a path have all of its labels together.

    Raises DataError if they differ in one of the columns that have to be the `same`.
    """
    first: dict[str, int] = {}
    sets: dict[int, tuple[str, ...]] = {}
    for row, path in enumerate(paths):
        at = first.setdefault(os.path.normpath(path), row)
        for name, cells in same.items():
            if cells[at] != cells[row]:
                raise DataError(
                    f"{table.where(lines[row])}: {name} is {display(str(cells[row] or ''))!r}, but "
                    f"{table.place.format(lines[at])} "
                    f"says {display(str(cells[at] or ''))!r} of the same path, {display(path)!r}; an image has one "
                    f"{name}."
                )
        sets[at] = (*sets.get(at, ()), *found.sets[row])
    used = list(sets)
    if len(used) == len(paths):
        return found, used
    times = Counter(os.path.normpath(path) for path in paths)
    several = sum(count > 1 for count in times.values())
    note = f"{count_noun(several, 'path')} in several rows, read as one image with all of their labels"
    return replace(found, sets=[sets[row] for row in used], notes=(*found.notes, note)), used


def _on_disk(base: Path, name: str) -> str:
    """The spelling of the name that exists on disk; the name itself if none does."""
    if name.isascii() and "\\" not in name:
        return name
    return next((spelled for spelled in spellings(name) if os.path.lexists(base / spelled)), name)
