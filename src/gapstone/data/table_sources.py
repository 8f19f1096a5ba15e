"""Opens sources that are a table or an array: a CSV of paths and labels, an .npz of arrays, the built-in digits."""

import csv
import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed, spellings
from gapstone.data.groups import not_read, suggests_groups
from gapstone.data.memory_limits import check_table, check_unpacked
from gapstone.data.sources import DataError, Item, Source, SplitName, number_classes, other_spellings, unique
from gapstone.data.split_names import split_name
from gapstone.storage.paths import open_input

ARRAYS = ("images", "labels", "classes", "split")
"""The arrays that are read from an .npz file."""


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8; the values 0…16 become 0…255."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    items = [Item(f"digits #{row}", (int(label),), None, None, row) for row, label in enumerate(target)]
    return Source("digits", "digits", tuple("0123456789"), items, array=pixels)


def open_csv(given: str, path: Path, group: str | None = None) -> Source:
    """Open a CSV file with the columns `path,label[,split]`; `read_rows` says which encodings it may have.

    `Source.columns` has the column `group`, and those that look like groups.
    """
    shown = display(given)
    rows = read_rows(f"DATA {shown!r}", path)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    kept = _group_columns(shown, columns, group)
    notes = _check_columns(shown, columns, rows[0][1] if rows else [], kept)
    path_column, label_column = columns.index("path"), columns.index("label")
    split_column = columns.index("split") if "split" in columns else None
    entries: list[tuple[int, str, str, str]] = []  # line, path, label, split
    for line, cells in below_header(f"DATA {shown!r}", rows):
        name, label = cells[path_column].strip(), cells[label_column].strip()
        if not name or not label or "\x00" in name:
            raise DataError(f"DATA {shown!r}, line {line}: the {'path' if label else 'label'} is empty or impossible.")
        entries.append((line, name, label, "" if split_column is None else cells[split_column].strip()))
    splits = split_name(word for _, _, _, word in entries)
    for line, _, _, word in entries:
        if word and word not in splits:
            raise DataError(f"DATA {shown!r}, line {line}: split {display(word)!r}; expected train, val or test.")
    base = path.parent
    written = [name for _, name, _, _ in entries]
    names = [_on_disk(base, name) for name in written]
    paths = [base / name for name in names]
    if not any(os.path.lexists(p) for p in paths):
        raise DataError(
            f"DATA {shown!r}: none of its {len(paths)} paths exists. The first is {display(written[0])!r}, "
            f"looked up as {display(paths[0])!r}: paths are relative to the folder of the CSV file."
        )
    replaced = sum("\\" in before and before != after for before, after in zip(written, names, strict=True))
    if replaced:
        notes.append(f"{count_noun(replaced, 'path')} with backslashes, as Windows writes them, read as with /")
    labels = [label for _, _, label, _ in entries]
    classes, numbers = number_classes(labels)
    places = [columns.index(name) for name in kept]
    body = [cells for _, cells in below_header(f"DATA {shown!r}", rows)] if kept else []
    cells_of = {name: [composed(cells[at].strip()) for cells in body] for name, at in zip(kept, places, strict=True)}
    items = [
        Item(shown_name, (number,), splits.get(word), p, line)
        for shown_name, number, (line, _, _, word), p in zip(unique(names), numbers, entries, paths, strict=True)
    ]
    return Source(given, "csv", classes, items, (*notes, *other_spellings(labels)), columns=cells_of)


_OTHER_WORDS = {
    "path": ("file", "filename", "file_name", "filepath", "image", "img", "image_path", "name", "id", "image_id"),
    "label": ("class", "target", "category", "y", "species", "labels"),
    "split": ("set", "subset", "partition", "fold", "phase", "usage", "data_set", "dataset"),
}


def _group_columns(shown: str, columns: Sequence[str], group: str | None) -> list[str]:
    """The column that groups are named in, or those that look as if they were. Raises DataError if there is none."""
    if group is None:
        return [name for name in dict.fromkeys(columns) if suggests_groups(name)]
    name = group.strip().lower()
    if (times := columns.count(name)) != 1:
        has = ", ".join(map(display, dict.fromkeys(columns))) or "nothing"
        what = f"{times} columns {display(group)!r}: keep one" if times else f"no column {display(group)!r}"
        raise DataError(f"--group {display(group)}: DATA {shown!r} has {what}; it has {has}.")
    return [name]


def _check_columns(shown: str, columns: list[str], header: list[str], kept: Sequence[str]) -> list[str]:
    """Notes on columns that are neither read nor `kept`. Raises DataError if a column is missing or occurs twice."""
    needed = ("path", "label")
    if missing := [name for name in needed if name not in columns]:
        hint = ""
        for name in missing:
            if likely := next((h.strip() for h in header if h.strip().lower() in _OTHER_WORDS[name]), None):
                hint += f" Is {display(likely)!r} the {name}? Then rename it."
        raise DataError(
            f"DATA {shown!r}: its first line must name the columns path,label (and, if you like, split); "
            f"it is {display(','.join(columns)[:80]) or 'empty'!r}.{hint}"
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


def open_npz(given: str, path: Path, group: str | None = None) -> Source:
    """Open an .npz file with `images`, `labels` and, optionally, `classes` and `split`; nothing is unpickled.

    `Source.columns` has the array `group`, and those that look like groups.
    """
    shown = display(given)
    arrays = _arrays(shown, path, group)
    pixels = _pixels(shown, arrays["images"])
    labels = arrays["labels"]
    if labels.shape != (len(pixels),):
        raise DataError(
            f"DATA {shown!r}: {len(pixels)} images, but labels of shape {labels.shape}; expected ({len(pixels)},)."
        )
    classes, numbers = _labels(shown, labels, arrays.get("classes"))
    splits: list[SplitName | None] = [None] * len(pixels)
    if "split" in arrays:
        if arrays["split"].shape != labels.shape:
            raise DataError(f"DATA {shown!r}: split has shape {arrays['split'].shape}; expected {labels.shape}.")
        words = [_text(word).strip() for word in arrays["split"].tolist()]
        known = split_name(words)
        if wrong := next(((row, word) for row, word in enumerate(words) if word not in known), None):
            raise DataError(f"DATA {shown!r}: split[{wrong[0]}] is {display(wrong[1])!r}; expected train, val or test.")
        splits = [known[word] for word in words]
    items = [
        Item(f"{split or 'image'} #{row}", (number,), split, None, row)
        for row, (number, split) in enumerate(zip(numbers, splits, strict=True))
    ]
    columns = {
        name.lower(): _cells(shown, name, array, len(pixels), asked=group is not None)
        for name, array in arrays.items()
        if (name.lower() == group.strip().lower() if group is not None else name not in ARRAYS)
    }
    return Source(given, "npz", classes, items, array=pixels, columns={k: v for k, v in columns.items() if v})


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
                grouped = _group_columns(shown, [name.lower() for name in members], group)
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
    shown: str, labels: NDArray[np.generic], classes: NDArray[np.generic] | None
) -> tuple[tuple[str, ...], list[int]]:
    if labels.dtype.kind not in "iuUS":
        raise DataError(f"DATA {shown!r}: labels is {labels.dtype}; expected whole numbers or strings.")
    texts = [composed(_text(v)) for v in labels.tolist()]
    if classes is None:
        return number_classes(texts)
    if classes.ndim != 1:
        raise DataError(f"DATA {shown!r}: classes has shape {classes.shape}; expected one name per class.")
    names = [composed(_text(c)) for c in classes.tolist()]
    if len(set(names)) < len(names):
        raise DataError(f"DATA {shown!r}: classes names the same class twice.")
    index = {str(k) if labels.dtype.kind in "iu" else name: k for k, name in enumerate(names)}
    wrong = next((t for t in texts if t not in index), None)
    if wrong is not None:
        raise DataError(f"DATA {shown!r}: label {display(wrong)!r} is not among its {len(names)} classes.")
    used = sorted({index[t] for t in texts})  # classes without images are left out
    renumber = {old: new for new, old in enumerate(used)}
    return tuple(unique([names[k] for k in used])), [renumber[index[t]] for t in texts]
