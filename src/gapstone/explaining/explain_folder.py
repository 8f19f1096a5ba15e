"""OUT, the folder of results: what lies where, what is done already, and files that appear whole or not at all.

OUT/explained.json, OUT/index.html      written last, from all that follows
OUT/maps/NAME.npz, OUT/maps/NAME.png    per picture; NAME = its stem and a hash of its path
OUT/.looked/KEY.json                    per batch of pictures: the answers, and the hashes of the .npz files
OUT/.looked/files.jsonl                 size, time and hash of files seen: what has not changed is not read again
OUT/.looked/drawn.jsonl                 of each .png and small picture: the key of what it was made from, and its hash
OUT/.thumbs/                            small pictures for the page, by name and content
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from gapstone.console.formatting import display
from gapstone.data.input_files import RESULTS
from gapstone.storage.atomic import remove, sync_folder, write_atomic
from gapstone.storage.owned_folder import EXPLAIN, own_folder
from gapstone.storage.sealed_json import (
    DamagedError,
    open_own,
    read_own,
    read_sealed,
    read_vouched,
    sha256,
    write_sealed,
)

Record = dict[str, Any]
"""What is kept of one batch: "rows" (one per picture, in order), "files" (.npz → sha256), "largest"."""

FILES, DRAWN = "files.jsonl", "drawn.jsonl"

Stamp = tuple[int, int]
"""Size and time of the last change, in ns."""


def digest(*facts: Any) -> str:
    """Sixteen hex digits of anything JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def name_of(path: Path) -> str:
    """A readable name without folders that no other path has: cat-5c1f0b7a9e21 for photos/cat.jpg."""
    stem = re.sub(r"[^\w.-]+", "_", display(path.stem)).strip("._")[:40] or "picture"
    return f"{stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"


def stamp(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


class ExplainFolder:
    """The folder of results of one run."""

    def __init__(self, out: Path) -> None:
        self.out, self.maps, self.looked, self.thumbs = out, out / "maps", out / RESULTS, out / ".thumbs"
        for folder in (self.maps, self.looked, self.thumbs):
            folder.mkdir(exist_ok=True)
        self.damaged: list[DamagedError] = []
        """What was found that is not as it was written; it is made anew."""
        self._noting = Lock()
        # a line that is damaged, or was cut short by a kill, costs a look at one file
        self._seen = {name: (size, time, sha) for name, size, time, sha in self._lines(FILES, [str, int, int, str])}
        self._drawn = {name: (key, sha) for name, key, sha in self._lines(DRAWN, [str, str, str])}

    def _lines(self, name: str, types: list[type]) -> Iterator[list[Any]]:
        try:
            text = read_own(self.looked / name)
        except FileNotFoundError:
            return
        except DamagedError as error:
            self._forget(error)
            return
        for line in text.splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, list) and [type(value) for value in values] == types:
                yield values

    def _note(self, name: str, lines: Sequence[Any]) -> None:
        """Append to a file of lines; the first of them ends whatever a kill has left of another."""
        text = "".join("\n" + json.dumps(line) for line in lines)
        with self._noting, open_own(self.looked / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            file.write(text.encode("ascii"))

    def _forget(self, error: DamagedError) -> None:
        self.damaged.append(error)
        remove(error.path)

    def known(self, path: Path) -> str | None:
        """The sha256 of a file's content, where it has been read before and has not changed since."""
        seen = self._seen.get(os.fspath(path))
        return seen[2] if seen and stamp(path) == seen[:2] else None

    def remember(self, files: Sequence[tuple[Path, Stamp, str]]) -> None:
        """Files that were read: what they were like *before* they were read."""
        new = [(os.fspath(path), *like, sha) for path, like, sha in files]
        new = [line for line in new if self._seen.get(line[0]) != line[1:]]
        self._seen |= {name: (size, time, sha) for name, size, time, sha in new}
        self._note(FILES, new)

    def record(self, key: str) -> Record | None:
        """What is kept of a batch; None where it is not there, or not as it was written, or a file it speaks of."""
        try:
            record = self.read(key)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._forget(error)
            return None
        fine = True
        for name in record["files"]:
            try:
                read_vouched(self.maps, name, record)
            except DamagedError as error:
                fine = False
                self.damaged.append(error)
        return record if fine else None

    def read(self, key: str) -> Record:
        """What is kept of a batch that this run has checked or written. Raises: FileNotFoundError; DamagedError."""
        return read_sealed(self.looked / f"{key}.json", key)

    def keep(self, key: str, record: Record) -> None:
        sync_folder(self.maps)  # the files it vouches for have their names first
        write_sealed(self.looked / f"{key}.json", record, key, indent=None)

    def write(self, path: Path, content: bytes) -> None:
        """One of many files, on disk when this returns; its name is when a record says so, or at the end."""
        write_atomic(path, content, sync_its_folder=False)

    def has_drawn(self, path: Path, key: str) -> bool:
        """Is the picture there, made from what the key says, byte for byte?"""
        name = path.relative_to(self.out).as_posix()
        noted, sha = self._drawn.get(name, ("", ""))
        if noted != key or not os.path.lexists(path):  # noted, and killed before it was written
            return False
        try:
            read_vouched(self.out, name, {"files": {name: sha}})
        except DamagedError as error:
            self.damaged.append(error)
            return False
        return True

    def draw(self, path: Path, key: str, content: bytes) -> None:
        name, sha = path.relative_to(self.out).as_posix(), sha256(content)
        self._note(DRAWN, [(name, key, sha)])  # first: a kill in between leaves a note that fits nothing
        self._drawn[name] = key, sha
        self.write(path, content)


@contextmanager
def alone(out: Path, say: Callable[[str], None] | None = None) -> Iterator[ExplainFolder]:
    """OUT, made where it is missing; one gapstone at a time in it, the leavings of one that was killed cleared away.

    Raises: ValueError where OUT cannot be used.
    """
    with own_folder(out, EXPLAIN, log=say):
        yield ExplainFolder(out)
