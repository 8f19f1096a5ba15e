"""The facts of an image file: computed in a worker process, or from the cache if it has a file of the same content.

The cache is an SQLite file, keyed by the hash of the image file's content. It is safe with two scans at once and with a
kill at any moment (SQLite's journal). If it cannot be read or written, a scan is slower and prints a note. A row that
does not fit its digest is ignored.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display
from gapstone.data.image_info import THUMBNAIL, ImageInfo, measure
from gapstone.images.intensity_range import AnySpread, Ranges, ValueSpread
from gapstone.images.load import OUT_OF_MEMORY, VERSION, ImageError, read_bytes
from gapstone.storage.paths import check_input
from gapstone.workers.messages import MessageError

_SCHEMA = 4  # version of the rows below
_connections: dict[Path, sqlite3.Connection | None] = {}


def prepare(folder: Path) -> Path:
    """Create or repair the cache; return its file. Raises OSError or sqlite3.Error if it cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"images-{_SCHEMA}.sqlite"
    if file.exists():
        check_input(display(file), file)  # SQLite would wait for ever on a pipe
    try:
        _create(file)
    except sqlite3.DatabaseError as e:
        if isinstance(e, sqlite3.OperationalError):  # locked, read-only or full, but not damaged
            raise
        file.unlink(missing_ok=True)  # damaged; everything in it can be computed again
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
    from PIL import __version__ as pillow  # another version may decode other files

    return f"{sha}:{VERSION}:{pillow}:{max_pixels}" + (f":{ranges}" if ranges else "")


def read_cached(file: Path, sha: str, max_pixels: int, ranges: Ranges | None = None) -> ImageInfo | None:
    """The cached facts of a file with this hash; None if there are none or the cache cannot be read."""
    if file not in _connections:
        try:
            _connections[file] = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        except sqlite3.Error:
            _connections[file] = None
    db = _connections[file]
    if db is None:
        return None
    key = _key(sha, max_pixels, ranges)
    try:
        row = db.execute("SELECT facts, pixels, thumbnail, digest FROM facts WHERE key = ?", (key,)).fetchone()
    except sqlite3.Error:
        return None
    if row is None or _digest(key, *row[:3]) != row[3]:
        return None
    reason, size, mode, notes, gray, spread, channels = json.loads(row[0])
    return ImageInfo(
        reason, sha, (size[0], size[1]), mode, tuple(notes), gray, row[1], row[2], _spread(spread), channels
    )


def _digest(key: str, facts: object, pixels: object, thumbnail: object) -> str:
    """The digest of a row; its values may have any type, as the file may be damaged."""
    return hashlib.sha256(repr((key, facts, pixels, thumbnail)).encode("utf-8", "surrogatepass")).hexdigest()


def write_cached(file: Path, facts: Sequence[ImageInfo], max_pixels: int, ranges: Ranges | None = None) -> None:
    """Write facts to the cache. Raises sqlite3.Error if that fails."""
    rows = []
    for info in facts:
        if info.sha256 and not _of_this_machine(info.reason):
            *_, spread, _ = astuple(info)
            text = json.dumps([info.reason, info.size, info.mode, info.notes, info.gray, spread, info.channels])
            row = _key(info.sha256, max_pixels, ranges), text, info.pixels, info.thumbnail
            rows.append((*row, _digest(*row)))
    with closing(sqlite3.connect(file, timeout=30)) as db, db:
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", rows)


def _of_this_machine(reason: str | None) -> bool:
    """Whether a file cannot be read for a reason that may be gone tomorrow: memory, a package that is missing."""
    return reason is not None and (reason == OUT_OF_MEMORY or "pip install" in reason)


def image_info_of(constant: tuple[int, str | None, dict[str, Any] | None], path: str) -> tuple[Any, ...]:
    """(whether the cache has them, *facts); `constant` is (max_pixels, cache file or None, ranges as JSON or None)."""
    max_pixels, cache_file, ranges = constant
    info, cached = _read(path, max_pixels, cache_file, None if ranges is None else Ranges.from_json(ranges))
    return cached, *astuple(info)


def parse_image_info(answer: Any) -> tuple[ImageInfo, bool]:
    """Check an answer of `image_info_of`: (facts, whether the cache has them). Raises MessageError."""
    match answer:
        case [
            bool() as cached,
            None | str() as reason,
            str() as sha,
            [int() as width, int() as height],
            str() as mode,
            [*notes],
            bool() as gray,
            bytes() as pixels,
            bytes() as thumbnail,
            None | [*_] as spread,
            int() as channels,
        ] if all(isinstance(note, str) for note in notes):
            complete = min(width, height) > 0 and len(pixels) == 16 and len(thumbnail) == THUMBNAIL
            if reason is not None or complete:
                size, values = (width, height), _spread(spread)
                facts = reason, sha, size, mode, tuple(notes), gray, pixels, thumbnail, values, channels
                return ImageInfo(*facts), cached
    raise MessageError("what are no facts of an image")


def _spread(fields: list[Any] | None) -> AnySpread | None:
    match fields:
        case None:
            return None
        case [[*_], *_]:
            return tuple(map(_channel_spread, fields))
    return _channel_spread(fields)


def _channel_spread(fields: Any) -> ValueSpread:
    match fields:
        case ["integers" | "floats" as kind, *numbers] if len(numbers) == 4 and all(type(n) is float for n in numbers):
            return ValueSpread(kind, *numbers)
    raise MessageError("what is no spread of values")


def _read(path: str, max_pixels: int, cache_file: str | None, ranges: Ranges | None) -> tuple[ImageInfo, bool]:
    try:
        data = read_bytes(path, max_pixels)
    except ImageError as e:
        return ImageInfo(str(e), ""), True
    sha = hashlib.sha256(data).hexdigest()
    if cache_file is not None:
        info = read_cached(Path(cache_file), sha, max_pixels, ranges)
        if info is not None:
            return info, True
    return measure(data, sha, max_pixels, ranges), False
