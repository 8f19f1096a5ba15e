"""Files that are in several class folders, as links or as copies, are one image with several labels."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from gapstone.data.split_names import SplitName
from gapstone.storage.paths import PathError, open_input

File = tuple[str, str, SplitName | None]
"""A file: its path below the root, its class, its split."""
_END = 4096  # bytes: of images of the same size nearly all differ here


def joined_files(root: Path, files: list[File]) -> tuple[list[tuple[str, ...]], list[File]]:
    """(the classes of each image, its first file): those of one split with the same bytes in several classes are one.

    Copies in one and the same class stay what they are, duplicates. Links become copies when a folder is packed.

    ```python
    joined_files(root, [("cat/1.jpg", "cat", None), ("dog/1.jpg", "dog", None)])
    # ([("cat", "dog")], [("cat/1.jpg", "cat", None)]) if dog/1.jpg is a link to cat/1.jpg, or a copy
    ```
    """
    parts: list[list[int]] = [list(range(len(files)))]
    for key in (_size, _end, _content):
        # whether a file is alone is known by its size in most cases, which costs no reading
        parts = [part for several in parts for part in _parted(several, _keyed(root, files, key))]
    classes: dict[int, tuple[str, ...]] = {row: (files[row][1],) for row in range(len(files))}
    for part in parts:
        names = tuple(dict.fromkeys(files[row][1] for row in part))
        if len(names) > 1:
            for row in part[1:]:
                del classes[row]
            classes[part[0]] = names
    return list(classes.values()), [files[row] for row in classes]


def _keyed(root: Path, files: list[File], key: Callable[[Path], object]) -> Callable[[int], object]:
    return lambda row: (files[row][2], key(root / files[row][0]))


def _parted(rows: list[int], key: Callable[[int], object]) -> Iterable[list[int]]:
    if len(rows) == 1:
        return [rows]
    parts: dict[object, list[int]] = {}
    for row in rows:
        parts.setdefault(key(row), []).append(row)
    return parts.values()


def _size(path: Path) -> object:
    """A file's size; what is no file with content is like no other."""
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else path


def _end(path: Path) -> object:
    try:
        with open_input(str(path), path) as file:
            file.seek(-min(_END, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return file.read()
    except (OSError, PathError):
        return path


def _content(path: Path) -> object:
    try:
        with open_input(str(path), path) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.digest()
    except (OSError, PathError):
        return path
