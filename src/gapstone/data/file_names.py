"""Names of files and classes: their order, their spellings, and which belong to the operating system.

File names are bytes: a name may hold a newline, a terminal escape, or bytes that are not UTF-8 (Python represents those
as lone surrogates, which no JSON or CSV file can hold). `console.formatting.display` makes a name safe to print or
write.
"""

import os
import re
import unicodedata
from collections.abc import Sequence

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir"})


def bytes_of(name: str) -> bytes:
    """A name as bytes: the sort key of names, so that their order is the same in every locale."""
    return name.encode("utf-8", "surrogateescape" if _surrogates_escape(name) else "surrogatepass")


def _surrogates_escape(name: str) -> bool:
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in name if 0xD800 <= ord(c) <= 0xDFFF)


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or one that operating systems leave behind."""
    lower = name.lower()
    return name.startswith(".") or lower in SYSTEM_FILES or lower in SYSTEM_FOLDERS


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one; False for a link that points at itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def file_id(path: str | os.PathLike[str]) -> tuple[int, int]:
    """A number of a file or folder that all links to it share."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def natural(names: list[str]) -> list[str]:
    """Class names in order: as numbers if all of them are whole numbers, else by their bytes.

    ```python
    natural(["10", "9", "1"])          # ['1', '9', '10']
    natural(["rose", "daisy"])         # ['daisy', 'rose']
    ```
    """
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", n) for n in names):
        return sorted(names, key=lambda n: (int(n), bytes_of(n)))
    return sorted(names, key=bytes_of)


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which names that look the same are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(path: str) -> list[str]:
    """The path, then other forms that it may have on disk: with / for Windows' backslashes, composed, decomposed."""
    forms = [path]
    if not path.isascii() or "\\" in path:
        for slashed in (path, path.replace("\\", "/")):
            forms += [slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return list(dict.fromkeys(forms))


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that differ only in case, width, blanks, separators or leading zeros.

    ```python
    similar_names(["Cat", "cat", "dog", "1", "01"])    # [['Cat', 'cat'], ['1', '01']]
    ```
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        key = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", key).strip()
        key = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", key)
        key = re.sub(r"^([0-9]+)\.0+$", r"\1", key)  # 1.0: numbers that went through a spreadsheet
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
