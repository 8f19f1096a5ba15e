"""write_csv(path, rows): every CSV file that gapstone writes; no cell of it is a formula in a spreadsheet.

A spreadsheet runs a cell that begins with = + - or @ as a formula, also after blanks or quotes, and a class may be
called `=cmd|' /C calc'!A0`. Such a cell gets an apostrophe in front, which spreadsheets show as text. `cell` removes
it again: cell(guarded(text)) == text for every text.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gapstone.storage.atomic import atomic_file

# the full-width forms are the same characters to a spreadsheet in Japanese or Chinese
_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"
# what a spreadsheet skips before it looks at the first character: blanks, controls, quotes, characters without width
_SKIPPED = "[\\s\\x00-\\x20\\x7f\"'`\u00ad\u180e\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufeff]*"
# a spreadsheet set to another separator cuts a cell there: "rose;=1+1" is two cells under ";", tab or a line break
_BEGINS = "(?:^|(?<=[;\\t\\r\\n]))"
_LIVE = re.compile(f"{_BEGINS}(?={_SKIPPED}{_FORMULA})")
_GUARDED = re.compile(f"{_BEGINS}'(?={_SKIPPED}{_FORMULA})")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, the heading first, as UTF-8; the file appears whole or not at all. Texts are guarded, numbers not."""
    with (
        atomic_file(path) as unfinished,
        # a name that is not UTF-8 is kept as a lone surrogate, which no file can hold
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows([guarded(value) for value in row] for row in rows)


def guarded(value: Any) -> Any:
    """The same value; a text that a spreadsheet would run gets an apostrophe in front.

    >>> guarded("=1+1"), guarded(" @x"), guarded("-0.5"), guarded(-0.5), guarded("rose")
    ("'=1+1", "' @x", '-0.5', -0.5, 'rose')
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _LIVE.sub("'", value)


def cell(text: str) -> str:
    """What stood in a cell before `guarded`.

    >>> cell("'=1+1"), cell("'tis")
    ('=1+1', "'tis")
    """
    return _GUARDED.sub("", text)
