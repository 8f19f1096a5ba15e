"""A folder of class folders, or of train/, val/, test/ with class folders: listed, never changed.

Hidden and system files (.DS_Store, ._x.jpg, Thumbs.db) are left out and counted. Every other file in a class folder is
an item, image or not: the scan will say of those that are none why they were left out.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from .names import bytes_of, display, is_system
from .sources import FORMS, SPLIT_WORDS, DataError, Item, Source, SplitName, number_classes, unique


@dataclass
class _Seen:
    """What was left out on the way, for the notes."""

    system: int = 0
    outside: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    like_images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def open_folder(given: str, root: Path) -> Source:
    """`folder/rose/1.jpg` or `folder/train/rose/1.jpg`; raises DataError where it is neither."""
    seen = _Seen()
    folders, files = _list(root, seen)
    splits = _splits_among(folders, root)
    found: list[tuple[str, str, SplitName | None]] = []  # path below root, class, split
    if splits:
        seen.others = [f for f in folders if f not in splits]
        for word, split in splits.items():
            classes, outside = _list(root / word, seen)
            files += [f"{word}/{name}" for name in outside]
            for name in classes:
                found += [(p, name, split) for p in _class_files(root, f"{word}/{name}", seen)]
    else:
        for name in folders:
            found += [(p, name, None) for p in _class_files(root, name, seen)]
    seen.outside = files
    if not found:
        raise DataError(_nothing(given, root, folders, files))
    _refuse_wrapper(given, root, found, splits)

    classes_in_order, labels = number_classes([c for _, c, _ in found])
    names = unique([p for p, _, _ in found])
    items = [
        Item(name, label, split, root / p, row)
        for row, (name, label, (p, _, split)) in enumerate(zip(names, labels, found, strict=True))
    ]
    notes = tuple(_notes(seen))
    return Source(given, "split folder" if splits else "folder", classes_in_order, items, notes)


def _splits_among(folders: list[str], root: Path) -> dict[str, SplitName]:
    """{"train": "train", "valid": "val"}; empty where `train` is just another class (a railway one, say)."""
    words = {f: SPLIT_WORDS[f.lower()] for f in folders if f.lower() in SPLIT_WORDS}
    kinds = list(words.values())
    if "train" not in kinds or len(set(kinds)) < 2:
        return {}
    train = next(f for f, s in words.items() if s == "train")
    with os.scandir(root / train) as entries:
        if not any(_is_folder(e) and not is_system(e.name) for e in entries):
            return {}
    if len(set(kinds)) < len(kinds):
        twice = sorted(f for f, s in words.items() if kinds.count(s) > 1)
        raise DataError(f"DATA {display(root)!r} holds {' and '.join(twice)}, which mean the same split; keep one.")
    return dict(sorted(words.items(), key=lambda w: ("train", "val", "test").index(w[1])))


def _list(folder: Path, seen: _Seen) -> tuple[list[str], list[str]]:
    """The names of sub-folders and of files, each sorted by their bytes, without the system's own."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                seen.system += 1
            elif _is_folder(entry):
                folders.append(entry.name)
            else:
                files.append(entry.name)
    return sorted(folders, key=bytes_of), sorted(files, key=bytes_of)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself: an unreadable file, which the scan will list
        return False


def _class_files(root: Path, below: str, seen: _Seen) -> list[str]:
    """Every file in a class folder and its sub-folders, as a path below root."""
    result: list[str] = []
    ancestors: list[tuple[int, int]] = []

    def walk(name: str) -> None:
        status = os.stat(root / name)
        here = (status.st_dev, status.st_ino)
        if here in ancestors:
            seen.loops.append(name)
            return
        try:
            folders, files = _list(root / name, seen)
        except PermissionError:
            seen.closed.append(name)
            return
        ancestors.append(here)
        result.extend(f"{name}/{f}" for f in files)
        for folder in folders:
            if os.path.splitext(folder)[1].lower() in (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".webp"):
                seen.like_images.append(f"{name}/{folder}")
            walk(f"{name}/{folder}")
        ancestors.pop()

    walk(below)
    if not result:
        seen.empty.append(below)
    return sorted(result, key=bytes_of)


def _nothing(given: str, root: Path, folders: list[str], files: list[str]) -> str:
    what = f"DATA {display(given)!r} is a folder"
    tables = [f for f in files if f.lower().endswith((".csv", ".npz"))]
    if folders and not files:
        return f"{what} whose {len(folders)} sub-folders hold no files.\n{FORMS}"
    if tables:
        return f"{what} without sub-folders; did you mean the file {display(root / tables[0])!r}?\n{FORMS}"
    if files:
        return f"{what} of {len(files)} files without class folders: their labels are unknown.\n{FORMS}"
    return f"{what} that is empty.\n{FORMS}"


def _refuse_wrapper(
    given: str, root: Path, found: list[tuple[str, str, SplitName | None]], splits: dict[str, SplitName]
) -> None:
    """An unpacked archive is often a folder in a folder: say which one is meant instead of finding one class."""
    classes = {c for _, c, _ in found}
    if len(classes) > 1 or splits:
        return
    (only,) = classes
    inner = sorted({p.split("/")[1] for p, _, _ in found if p.count("/") > 1}, key=bytes_of)
    if len(inner) > 1:
        raise DataError(
            f"DATA {display(given)!r} holds one folder with files, {display(only)!r}, and that {len(inner)} folders "
            f"({', '.join(display(i) for i in inner[:4])}, …). Did you mean {display(root / only)!r}?\n{FORMS}"
        )


def _notes(seen: _Seen) -> list[str]:
    notes = []

    def note(names: list[str], what: str) -> None:
        if names:
            few = ", ".join(display(n) for n in names[:3]) + (", …" if len(names) > 3 else "")
            notes.append(f"{len(names)} {what}: {few}")

    note(seen.outside, "file(s) outside any class folder ignored")
    note(seen.others, "folder(s) beside train, val and test ignored")
    if seen.system:
        notes.append(f"{seen.system} hidden or system file(s) or folder(s) ignored (.DS_Store, ._x.jpg, Thumbs.db, …)")
    note(seen.empty, "class folder(s) without any file")
    note(seen.like_images, "folder(s) named like an image, read as a folder")
    note(seen.loops, "link(s) back to a folder above, not followed")
    note(seen.closed, "folder(s) that may not be read, left out")
    return notes
