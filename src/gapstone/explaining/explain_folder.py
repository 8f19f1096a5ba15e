"""OUT, the folder of results: its layout, its cache of finished work, and atomic writes.

OUT/explained.json, OUT/index.html      written last, from the files below
OUT/maps/NAME.npz, OUT/maps/NAME.png    per picture; NAME = its stem and a hash of its path
OUT/.looked/KEY.json                    per batch of pictures: the results, and the hashes of the .npz files
OUT/.looked/files.jsonl                 size, time and hash of input files: unchanged files are not read again
OUT/.looked/NAME.checkpoint             of a picture that is streamed, how far it is; deleted when it is done
OUT/.looked/drawn.jsonl                 per .png and thumbnail: a key of all it was made from, and its hash
OUT/.thumbs/                            thumbnails for the page, named by picture and content
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
"""The stored results of one batch: "rows" (one per picture, in order), "files" (.npz → sha256), "largest"."""

FILES, DRAWN = "files.jsonl", "drawn.jsonl"

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns."""


def digest(*facts: Any) -> str:
    """Return 16 hex digits of the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def unique_name(path: Path) -> str:
    """Return a readable file stem that is unique to a path: cat-5c1f0b7a9e21 for photos/cat.jpg."""
    stem = re.sub(r"[^\w.-]+", "_", display(path.stem)).strip("._")[:40] or "picture"
    return f"{stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"


def file_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


class ExplainFolder:
    """The folder of results of one run."""

    def __init__(self, out: Path) -> None:
        self.out, self.maps, self.records, self.thumbs = out, out / "maps", out / RESULTS, out / ".thumbs"
        for folder in (self.maps, self.records, self.thumbs):
            folder.mkdir(exist_ok=True)
        self.damaged: list[DamagedError] = []
        """Files whose content does not match its digest; they are made anew."""
        self._append_lock = Lock()
        # a damaged line, or one cut short by a kill, is skipped: one file is then read again
        self._files = {
            name: (size, time, sha) for name, size, time, sha in self._read_lines(FILES, [str, int, int, str])
        }
        self._drawings = {name: (key, sha) for name, key, sha in self._read_lines(DRAWN, [str, str, str])}

    def _read_lines(self, name: str, types: list[type]) -> Iterator[list[Any]]:
        """Yield the lists of values of these types in a file of JSON lines; skip other lines."""
        try:
            text = read_own(self.records / name)
        except FileNotFoundError:
            return
        except DamagedError as error:
            self._discard(error)
            return
        for line in text.splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, list) and [type(value) for value in values] == types:
                yield values

    def _append_lines(self, name: str, lines: Sequence[Any]) -> None:
        """Append JSON lines; each starts with a newline, which ends a line that a kill cut short."""
        text = "".join("\n" + json.dumps(line) for line in lines)
        with self._append_lock, open_own(self.records / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            file.write(text.encode("ascii"))

    def _discard(self, error: DamagedError) -> None:
        """Delete a damaged file and note it in `damaged`."""
        self.damaged.append(error)
        remove(error.path)

    def cached_sha256(self, path: Path) -> str | None:
        """Return the SHA-256 of a file that was read before; None if it was not, or has changed since."""
        entry = self._files.get(os.fspath(path))
        return entry[2] if entry and file_stamp(path) == entry[:2] else None

    def add_files(self, files: Sequence[tuple[Path, Stamp, str]]) -> None:
        """Store path, stamp and SHA-256 of files that were read; the stamps were taken *before* the reads."""
        new = [(os.fspath(path), *stamp, sha) for path, stamp, sha in files]
        new = [line for line in new if self._files.get(line[0]) != line[1:]]
        self._files |= {name: (size, time, sha) for name, size, time, sha in new}
        self._append_lines(FILES, new)

    def checked_record(self, key: str) -> Record | None:
        """Return the record of a batch; None if it or one of its .npz files is missing or damaged."""
        try:
            record = self.read_record(key)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._discard(error)
            return None
        intact = True
        for name in record["files"]:
            try:
                read_vouched(self.maps, name, record)
            except DamagedError as error:
                intact = False
                self.damaged.append(error)
        return record if intact else None

    def read_record(self, key: str) -> Record:
        """Return the record of a batch without checking its .npz files. Raises FileNotFoundError or DamagedError."""
        return read_sealed(self.records / f"{key}.json", key)

    def rows(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of batches in order, with one batch in memory at a time."""
        for key in keys:
            yield from self.read_record(key)["rows"]

    def write_record(self, key: str, record: Record) -> None:
        """Write the record of a batch, after all files that it names."""
        sync_folder(self.maps)  # the names of these files are on disk before the record
        write_sealed(self.records / f"{key}.json", record, key, indent=None)

    def write_file(self, path: Path, content: bytes) -> None:
        """Write a file atomically; the folder is synchronised later, once for many files."""
        write_atomic(path, content, sync_its_folder=False)

    def has_drawn(self, path: Path, key: str) -> bool:
        """Tell whether a drawing exists that was made with this key and is undamaged."""
        name = path.relative_to(self.out).as_posix()
        stored_key, sha = self._drawings.get(name, ("", ""))
        if stored_key != key or not os.path.lexists(path):  # a kill can leave the note without the file
            return False
        try:
            read_vouched(self.out, name, {"files": {name: sha}})
        except DamagedError as error:
            self.damaged.append(error)
            return False
        return True

    def write_drawing(self, path: Path, key: str, content: bytes) -> None:
        """Write a drawing, and note the key of all that it was made from."""
        name, sha = path.relative_to(self.out).as_posix(), sha256(content)
        self._append_lines(DRAWN, [(name, key, sha)])  # first: after a kill in between, the note matches no file
        self._drawings[name] = key, sha
        self.write_file(path, content)


@contextmanager
def open_folder(out: Path, log: Callable[[str], None] | None = None) -> Iterator[ExplainFolder]:
    """Create OUT if it is missing, lock it, and remove temporary files of a killed run. Raises ValueError."""
    with own_folder(out, EXPLAIN, log=log):
        yield ExplainFolder(out)
