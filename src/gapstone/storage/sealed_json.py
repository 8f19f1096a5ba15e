"""JSON files with a seal, which vouch for themselves and for the files beside them.

    {"key": …,                          any content
     "files": {"arrays.npz": "5c1f…"},   SHA-256 of files beside it, where it vouches for some
     "sealed": "9e21…"}                  SHA-256 of the identity and of all bytes before this key

The identity says which file this is (a trial's hash, a batch's key), and it is not in the file: one that was copied to
another place does not fit there. So truncated, edited, exchanged and older files are all found in the same way, and
whoever reads them makes them anew.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from gapstone.console.formatting import display
from gapstone.storage.atomic import write_atomic

SEAL = b',\n"sealed": "'
END = b'"}\n'


class DamagedError(ValueError):
    """A file is not what gapstone wrote there; the message names it and says why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{display(path)} {why}")
        self.path, self.why = path, why

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedError, (self.path, self.why)


def seal(facts: dict[str, Any], identity: str, indent: int | None = 1) -> bytes:
    """The content of a sealed file: JSON."""
    if not facts or "sealed" in facts:
        raise ValueError(f"seal({list(facts)[:3]}): expected facts, none of them 'sealed'.")
    text = json.dumps(facts, indent=indent, ensure_ascii=False, allow_nan=False)
    # half of a surrogate pair (a name that is no UTF-8) as \udce9, which is the same text for JSON
    body = text.encode("utf-8", "backslashreplace").removesuffix(b"}").rstrip()
    return body + SEAL + _digest(body, identity) + END


def write_sealed(path: Path, facts: dict[str, Any], identity: str, indent: int | None = 1) -> None:
    """Write `seal(facts, identity)` to `path`, whole or not at all."""
    write_atomic(path, seal(facts, identity, indent))


def read_sealed(path: Path, identity: str) -> dict[str, Any]:
    """The facts that `write_sealed` wrote there under this identity.

    Raises: FileNotFoundError where there is no such file; DamagedError for anything else.
    """
    content = read_own(path)
    body, mark, rest = content.rpartition(SEAL)
    if not mark or len(rest) != 64 + len(END) or not rest.endswith(END):
        raise DamagedError(path, "has no seal")
    if rest[:64] != _digest(body, identity):
        raise DamagedError(path, "does not fit its seal")
    facts: dict[str, Any] = json.loads(body + b"}")
    return facts


def read_own(path: Path) -> bytes:
    """The content of a file that gapstone wrote. Raises: as `open_own`."""
    with open_own(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise DamagedError(path, f"cannot be read ({error.strerror or error})") from error


def open_own(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a file that gapstone wrote. A link, a pipe or a folder in its place is not followed or waited for.

    flags: as `os.open` takes them; O_RDWR to read and write, O_WRONLY to append.

    Raises: FileNotFoundError; DamagedError; with O_CREAT OSError, too.
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
    """SHA-256 by name, for the "files" of a sealed file in the same folder."""
    return {name: sha256(read_own(folder / name)) for name in names}


def read_vouched(folder: Path, name: str, facts: dict[str, Any]) -> bytes:
    """The content of a file for which the "files" of a sealed one vouch. Raises: DamagedError, also if it is gone."""
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


def damage_note(damaged: Iterable[DamagedError]) -> str:
    """One line for all of them.

    >>> damage_note([DamagedError(Path("out/speed.json"), "has no seal")])
    'out/speed.json has no seal: made anew.'
    """
    found = [str(one) for one in damaged]
    more = f", and {len(found) - 3:,} more files" if len(found) > 3 else ""
    return f"{', '.join(found[:3])}{more}: made anew."


def _digest(body: bytes, identity: str) -> bytes:
    return hashlib.sha256(identity.encode() + b"\0" + body).hexdigest().encode()
