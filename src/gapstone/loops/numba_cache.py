"""Numba's own disk cache, for functions that are called with arrays: in gapstone's private folder, its files checked.

Numba unpickles what it finds, and a damaged file would end every later run: files without a digest that fits are
removed before Numba looks, and compiled anew.
"""

import fcntl
import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import gapstone.loops  # noqa: F401

# gapstone.loops goes before Numba
# isort: split
import numba

from gapstone.loops import kernel_cache

F = TypeVar("F", bound=Callable[..., Any])
DIGESTS = "digests.json"


def compiled(function: F) -> F:
    """Machine code, for other compiled functions to call; other Python threads run meanwhile."""
    folder = _folder()
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, "" if folder is None else str(folder)
    try:
        made: F = numba.njit(cache=folder is not None, nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before
    return made


def kept(function: F) -> F:
    """A compiled function for Python to call: its first call in a process loads it from disk, or compiles and keeps it.

    Meanwhile other processes wait: what they would compile at the same time is there for them afterwards.
    """
    ready = False

    @wraps(function)
    def call(*args: Any) -> Any:
        nonlocal ready
        if ready:
            return function(*args)
        with _alone() as folder:
            if folder is not None:
                check(folder)
            found = function(*args)
            if folder is not None:
                seal(folder)
        ready = True
        return found

    return call  # type: ignore[return-value]


@lru_cache
def _folder() -> Path | None:
    """None where there is no safe place."""
    kernels = kernel_cache.folder()
    if kernels is None:
        return None
    folder = kernels / "numba"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


@contextmanager
def _alone() -> Iterator[Path | None]:
    """The folder, while no other process looks at it."""
    folder = _folder()
    try:
        lock = None if folder is None else os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        folder = lock = None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def check(folder: Path) -> None:
    """Remove what is not as it was sealed, and say so once; what a killed process left unsealed goes without a word."""
    known, damaged = _digests(folder), False
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if known.get(name) != _sha256(path):
            damaged |= name in known
            path.unlink()
    if damaged:
        warnings.warn(f"compiled code in {folder} is damaged; it is compiled anew.", RuntimeWarning, stacklevel=3)


def seal(folder: Path) -> None:
    """Note what every file is now."""
    try:
        found = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
        if found != _digests(folder):
            unfinished = folder / f".{secrets.token_hex(8)}.unfinished"
            unfinished.write_text(json.dumps(found), "utf-8")
            os.replace(unfinished, folder / DIGESTS)
    except OSError:  # no room, or swept meanwhile: compiled anew next time
        return


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc") and not path.is_dir()]


def _digests(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / DIGESTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
