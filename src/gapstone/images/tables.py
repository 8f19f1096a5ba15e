"""The sources that are a table or an array: a CSV of paths and labels, an .npz of arrays, the built-in digits."""

import csv
import io
import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gapstone.disk import open_input

from .limits import check_table, check_unpacked
from .names import display
from .sources import SPLIT_WORDS, DataError, Item, Source, SplitName, number_classes, unique

ARRAYS = ("images", "labels", "classes", "split")
"""What is read of an .npz file."""


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8; their values 0…16 become 0…255."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    items = [Item(f"digits #{row}", int(label), None, None, row) for row, label in enumerate(target)]
    return Source("digits", "digits", tuple("0123456789"), items, array=pixels)


def open_csv(given: str, path: Path) -> Source:
    """`path,label[,split]`, in UTF-8 with or without a byte order mark; `;` and tab also separate."""
    shown = display(given)
    rows = read_rows(f"DATA {shown!r}", path)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    if "path" not in columns or "label" not in columns:
        raise DataError(
            f"DATA {shown!r}: its first line must name the columns path,label (and, if you like, split); "
            f"it is {display(','.join(columns)[:80]) or 'empty'!r}."
        )
    where, what = columns.index("path"), columns.index("label")
    which = columns.index("split") if "split" in columns else None
    found: list[tuple[int, str, str, SplitName | None]] = []
    for line, cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise DataError(f"DATA {shown!r}, line {line}: {len(cells)} cells, but {len(columns)} columns.")
        name, label = cells[where].strip(), cells[what].strip()
        if not name or not label or "\x00" in name:
            raise DataError(f"DATA {shown!r}, line {line}: the {'path' if label else 'label'} is empty or impossible.")
        split = None if which is None else _split(shown, line, cells[which])
        found.append((line, name, label, split))
    if not found:
        raise DataError(f"DATA {shown!r} has a header but no rows.")
    base = path.parent
    paths = [base / name for _, name, _, _ in found]
    if not any(os.path.lexists(p) for p in paths):
        raise DataError(
            f"DATA {shown!r}: none of its {len(paths)} paths exists. The first is {display(found[0][1])!r}, "
            f"looked up as {display(paths[0])!r}: paths are relative to the folder of the CSV file."
        )
    classes, numbers = number_classes([label for _, _, label, _ in found])
    names = unique([name for _, name, _, _ in found])
    items = [
        Item(shown_name, number, split, p, line)
        for shown_name, number, (line, _, _, split), p in zip(names, numbers, found, paths, strict=True)
    ]
    return Source(given, "csv", classes, items)


def read_rows(what: str, path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers, in UTF-8 with or without a byte order mark; `,`, `;` or tab separate.

    Raises DataError, which begins with `what` and the line: `--boxes 'boxes.csv', line 3: …`; PathError for what is no
    file.
    """
    with open_input(what, path) as file:
        check_table(what, os.fstat(file.fileno()).st_size)
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{what}, line {line}: no UTF-8; save the table as 'CSV UTF-8'.") from e
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)  # a comma where it is a draw
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader]
    except csv.Error as e:
        raise DataError(f"{what}, line {reader.line_num}: {e}") from e


def _split(shown: str, line: int, cell: str) -> SplitName | None:
    word = cell.strip().lower()
    if word and word not in SPLIT_WORDS:
        raise DataError(f"DATA {shown!r}, line {line}: split {display(cell)!r}; expected train, val or test.")
    return SPLIT_WORDS[word] if word else None


def open_npz(given: str, path: Path) -> Source:
    """`images`, `labels` and, if given, `classes` and `split`; never unpickled."""
    shown = display(given)
    arrays = _arrays(shown, path)
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
        splits = [_word(shown, row, str(word)) for row, word in enumerate(arrays["split"].tolist())]
    items = [
        Item(f"{split or 'image'} #{row}", number, split, None, row)
        for row, (number, split) in enumerate(zip(numbers, splits, strict=True))
    ]
    return Source(given, "npz", classes, items, array=pixels)


def _word(shown: str, row: int, word: str) -> SplitName:
    if word.strip().lower() not in SPLIT_WORDS:
        raise DataError(f"DATA {shown!r}: split[{row}] is {display(word)!r}; expected train, val or test.")
    return SPLIT_WORDS[word.strip().lower()]


def _arrays(shown: str, path: Path) -> dict[str, NDArray[np.generic]]:
    file = open_input(f"DATA {shown!r}", path)
    try:
        _check_headers(f"DATA {shown!r}", file)
        file.seek(0)
        with np.load(file, allow_pickle=False) as npz:
            for needed in ("images", "labels"):
                if needed not in npz.files:
                    has = ", ".join(sorted(map(display, npz.files))) or "nothing"
                    raise DataError(f"DATA {shown!r} has no {needed!r} array; it has {has}.")
            return {name: npz[name] for name in npz.files if name in ARRAYS}
    except DataError:
        raise
    except Exception as e:  # zipfile, zlib and numpy have many ways to refuse what is damaged
        raise DataError(f"DATA {shown!r} cannot be read as .npz ({e}); save it again with np.savez.") from e
    finally:
        file.close()


def _check_headers(what: str, npz: BinaryIO) -> None:
    """What the archive's and the arrays' headers claim, before any array is made.

    Raises DataError for more than may be unpacked, for arrays that their headers do not fit, and for pickled objects.
    """
    with zipfile.ZipFile(npz) as archive:
        members = [m for m in archive.infolist() if m.filename.removesuffix(".npy") in ARRAYS]
        check_unpacked(what, os.fstat(npz.fileno()).st_size, sum(member.file_size for member in members))
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                held = member.file_size - file.tell()
            if dtype.hasobject:
                raise DataError(f"{what}: {name} holds pickled objects, which are never loaded; save plain arrays.")
            if math.prod(shape) * dtype.itemsize != held:
                raise DataError(
                    f"{what}: {name} should have {math.prod(shape) * dtype.itemsize:,} bytes, as its header says "
                    f"{dtype} of shape {shape}, and has {held:,}; save it again with np.savez."
                )


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
    texts = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v) for v in labels.tolist()]
    if classes is None:
        return number_classes(texts)
    names = [str(c) for c in classes.tolist()]
    if len(set(names)) < len(names):
        raise DataError(f"DATA {shown!r}: classes names the same class twice.")
    if labels.dtype.kind in "iu":
        index = {str(k): k for k in range(len(names))}
    else:
        index = {name: k for k, name in enumerate(names)}
    wrong = next((t for t in texts if t not in index), None)
    if wrong is not None:
        raise DataError(f"DATA {shown!r}: label {display(wrong)!r} is not among its {len(names)} classes.")
    return _used(names, [index[t] for t in texts])


def _used(names: list[str], numbers: list[int]) -> tuple[tuple[str, ...], list[int]]:
    """Only the classes that have images, in the order given."""
    used = sorted(set(numbers))
    renumber = {old: new for new, old in enumerate(used)}
    return tuple(unique([names[k] for k in used])), [renumber[n] for n in numbers]
