"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gapstone.disk import of_path

UNFINISHED = ".*.unfinished*"
"""Names of what a killed process leaves, for whoever sweeps a folder that only it writes to."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its ending, to write to; renamed to `path` at the end, or gone after an error.

    >>> with whole(Path("results.json")) as unfinished:
    ...     unfinished.write_text("{}")
    """
    # the same folder: a rename cannot cross file systems; a short name: a long one may not get longer
    unfinished = path.with_name(f".{secrets.token_hex(8)}.unfinished{path.suffix}")
    try:
        with of_path(path, written_as=unfinished):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    with whole(path) as unfinished, of_path(path, len(content)):
        unfinished.write_bytes(content)
