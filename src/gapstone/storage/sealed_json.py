"""Sealed JSON files: each holds a digest of itself, and may hold digests of other files in its folder.

    {"key": …,                          any content
     "files": {"arrays.npz": "5c1f…"},   SHA-256 of each file in the same folder that it vouches for
     "sealed": "9e21…"}                  SHA-256 of the identity and of all bytes before this key

The identity says which file this is (a trial's hash, a batch's key). The file does not contain it, so a copy in another
place does not fit its seal there. Reading a file thus detects in the same way that it was truncated, edited or
exchanged, or is older than seals; the reader then computes the content again.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from gapstone.console.formatting import display
from gapstone.storage.atomic import write_atomic

SEAL = b',\n"sealed": "'
END = b'"}\n'


class DamagedError(ValueError):
    """A file is not what gapstone wrote; the message names it and says why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{display(path)} {why}")
        self.path, self.why = path, why

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedError, (self.path, self.why)


def seal(facts: Mapping[str, object], identity: str, indent: int | None = 1) -> bytes:
    """The bytes of a sealed file."""
    if not facts or "sealed" in facts:
        raise ValueError(f"seal({list(facts)[:3]}): expected facts, none of them 'sealed'.")
    text = json.dumps(facts, indent=indent, ensure_ascii=False, allow_nan=False)
    # a lone surrogate (of a name that is not UTF-8) is written as \udce9, which JSON reads as the same text
    body = text.encode("utf-8", "backslashreplace").removesuffix(b"}").rstrip()
    return body + SEAL + _digest(body, identity) + END


def write_sealed(path: Path, facts: Mapping[str, object], identity: str, indent: int | None = 1) -> None:
    """Write `seal(facts, identity)` to `path`, completely or not at all."""
    write_atomic(path, seal(facts, identity, indent))


def read_sealed(path: Path, identity: str) -> dict[str, Any]:
    """The facts that `write_sealed` wrote to `path` under this identity.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it does not fit its seal, or cannot be read.
    """
    content = read_own(path)
    body, key, rest = content.rpartition(SEAL)
    if not key or len(rest) != 64 + len(END) or not rest.endswith(END):
        raise DamagedError(path, "has no seal")
    if rest[:64] != _digest(body, identity):
        raise DamagedError(path, "does not fit its seal")
    facts: dict[str, Any] = json.loads(body + b"}")
    return facts


def read_own(path: Path) -> bytes:
    """The content of a file that gapstone wrote. Raises what `open_own` raises."""
    with open_own(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise DamagedError(path, f"cannot be read ({error.strerror or error})") from error


def open_own(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a file that gapstone wrote; a link in its place is not followed, and a pipe is not waited for.

    `flags` are those of `os.open`: O_RDWR to read and write, O_WRONLY to append.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is no regular file, or cannot be read.
        OSError: with O_CREAT, the file cannot be created.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        if flags & os.O_CREAT:
            raise
        why = "is a link" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
        raise DamagedError(path, why) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError(path, "is no regular file")
    mode: Literal["rb", "ab", "r+b"] = "r+b"
    if flags & os.O_ACCMODE != os.O_RDWR:
        mode = "ab" if flags & os.O_ACCMODE == os.O_WRONLY else "rb"
    return open(descriptor, mode)


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each named file, for the key "files" of a sealed file in the same folder."""
    return {name: sha256(read_own(folder / name)) for name in names}


def read_vouched(folder: Path, name: str, facts: dict[str, Any]) -> bytes:
    """The content of a file whose digest stands in the "files" of a sealed file.

    Raises:
        DamagedError: the file does not fit its digest, or is missing.
    """
    path = folder / name
    try:
        content = read_own(path)
    except FileNotFoundError:
        raise DamagedError(path, "is missing") from None
    if sha256(content) != facts.get("files", {}).get(name):
        raise DamagedError(path, "does not fit its digest")
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Of a file of any size, which is never in memory whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage_note(damaged: Iterable[DamagedError]) -> str:
    """One line about all damaged files, which are computed again.

    >>> damage_note([DamagedError(Path("out/speed.json"), "has no seal")])
    'out/speed.json has no seal: made anew.'
    """
    notes = [str(error) for error in damaged]
    more = f", and {len(notes) - 3:,} more files" if len(notes) > 3 else ""
    return f"{', '.join(notes[:3])}{more}: made anew."


def _digest(body: bytes, identity: str) -> bytes:
    return hashlib.sha256(identity.encode() + b"\0" + body).hexdigest().encode()
