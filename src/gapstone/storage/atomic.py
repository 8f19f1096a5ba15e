"""Files that appear whole or not at all."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gapstone.storage.paths import of_path

UNFINISHED = ".*.unfinished*"
"""Names of what a killed process leaves, for whoever sweeps a folder that only it writes to."""


@contextmanager
def atomic_file(path: Path, sync_its_folder: bool = True) -> Iterator[Path]:
    """A name beside `path`, with its ending, to write to; renamed to `path` at the end, or gone after an error.

        >>> with atomic_file(Path("results.json")) as unfinished:
        ...     unfinished.write_text("{}")

    The content is on disk before the file has its name, and the name before this returns. A link at `path` is replaced,
    not followed. sync_its_folder: False where many files are written to one folder, and `sync_folder` follows.

    Raises: OSError that names `path`, where the disk is full or the folder cannot be written to.
    """
    # the same folder: a rename cannot cross file systems; a short name: a long one may not get longer
    unfinished = path.with_name(f".{secrets.token_hex(8)}.unfinished{path.suffix}")
    try:
        with of_path(path, written_as=unfinished):
            # made here, so that nothing that waits under this name (a link, a pipe) is written to
            os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
            if sync_its_folder:
                sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, sync_its_folder: bool = True) -> None:
    with atomic_file(path, sync_its_folder) as unfinished, of_path(path, len(content)):
        unfinished.write_bytes(content)


def sync(path: Path) -> None:
    """Return when the content of a file is on disk."""
    _sync(path, os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Return when the names of the files in a folder are on disk."""
    _sync(folder, os.O_DIRECTORY)


def _sync(path: Path, flag: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        with of_path(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link (never what it points to); nothing where none is."""
    try:
        folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if folder:
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
