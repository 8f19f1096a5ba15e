"""`write_csv` writes every CSV file of gapstone, and makes sure that a spreadsheet runs no cell of it as a formula.

A spreadsheet runs a cell that begins with = + - or @ as a formula, also after blanks or quotes, and a class may be
called `=cmd|' /C calc'!A0`. `guarded` puts an apostrophe before such a text, which makes spreadsheets show it as text.
`cell` removes it again: cell(guarded(text)) == text for every text.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gapstone.storage.atomic import atomic_file

# a Japanese or Chinese spreadsheet treats the full-width forms as the same characters
_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"
# characters that a spreadsheet skips at the beginning of a cell: blanks, controls, quotes, zero-width characters
_SKIPPED = "[\\s\\x00-\\x20\\x7f\"'`\u00ad\u180e\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufeff]*"
# with another separator a spreadsheet splits a cell there: with ";", "rose;=1+1" is two cells; likewise tab, line break
_BEGINS = "(?:^|(?<=[;\\t\\r\\n]))"
_UNGUARDED = re.compile(f"{_BEGINS}(?={_SKIPPED}{_FORMULA})")
_GUARDED = re.compile(f"{_BEGINS}'(?={_SKIPPED}{_FORMULA})")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the heading first, as UTF-8, through `atomic_file`; texts are guarded, numbers are not."""
    with (
        atomic_file(path) as unfinished,
        # Python holds a name that is not UTF-8 as a lone surrogate, which UTF-8 cannot encode
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows([guarded(value) for value in row] for row in rows)


def guarded(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would run; return any other value as it is.

    >>> guarded("=1+1"), guarded(" @x"), guarded("-0.5"), guarded(-0.5), guarded("rose")
    ("'=1+1", "' @x", '-0.5', -0.5, 'rose')
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _UNGUARDED.sub("'", value)


def cell(text: str) -> str:
    """Remove the apostrophe that `guarded` put before a text.

    >>> cell("'=1+1"), cell("'tis")
    ('=1+1', "'tis")
    """
    return _GUARDED.sub("", text)
