"""A folder of class folders, or of train/, val/, test/ with class folders: listed, never changed.

Hidden and system files (.DS_Store, ._x.jpg, Thumbs.db) are left out and counted. Every other file in a class folder is
an item, image or not: the scan will say of those that are none why they were left out. Folders that look like splits
and are not understood are asked about: what would be learned from them is which split an image stands in.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import bytes_of, is_system
from gapstone.data.sources import FORMS, DataError, Item, Source, SplitName, number_classes, other_spellings, unique
from gapstone.data.split_names import resembles, split_name

Found = tuple[str, str, SplitName | None]
"""A file: its path below the root, its class, its split."""


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
    nested: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    """Whole sentences."""


def open_folder(given: str, root: Path) -> Source:
    """`folder/rose/1.jpg` or `folder/train/rose/1.jpg`; raises DataError where it is neither."""
    seen = _Seen()
    folders, files = _list(root, seen, root)
    splits = _splits_among(given, folders, root)
    found: list[Found] = []
    if splits:
        seen.others = [f for f in folders if f not in splits]
        found = _split_files(given, root, splits, seen)
    else:
        _ask_about_splits(given, root, folders)
        for name in folders:
            found += [(p, name, None) for p in _class_files(root, name, seen)]
    seen.outside += files
    if not found:
        raise DataError(_nothing(given, root, folders, files))
    _refuse_wrapper(given, root, found, splits)

    labels_given = [c for _, c, _ in found]
    classes_in_order, labels = number_classes(labels_given)
    names = unique([p for p, _, _ in found])
    items = [
        Item(name, label, split, root / p, row)
        for row, (name, label, (p, _, split)) in enumerate(zip(names, labels, found, strict=True))
    ]
    notes = (*_notes(seen), *other_spellings(labels_given))
    return Source(given, "split folder" if splits else "folder", classes_in_order, items, notes)


def _splits_among(given: str, folders: list[str], root: Path) -> dict[str, SplitName]:
    """{"train": "train", "valid": "val"}; empty where `train` is just another class (a railway one, say)."""
    words = split_name(folders)
    kinds = list(words.values())
    if len(set(kinds)) < 2:
        return {}
    listed = _and(words)
    if "train" not in kinds:
        raise DataError(
            f"DATA {display(given)!r} holds {listed}, which look like splits, but none to train on: name that one "
            f"train. {_IF_CLASSES}"
        )
    if len(set(kinds)) < len(kinds):
        twice = _and([f for f, s in words.items() if kinds.count(s) > 1])
        raise DataError(f"DATA {display(given)!r} holds {twice}, which mean the same split: keep one, or merge them.")
    train = next(f for f, s in words.items() if s == "train")
    if not _folders_in(root / train):
        raise DataError(
            f"DATA {display(given)!r} holds {listed}, which look like splits, but {display(train)!r} has no folder per "
            f"class: the labels are unknown. Expected {display(train)}/cat/1.jpg, {display(train)}/dog/2.jpg, …. "
            f"{_IF_CLASSES}"
        )
    return words


_IF_CLASSES = "If these are classes, list the images in a CSV with path,label."


def _split_files(given: str, root: Path, splits: dict[str, SplitName], seen: _Seen) -> list[Found]:
    """The files of all splits; one without class folders has no labels and is left out, with a note."""
    inner = {word: _unwrapped(root, word) or word for word in splits}
    if inner[next(iter(splits))].count("/"):  # training_set/training_set/cat, as some archives unpack
        seen.more.append(f"the classes are those within {_and(inner.values())}")
    else:
        inner = {word: word for word in splits}
    found: list[Found] = []
    known: set[str] = set()
    for word, split in splits.items():
        base = inner[word]
        classes, outside = _list(root / base, seen, root)
        if split != "train" and (not classes or (len(classes) == 1 and classes[0] not in known and len(known) > 1)):
            # test/1.jpg, or test/unknown/1.jpg, as competitions hand them out
            count = len(outside) + sum(len(_class_files(root, f"{base}/{name}", _Seen())) for name in classes)
            if count:
                files = count_noun(count, "file")
                what = f"holds {files} without a folder per class: their labels are unknown, none is used"
            else:
                what = "is empty"
            seen.more.append(f"{display(base)} {what}")
            continue
        seen.outside += [f"{base}/{name}" for name in outside]
        known.update(classes)
        for name in classes:
            found += [(p, name, split) for p in _class_files(root, f"{base}/{name}", seen)]
    return found


def _unwrapped(root: Path, word: str) -> str | None:
    """train/train, where train/ holds nothing but that folder and the classes are in there."""
    inside = _folders_in(root / word)
    if len(inside) != 1 or _has_files(root / word):
        return None
    below = f"{word}/{inside[0]}"
    return below if len(_folders_in(root / below)) > 1 and not _has_files(root / below) else None


def _ask_about_splits(given: str, root: Path, folders: list[str]) -> None:
    """Raises DataError where the folders look like splits, sources or folds of the same classes, and not like classes.

    training-a/{cat,dog} and b/{cat,dog}: what a classifier would tell apart is not cats and dogs.
    """
    of = {f: set(_folders_in(root / f)) for f in folders}
    outer = [f for f in folders if of[f] and not _has_files(root / f)]
    what = f"DATA {display(given)!r}"
    for n, a in enumerate(outer):
        for b in outer[n + 1 :]:
            shared = of[a] & of[b]
            if len(shared) < 2 or 2 * len(shared) < len(of[a] | of[b]):
                continue
            inner = sorted(shared, key=bytes_of)
            if len(set(split_name(inner).values())) > 1:
                raise DataError(
                    f"{what}: {_and([a, b])} each hold {_and(inner)}, which look like splits. Expected the splits "
                    f"outside and the classes inside: {display(inner[0])}/{display(a)}/1.jpg; or a CSV with "
                    f"path,label,split."
                )
            raise DataError(
                f"{what}: {_and([a, b])} each hold the folders {_and(inner)}. Are they splits? Then name them train, "
                f"val or test. Are {_and(inner)} the classes? Then give one of the folders, {display(root / a)!r}, or "
                f"merge them. Are {_and([a, b])} the classes? Then list the images in a CSV with path,label."
            )
    for name in outer:
        if resembles(name) and len(of[name]) > 1 and len(folders) > 1:
            inner = sorted(of[name], key=bytes_of)
            raise DataError(
                f"{what}: {display(name)!r} looks like a split and holds the folders {_and(inner)}, but which of "
                f"{_and(folders)} are train, val and test is not known. Name them so, or give one folder alone, "
                f"{display(root / name)!r}. {_IF_CLASSES}"
            )


def _and(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    shown = [display(name) for name in names[:most]] + ([f"{len(names) - most} more"] if len(names) > most else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _folders_in(folder: Path) -> list[str]:
    """The names of the folders in it, without the system's own; none where it may not be read."""
    try:
        return _list(folder, _Seen())[0]
    except PermissionError:
        return []


def _has_files(folder: Path) -> bool:
    try:
        return bool(_list(folder, _Seen())[1])
    except PermissionError:
        return True


def _list(folder: Path, seen: _Seen, root: Path | None = None) -> tuple[list[str], list[str]]:
    """The names of sub-folders and of files, each sorted by their bytes, without the system's own; without links to a
    folder above `root`, where that is given.
    """
    folders, files = [], []
    above = [] if root is None else _above(root)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                seen.system += 1
            elif not _is_folder(entry):
                files.append(entry.name)
            elif above and entry.is_symlink() and _place(entry.path) in above:
                seen.loops.append(os.path.relpath(entry.path, root))
            else:
                folders.append(entry.name)
    return sorted(folders, key=bytes_of), sorted(files, key=bytes_of)


def _above(root: Path) -> list[tuple[int, int]]:
    """The folder itself and all that it lies in: a link to one of them would bring every class into one."""
    resolved = root.resolve()
    return [_place(folder) for folder in (resolved, *resolved.parents)]


def _place(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself: an unreadable file, which the scan will list
        return False


def _class_files(root: Path, below: str, seen: _Seen) -> list[str]:
    """Every file in a class folder and its sub-folders, as a path below root."""
    result: list[str] = []
    ancestors = _above(root)

    def walk(name: str) -> None:
        here = _place(root / name)
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
    if inner := {p.removeprefix(f"{below}/").split("/")[0] for p in result if p.count("/") > below.count("/") + 1}:
        seen.nested.append(f"{below} ({_and(sorted(inner, key=bytes_of))})")
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

    def note(names: list[str], what: str, more: str) -> None:
        if names:
            few = ", ".join(display(n) for n in names[:3]) + (", …" if len(names) > 3 else "")
            notes.append(f"{count_noun(len(names), what)} {more}: {few}")

    note(seen.outside, "file", "outside any class folder ignored")
    note(seen.others, "folder", "beside train, val and test ignored")
    note(seen.nested, "class folder", "with folders of their own, whose images count as the outer class")
    if seen.system:
        system = count_noun(seen.system, "hidden or system entry", "hidden or system entries")
        notes.append(f"{system} ignored (.DS_Store, ._x.jpg, Thumbs.db, …)")
    note(seen.empty, "class folder", "without any file")
    note(seen.like_images, "folder", "named like an image, read as such")
    note(seen.loops, "link", "back to a folder above, not followed")
    note(seen.closed, "folder", "that may not be read, left out")
    return [*seen.more, *notes]
