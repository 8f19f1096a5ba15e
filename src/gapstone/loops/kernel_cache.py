"""Compiled kernels on disk: one file each in a private folder of the user's, with a digest that is checked when read.

Nothing here is unpickled, and no place can be chosen but by `GAPSTONE_CACHE` (see `cache_folder`). A folder that
somebody else could write to is not used: a kernel is machine code.
"""

import hashlib
import os
import secrets
import stat
import warnings
from functools import lru_cache
from pathlib import Path

from gapstone.storage.cache_folder import cache_folder

MAGIC = b"gapstone kernel 1\n"
DIGEST = 32


def folder() -> Path | None:
    """The folder of kernels, made (0700) where it is missing; None where there is no safe place: see `why_not`."""
    return _folder(cache_folder())[0]


def why_not() -> str | None:
    """Why kernels are not kept; None: they are."""
    return _folder(cache_folder())[1]


@lru_cache
def _folder(cache: Path | None) -> tuple[Path | None, str | None]:
    if cache is None:
        return None, "this user has no home folder: set GAPSTONE_CACHE to an absolute path"
    kernels = cache / "kernels"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        kernels.mkdir(mode=0o700, exist_ok=True)
        facts = kernels.lstat()
    except OSError as problem:
        return None, f"{kernels}: {problem.strerror}"
    if not stat.S_ISDIR(facts.st_mode):
        return None, f"{kernels} is not a folder"
    if os.name == "posix":
        if facts.st_uid != os.geteuid():
            return None, f"{kernels} belongs to another user"
        if facts.st_mode & 0o077:
            try:
                kernels.chmod(0o700)
            except OSError as problem:
                return None, f"{kernels} is open to other users: {problem.strerror}"
    if not os.access(kernels, os.W_OK | os.X_OK):
        return None, f"{kernels} cannot be written to"
    return kernels, None


def read(name: str) -> bytes | None:
    """The machine code that was kept under this name; None where there is none, or it is damaged."""
    place = folder()
    if place is None:
        return None
    try:
        content = (place / f"{name}.kernel").read_bytes()
    except OSError:
        return None
    digest, code = content[len(MAGIC) : len(MAGIC) + DIGEST], content[len(MAGIC) + DIGEST :]
    if content[: len(MAGIC)] == MAGIC and digest == _digest(name, code):
        return code
    _say_damaged(place)
    return None


def write(name: str, code: bytes) -> bool:
    """Keep a kernel; False where that is not possible (no folder, a full disk)."""
    place = folder()
    if place is None:
        return False
    unfinished = place / f".{secrets.token_hex(8)}.unfinished"
    try:
        unfinished.write_bytes(MAGIC + _digest(name, code) + code)
        os.replace(unfinished, place / f"{name}.kernel")
    except OSError:
        unfinished.unlink(missing_ok=True)
        return False
    return True


def _digest(name: str, code: bytes) -> bytes:
    """With the name: a file that was renamed is another kernel's."""
    return hashlib.sha256(name.encode() + b"\0" + code).digest()


@lru_cache
def _say_damaged(place: Path) -> None:
    """Once per process."""
    warnings.warn(f"a compiled kernel in {place} is damaged; it is compiled anew.", RuntimeWarning, stacklevel=2)
