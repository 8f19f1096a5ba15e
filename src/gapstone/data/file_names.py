"""Names of files and classes: their order, and which are an operating system's own.

File names are bytes: a name may hold a newline, a terminal escape, or bytes that are no UTF-8 (Python keeps those as
lone surrogates, which no JSON or CSV file can hold). What a person or a file sees goes through
`console.formatting.display`.
"""

import re
import unicodedata
from collections.abc import Sequence

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir"})


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


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): what looks the same is the same, whoever wrote the file's name."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(path: str) -> list[str]:
    """The path as it is written, then what it may be on disk: with / for the backslashes of Windows, in the composed
    and in the decomposed form of Unicode.
    """
    found = [path]
    if not path.isascii() or "\\" in path:
        for slashed in (path, path.replace("\\", "/")):
            found += [slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return list(dict.fromkeys(found))


def twins(names: Sequence[str]) -> list[list[str]]:
    """The names that differ only in case, width, blanks, separators or leading zeros.

    ```python
    twins(["Cat", "cat", "dog", "1", "01"])    # [['Cat', 'cat'], ['1', '01']]
    ```
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        key = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", key).strip()
        key = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", key)
        key = re.sub(r"^([0-9]+)\.0+$", r"\1", key)  # 1.0: numbers that went through a spreadsheet
        alike.setdefault(key, []).append(name)
    return [group for group in alike.values() if len(group) > 1]
