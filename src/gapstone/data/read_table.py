"""Reads a CSV file as rows of text: its encoding, its separator, the lines that are no table."""

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.data.memory_limits import check_table
from gapstone.data.sources import DataError
from gapstone.storage.paths import open_input

Rows = list[tuple[int, list[str]]]
"""The rows of a table, each with its line."""


def read_rows(what: str, path: Path, notes: list[str] | None = None) -> Rows:
    """The lines of a CSV file with their numbers; `notes` gets a sentence about an encoding that is not UTF-8.

    The file is in UTF-8, with or without a byte order mark, in UTF-16, or in Windows-1252, if it reads as that without
    doubt; `,`, `;`, `|` or tab separate.

    Raises:
        DataError: it is no such table; the message begins with `what` and the line: `--boxes 'boxes.csv', line 3: …`.
        PathError: it is no regular file.
    """
    with open_input(what, path) as file:
        check_table(what, os.fstat(file.fileno()).st_size)
        data = file.read()
    text = _decoded(what, data, notes if notes is not None else [])
    header = re.split(r"\r\n?|\n", text, maxsplit=1)[0]
    first = 0
    if separator := re.fullmatch(r'"?sep=([,;|\t])"?', header):  # Excel may write this line before the header
        delimiter, first = separator[1], 1
    else:
        delimiter = max(",;\t|", key=header.count)  # a comma, if none occurs more often
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader][first:]
    except csv.Error as e:
        raise DataError(f"{what}, line {reader.line_num}: {e}") from e


def below_header(what: str, rows: Rows) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, without blank ones. Raises DataError if there are none, or at one of other length."""
    columns, body = len(rows[0][1]), [row for row in rows[1:] if any(cell.strip() for cell in row[1])]
    if not body:
        raise DataError(f"{what} has a header but no rows.")
    for line, cells in body:
        if len(cells) != columns:
            raise DataError(f"{what}, line {line}: {len(cells)} cells, but {columns} columns.")
        yield line, cells


def _decoded(what: str, data: bytes, notes: list[str]) -> str:
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Excel's "Unicode text"
        encoding = "utf-16"
    elif len(data) >= 8 and not any(data[1:8:2]):  # without a mark: of each letter of the header one byte is 0
        encoding = "utf-16-le"
    elif len(data) >= 8 and not any(data[:8:2]):
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        if encoding == "utf-8-sig" and (text_1252 := _windows_text(data)) is not None:
            word = next(match[0] for match in re.finditer(r"[^\s,;|/\\]*[^\x00-\x7f][^\s,;|/\\]*", text_1252))
            notes.append(
                f"the table is no UTF-8 and read as Windows-1252 (line {line}: {display(word[:40])}); if that is "
                "wrong, save it as 'CSV UTF-8'"
            )
            return text_1252
        kind = "UTF-8" if encoding == "utf-8-sig" else "UTF-16"
        raise DataError(f"{what}, line {line}: no {kind}; save the table as 'CSV UTF-8'.") from e
    if encoding.startswith("utf-16-"):
        notes.append(f"the table is read as {encoding.upper()}, as every other byte of its header is 0")
    return text


_SMALL = "ßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœšž"
_LARGE = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŠŽ"
_BETWEEN = "’‘·–—"  # marks that may stand between letters
_BEFORE = "“„«¿¡ "
_AFTER = "€…”•°»§©®µ"
_LETTERS = _SMALL + _LARGE
_NOT_WINDOWS = re.compile(
    rf"[^\x00-\x7f{_LETTERS}{_BETWEEN}{_BEFORE}{_AFTER}]"  # what no name of a file or class has
    rf"|[^\x00-\x7f]{{3}}|[{_LARGE}{_AFTER}][{_LETTERS}]|[{_LETTERS}][{_LARGE}]"  # other alphabets: runs of these
    rf"|(?<![a-zA-Z])[{_SMALL}]{{2}}(?![a-zA-Z])"
    rf"|[a-z][{_LARGE}]|[a-zA-Z][{_BEFORE}]|[{_AFTER}][a-zA-Z]"  # Mac Roman, Windows-1250, Shift-JIS
)


def _windows_text(data: bytes) -> str | None:
    """The text if it is Windows-1252 (what Excel writes in western Europe); None if it may be in another encoding."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or _NOT_WINDOWS.search(text) else text
