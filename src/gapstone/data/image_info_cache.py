"""What is known of a file's bytes, kept between runs: one SQLite file, keyed by the hash of the content.

Safe against two scans at once and a kill at any moment (SQLite's journal). A cache that cannot be read or written is
no error: the scan is only slower, and says so. A row whose digest does not fit is not believed.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.data.image_info import ImageInfo
from gapstone.images.intensity_range import Ranges, ValueSpread
from gapstone.images.load import OUT_OF_MEMORY, VERSION
from gapstone.storage.paths import check_input

_SCHEMA = 3  # of the row below
_connections: dict[Path, sqlite3.Connection | None] = {}


def prepare(folder: Path) -> Path:
    """The cache's file, ready for use. Raises OSError or sqlite3.Error where it cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"images-{_SCHEMA}.sqlite"
    if file.exists():
        check_input(display(file), file)  # SQLite would wait for ever on a pipe
    try:
        _create(file)
    except sqlite3.DatabaseError as e:
        if isinstance(e, sqlite3.OperationalError):  # locked, read-only, full: not a damaged file
            raise
        file.unlink(missing_ok=True)  # damaged: it holds nothing that cannot be computed again
        _create(file)
    return file


def _create(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=10)) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, facts TEXT, pixels BLOB, thumbnail BLOB, "
            "digest TEXT)"
        )
        db.execute("PRAGMA user_version").fetchone()


def _key(sha: str, max_pixels: int, ranges: Ranges | None) -> str:
    from PIL import __version__ as pillow  # another Pillow may decode or refuse what this one does not

    return f"{sha}:{VERSION}:{pillow}:{max_pixels}" + (f":{ranges}" if ranges else "")


def read_cached(file: Path, sha: str, max_pixels: int, ranges: Ranges | None = None) -> ImageInfo | None:
    """The facts of these bytes, or None where they are not known (or the cache cannot be read)."""
    if file not in _connections:
        try:
            _connections[file] = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        except sqlite3.Error:
            _connections[file] = None
    db = _connections[file]
    if db is None:
        return None
    wanted = _key(sha, max_pixels, ranges)
    try:
        row = db.execute("SELECT facts, pixels, thumbnail, digest FROM facts WHERE key = ?", (wanted,)).fetchone()
    except sqlite3.Error:
        return None
    if row is None or _digest(wanted, *row[:3]) != row[3]:
        return None
    reason, size, mode, notes, gray, spread = json.loads(row[0])
    values = None if spread is None else ValueSpread(*spread)
    return ImageInfo(reason, sha, (size[0], size[1]), mode, tuple(notes), gray, row[1], row[2], values)


def _digest(key: str, facts: object, pixels: object, thumbnail: object) -> str:
    """Of a row; whatever damage made of its values."""
    return hashlib.sha256(repr((key, facts, pixels, thumbnail)).encode("utf-8", "surrogatepass")).hexdigest()


def write_cached(file: Path, facts: Sequence[ImageInfo], max_pixels: int, ranges: Ranges | None = None) -> None:
    """Write facts; raises sqlite3.Error where that fails."""
    rows = []
    for f in facts:
        if f.sha256 and f.reason != OUT_OF_MEMORY:  # that says something about the machine, not about the file
            row = (
                _key(f.sha256, max_pixels, ranges),
                json.dumps([f.reason, f.size, f.mode, f.notes, f.gray, f.spread and astuple(f.spread)]),
                f.pixels,
                f.thumbnail,
            )
            rows.append((*row, _digest(*row)))
    with closing(sqlite3.connect(file, timeout=30)) as db, db:
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", rows)
