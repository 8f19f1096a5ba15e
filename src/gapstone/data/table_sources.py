"""Opens sources that are a table, a CSV file of paths and labels, and the built-in digits."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed, spellings
from gapstone.data.groups import group_columns, not_read
from gapstone.data.label_forms import FoundLabels, cell_labels, indicator_labels
from gapstone.data.memory_limits import check_table
from gapstone.data.sources import DataError, Item, Source, SplitName, other_spellings, unique
from gapstone.data.split_names import split_name
from gapstone.storage.paths import open_input


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8; the values 0…16 become 0…255."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    items = [Item(f"digits #{row}", (int(label),), None, None, row) for row, label in enumerate(target)]
    return Source("digits", "digits", tuple("0123456789"), items, array=pixels)


def open_csv(given: str, path: Path, group: str | None = None, multi_label: bool = False) -> Source:
    """Open a CSV file with the columns `path,label[,split]`; `read_rows` says which encodings it may have.

    A column of 0 and 1 for each class may take the place of `label`. `Source.columns` has the column `group`, and those
    that look like groups.
    """
    shown = display(given)
    what = f"DATA {shown!r}"
    rows = read_rows(what, path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    columns = [name.lower() for name in header]
    kept = group_columns(shown, columns, group)
    found = None
    if "path" in columns and "label" not in columns and not _likely("label", header):
        others = {"path", "split", *(kept if group is not None else ())}
        found = indicator_labels(what, header, list(below_header(what, rows)), others, multi_label)
    indicators = [name.lower() for name in (found.order or ())] if found is not None else []
    kept = [name for name in kept if name not in indicators]
    notes = _check_columns(shown, header, [*kept, *indicators], found is None)
    body = list(below_header(what, rows))
    cells_of = {
        name: [cells[columns.index(name)].strip() for _, cells in body] for name in (*_READ, *kept) if name in columns
    }
    lines = [line for line, _ in body]
    if found is None:
        found = cell_labels(what, list(zip(lines, cells_of["label"], strict=True)), multi_label)
    for line, name in zip(lines, cells_of["path"], strict=True):
        if not name or "\x00" in name:
            raise DataError(f"{what}, line {line}: the path is empty or impossible.")
    splits = _splits(what, lines, cells_of.get("split"))
    paths, path_notes = _paths(what, path.parent, cells_of["path"])
    used = list(range(len(lines)))
    if found.why is not None:
        same = {"split": splits} | ({name: cells_of[name] for name in kept} if group is not None else {})
        found, used = _joined(what, found, lines, paths, same)
    classes, sets, label_notes = found.numbered()
    names = unique([paths[row] for row in used])
    items = [
        Item(name, labels, splits[row], path.parent / paths[row], lines[row])
        for name, labels, row in zip(names, sets, used, strict=True)
    ]
    spelled = other_spellings([label for labels in found.sets for label in labels])
    return Source(
        given,
        "csv",
        classes,
        items,
        (*notes, *path_notes, *label_notes, *spelled),
        columns={name: [composed(cells_of[name][row]) for row in used] for name in kept},
        multi_label=found.why is not None,
        hints=(*found.told(), *found.hints),
    )


def _paths(what: str, base: Path, written: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the paths as they are spelled on disk, notes)."""
    names = [_on_disk(base, name) for name in written]
    if not any(os.path.lexists(base / name) for name in names):
        raise DataError(
            f"{what}: none of its {len(names)} paths exists. The first is {display(written[0])!r}, "
            f"looked up as {display(base / names[0])!r}: paths are relative to the folder of the CSV file."
        )
    replaced = sum("\\" in before and before != after for before, after in zip(written, names, strict=True))
    if not replaced:
        return names, []
    return names, [f"{count_noun(replaced, 'path')} with backslashes, as Windows writes them, read as with /"]


def _splits(what: str, lines: Sequence[int], words: Sequence[str] | None) -> list[SplitName | None]:
    """The split of each row; None where its cell is empty."""
    if words is None:
        return [None] * len(lines)
    known = split_name(words)
    for line, word in zip(lines, words, strict=True):
        if word and word not in known:
            raise DataError(f"{what}, line {line}: split {display(word)!r}; expected train, val or test.")
    return [known.get(word) for word in words]


def _joined(
    what: str, found: FoundLabels, lines: Sequence[int], paths: Sequence[str], same: Mapping[str, Sequence[object]]
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
                    f"{what}, line {lines[row]}: {name} is {display(str(cells[row] or ''))!r}, but line {lines[at]} "
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


_READ = ("path", "label", "split")
_OTHER_WORDS = {
    "path": ("file", "filename", "file_name", "filepath", "image", "img", "image_path", "name", "id", "image_id"),
    "label": ("class", "target", "category", "y", "species", "labels"),
    "split": ("set", "subset", "partition", "fold", "phase", "usage", "data_set", "dataset"),
}


def _likely(name: str, header: Sequence[str]) -> str | None:
    """The column that may be meant where `name` is missing."""
    return next((column for column in header if column.lower() in _OTHER_WORDS[name]), None)


def _check_columns(shown: str, header: Sequence[str], kept: Sequence[str], labelled: bool) -> list[str]:
    """Notes on columns that are neither read nor `kept`. Raises DataError if a column is missing or occurs twice.

    `labelled` says whether there has to be a column label.
    """
    columns = [name.lower() for name in header]
    needed = ("path", "label") if labelled else ("path",)
    if missing := [name for name in needed if name not in columns]:
        hint = ""
        for name in missing:
            if likely := _likely(name, header):
                hint += f" Is {display(likely)!r} the {name}? Then rename it."
        raise DataError(
            f"DATA {shown!r}: its first line must name the columns path,label (and, if you like, split), or path and a "
            f"column of 0 and 1 for each of at least two classes; it is "
            f"{display(','.join(columns)[:80]) or 'empty'!r}.{hint}"
        )
    notes = []
    for name in dict.fromkeys(columns):
        times, is_read = columns.count(name), name in (*needed, "split")
        if is_read and times > 1:
            raise DataError(f"DATA {shown!r}: the column {name!r} is there {times} times; keep one.")
        if not is_read and name not in kept:
            use = ""
            if name in _OTHER_WORDS["split"] and "split" not in columns:
                use = "; named split, it would say which images train, validate and test"
            notes.append(not_read(name, use))
    return notes


def _on_disk(base: Path, name: str) -> str:
    """The spelling of the name that exists on disk; the name itself if none does."""
    if name.isascii() and "\\" not in name:
        return name
    return next((spelled for spelled in spellings(name) if os.path.lexists(base / spelled)), name)


def read_rows(what: str, path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers.

    The file is in UTF-8, with or without a byte order mark, or in UTF-16 with one; `,`, `;`, `|` or tab separate.

    Raises:
        DataError: it is no such table; the message begins with `what` and the line: `--boxes 'boxes.csv', line 3: …`.
        PathError: it is no regular file.
    """
    with open_input(what, path) as file:
        check_table(what, os.fstat(file.fileno()).st_size)
        data = file.read()
    try:
        # Excel's "Unicode text" is UTF-16 with a byte order mark
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{what}, line {line}: no UTF-8; save the table as 'CSV UTF-8'.") from e
    header = re.split(r"\r\n?|\n", text, maxsplit=1)[0]
    first = 0
    if separator := re.fullmatch(r'"?sep=([,;|\t])"?', header):  # Excel may write this line before the header
        delimiter, first = separator[1], 1
    else:
        delimiter = max(",;\t|", key=header.count)  # a comma, if none occurs more often
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader][first:]
    except csv.Error as e:
        raise DataError(f"{what}, line {reader.line_num}: {e}") from e


def below_header(what: str, rows: list[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, without blank ones. Raises DataError if there are none, or at one of other length."""
    columns, body = len(rows[0][1]), [row for row in rows[1:] if any(cell.strip() for cell in row[1])]
    if not body:
        raise DataError(f"{what} has a header but no rows.")
    for line, cells in body:
        if len(cells) != columns:
            raise DataError(f"{what}, line {line}: {len(cells)} cells, but {columns} columns.")
        yield line, cells
