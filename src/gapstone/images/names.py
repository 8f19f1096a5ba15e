"""display(name) = the name with everything that cannot be printed or encoded written as an escape.

File names are bytes: a name may hold a newline, a terminal escape, or bytes that are no UTF-8 (Python keeps those as
lone surrogates, which no JSON or CSV file can hold). Whatever a person or a file gets to see goes through here once.
"""

import os
import re

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir"})


def display(name: str | os.PathLike[str]) -> str:
    r"""A name that is always printable and encodable.

    ```python
    display("sp ace ünï 猫.jpg")       # 'sp ace ünï 猫.jpg'
    display("caf\udce9.jpg")           # 'caf\\xe9.jpg': the byte E9 of a Latin-1 name
    display("two\nlines.jpg")          # 'two\\nlines.jpg'
    ```
    """
    text = os.fspath(name)
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")


def bytes_of(name: str) -> bytes:
    """The sort key of names: their bytes, so that the order is the same under every locale."""
    return name.encode("utf-8", "surrogateescape" if _surrogates_escape(name) else "surrogatepass")


def _surrogates_escape(name: str) -> bool:
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in name if 0xD800 <= ord(c) <= 0xDFFF)


def is_system(name: str) -> bool:
    """Is this a file or folder that an operating system leaves behind, or a hidden one?"""
    low = name.lower()
    return name.startswith(".") or low in SYSTEM_FILES or low in SYSTEM_FOLDERS


def natural(names: list[str]) -> list[str]:
    """Class names in order: as numbers where all of them are whole numbers, else by their bytes.

    ```python
    natural(["10", "9", "1"])          # ['1', '9', '10']
    natural(["rose", "daisy"])         # ['daisy', 'rose']
    ```
    """
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", n) for n in names):
        return sorted(names, key=lambda n: (int(n), bytes_of(n)))
    return sorted(names, key=bytes_of)
