"""Files that appear whole or not at all."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gapstone.storage.paths import path_in_errors

UNFINISHED = ".*.unfinished*"
"""A glob pattern of the temporary files that a killed process leaves behind."""


@contextmanager
def atomic_file(path: Path, sync_its_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to; rename it to `path` at the end, or delete it after an error.

        >>> with atomic_file(Path("results.json")) as unfinished:
        ...     unfinished.write_text("{}")

    The content is on disk before the file is renamed, and the new name is on disk before this returns (without
    `sync_its_folder`, once the caller of many writes calls `sync_folder`). A link at `path` is replaced, not followed.

    Raises:
        OSError: the disk is full or the folder cannot be written to; the error names `path`.
    """
    # in the same folder, because a rename cannot cross file systems; a short name, because `path.name` may be as long
    # as the file system allows
    unfinished = path.with_name(f".{secrets.token_hex(8)}.unfinished{path.suffix}")
    try:
        with path_in_errors(path, written_as=unfinished):
            # O_EXCL: whatever already has this name (a link, a pipe) is not written to
            os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
            if sync_its_folder:
                sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, sync_its_folder: bool = True) -> None:
    """Write `content` to `path` through `atomic_file`."""
    with atomic_file(path, sync_its_folder) as unfinished, path_in_errors(path, len(content)):
        unfinished.write_bytes(content)


def sync(path: Path) -> None:
    """Wait until the content of a file is on disk."""
    _sync(path, os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    _sync(folder, os.O_DIRECTORY)


def _sync(path: Path, flag: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        with path_in_errors(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link (not its target); do nothing if `path` does not exist."""
    try:
        is_folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if is_folder:
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
