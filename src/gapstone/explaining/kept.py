"""OUT, the folder of results: what lies where, what is done already, and files that appear whole or not at all.

OUT/explained.json, OUT/index.html      written last, from all that follows
OUT/maps/NAME.npz, OUT/maps/NAME.png    per picture; NAME = its stem and a hash of its path
OUT/.looked/KEY.json                    per batch of pictures: the answers, and the hashes of the .npz files
OUT/.looked/files.jsonl                 size, time and hash of files seen: what has not changed is not read again
OUT/.thumbs/                            small pictures for the page, by name and content
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapstone.disk import output_folder
from gapstone.images.inputs import RESULTS
from gapstone.images.names import display
from gapstone.whole import UNFINISHED, whole

Record = dict[str, Any]
"""What is kept of one batch: "rows" (one per picture, in order), "npz" (file name → sha256), "largest"."""

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


class Kept:
    """The folder of results of one run."""

    def __init__(self, out: Path) -> None:
        self.out, self.maps, self.looked, self.thumbs = out, out / "maps", out / RESULTS, out / ".thumbs"
        self._seen: dict[str, tuple[int, int, str]] = {}
        for line in _lines(self.looked / "files.jsonl"):
            name, size, time, sha = line
            self._seen[name] = (size, time, sha)

    def known(self, path: Path) -> str | None:
        """The sha256 of a file's content, where it has been read before and has not changed since."""
        seen = self._seen.get(os.fspath(path))
        return seen[2] if seen and stamp(path) == seen[:2] else None

    def remember(self, files: Sequence[tuple[Path, Stamp, str]]) -> None:
        """Files that were read: what they were like *before* they were read."""
        new = [(os.fspath(path), *like, sha) for path, like, sha in files]
        new = [line for line in new if self._seen.get(line[0]) != line[1:]]
        self._seen |= {name: (size, time, sha) for name, size, time, sha in new}
        with (self.looked / "files.jsonl").open("a", encoding="ascii") as file:
            file.write("".join(json.dumps(line) + "\n" for line in new))

    def record(self, key: str) -> Record | None:
        """What is kept of a batch; None where it is not there, or the files it speaks of are not whole."""
        try:
            record = self.read(key)
            fine = all(sha256(self.maps / name) == sha for name, sha in record["npz"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # never written, or damaged: done again
            return None
        return record if fine else None

    def read(self, key: str) -> Record:
        """What is kept of a batch that this run has checked or written."""
        record: Record = json.loads((self.looked / f"{key}.json").read_bytes())
        return record

    def keep(self, key: str, record: Record) -> None:
        with whole(self.looked / f"{key}.json") as unfinished, unfinished.open("w", encoding="ascii") as file:
            file.write(json.dumps(record, allow_nan=False))  # dumps, not dump: 8 times faster
            file.flush()
            os.fsync(file.fileno())  # on disk before its name says so


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(path: Path) -> Iterator[list[Any]]:
    try:
        text = path.read_text("ascii")
    except (OSError, ValueError):
        return
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        if isinstance(values, list) and len(values) == 4:
            yield values


def writable(out: Path) -> None:
    """Raises PathError (a ValueError) where OUT cannot hold the results; nothing is made yet."""
    files = ("explained.json", "index.html", f"{RESULTS}/lock", f"{RESULTS}/files.jsonl")
    output_folder("--out", out, files, folders=("maps", RESULTS, ".thumbs"))


@contextmanager
def alone(out: Path) -> Iterator[Kept]:
    """OUT, made where it is missing; one gapstone at a time in it, the leavings of one that was killed cleared away.

    Raises: ValueError where OUT cannot be used.
    """
    writable(out)
    for folder in (out / "maps", out / RESULTS, out / ".thumbs"):
        folder.mkdir(parents=True, exist_ok=True)
    with (out / RESULTS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another gapstone explain is at work in {out}: wait, or choose another --out.") from None
        for folder in (out, out / "maps", out / RESULTS, out / ".thumbs"):
            for path in folder.glob(UNFINISHED):
                path.unlink()
        yield Kept(out)
