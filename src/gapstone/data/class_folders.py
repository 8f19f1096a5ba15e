"""Lists a folder of class folders, or of train/, val/, test/ with class folders, without changing it.

Hidden and system files (.DS_Store, ._x.jpg, Thumbs.db) are left out and counted. Every other file in a class folder is
an item, even if it is no image: the scan reports that. Folders that look like splits but are not understood are an
error, because a classifier trained on them would learn to tell splits apart.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import bytes_of, file_id, is_folder, is_system
from gapstone.data.label_forms import FoundLabels
from gapstone.data.linked_files import File, joined_files
from gapstone.data.sources import FORMS, DataError, Item, Kind, Source, SplitName, other_spellings, unique
from gapstone.data.split_names import resembles, split_name
from gapstone.images import array_file


@dataclass
class _LeftOut:
    """Files and folders that are left out, for the notes."""

    system: int = 0
    outside: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    like_images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    """Complete sentences."""


def open_folder(given: str, root: Path, multi_label: bool = False) -> Source:
    """Open a folder of `rose/1.jpg` or of `train/rose/1.jpg`. Raises DataError if it is neither.

    If it is `multi_label`, a file that is linked or copied into several class folders is one image with all of them.
    """
    left_out = _LeftOut()
    folders, files = _list(root, left_out, root)
    splits = _splits_among(given, folders, root)
    images: list[File] = []
    if splits:
        left_out.others = [name for name in folders if name not in splits]
        images = _split_files(given, root, splits, left_out)
    else:
        _refuse_unknown_splits(given, root, folders)
        for name in folders:
            images += [(path, name, None) for path in _class_files(root, name, left_out)]
    left_out.outside += files
    images = _without_arrays(images, left_out)
    if not images:
        raise DataError(_no_images(given, root, folders, files))
    _refuse_wrapper(given, root, images, splits)

    found: list[tuple[str, ...]] = [(name,) for _, name, _ in images]
    used = images
    if multi_label:
        found, used = joined_files(root, images)
    labels = FoundLabels(found, "--multi-label" if multi_label else None)
    classes, sets, _ = labels.numbered()
    names = unique([path for path, _, _ in used])
    items = [
        Item(name, of_file, split, root / path, row)
        for row, (name, of_file, (path, _, split)) in enumerate(zip(names, sets, used, strict=True))
    ]
    notes = (*_notes(left_out), *other_spellings([name for _, name, _ in images]))
    if multi_label:
        joined = sum(len(of_file) > 1 for of_file in found)
        several = count_noun(joined, "file")
        notes = (*notes, f"{several} linked or copied into several class folders, read as one image with all of them")
    kind: Kind = "split folder" if splits else "folder"
    return Source(given, kind, classes, items, notes, multi_label=multi_label, hints=labels.told())


def _without_arrays(images: list[File], left_out: _LeftOut) -> list[File]:
    """The images; NumPy's arrays only where they are alone: beside pictures they are masks or features."""
    pictures = [image for image in images if not image[0].lower().endswith(array_file.SUFFIX)]
    if not pictures or len(pictures) == len(images):
        return images
    count = count_noun(len(images) - len(pictures), "file")
    left_out.more.append(f"{count} {array_file.SUFFIX} beside pictures: none is read")
    return pictures


def _splits_among(given: str, folders: list[str], root: Path) -> dict[str, SplitName]:
    """The folders that are splits: {"train": "train", "valid": "val"}; empty if a folder `train` may be a class."""
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


def _split_files(given: str, root: Path, splits: dict[str, SplitName], left_out: _LeftOut) -> list[File]:
    """The files of all splits; a split without class folders has no labels and is left out with a note."""
    inner = {word: _unwrapped(root, word) or word for word in splits}
    if inner[next(iter(splits))].count("/"):  # training_set/training_set/cat, as some archives unpack
        left_out.more.append(f"the classes are those within {_and(inner.values())}")
    else:
        inner = {word: word for word in splits}
    images: list[File] = []
    known: set[str] = set()
    for word, split in splits.items():
        base = inner[word]
        classes, outside = _list(root / base, left_out, root)
        if split != "train" and (not classes or (len(classes) == 1 and classes[0] not in known and len(known) > 1)):
            # test/1.jpg or test/unknown/1.jpg: competitions publish test images without labels
            count = len(outside) + sum(len(_class_files(root, f"{base}/{name}", _LeftOut())) for name in classes)
            if count:
                files = count_noun(count, "file")
                what = f"holds {files} without a folder per class: their labels are unknown, none is used"
            else:
                what = "is empty"
            left_out.more.append(f"{display(base)} {what}")
            continue
        left_out.outside += [f"{base}/{name}" for name in outside]
        known.update(classes)
        for name in classes:
            images += [(path, name, split) for path in _class_files(root, f"{base}/{name}", left_out)]
    return images


def _unwrapped(root: Path, word: str) -> str | None:
    """`train/train`, if `train/` holds only that folder, which holds the classes; else None."""
    inside = _folders_in(root / word)
    if len(inside) != 1 or _has_files(root / word):
        return None
    below = f"{word}/{inside[0]}"
    return below if len(_folders_in(root / below)) > 1 and not _has_files(root / below) else None


def _refuse_unknown_splits(given: str, root: Path, folders: list[str]) -> None:
    """Raise DataError if the folders look like splits, sources or folds of the same classes instead of classes.

    In training-a/{cat,dog} and b/{cat,dog}, a classifier would not learn to tell cats from dogs.
    """
    inside = {name: set(_folders_in(root / name)) for name in folders}
    outer = [name for name in folders if inside[name] and not _has_files(root / name)]
    what = f"DATA {display(given)!r}"
    for n, a in enumerate(outer):
        for b in outer[n + 1 :]:
            shared = inside[a] & inside[b]
            if len(shared) < 2 or 2 * len(shared) < len(inside[a] | inside[b]):
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
        if resembles(name) and len(inside[name]) > 1 and len(folders) > 1:
            inner = sorted(inside[name], key=bytes_of)
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
    """The names of the folders in a folder, except system folders; none if it may not be read."""
    try:
        return _list(folder, _LeftOut())[0]
    except PermissionError:
        return []


def _has_files(folder: Path) -> bool:
    try:
        return bool(_list(folder, _LeftOut())[1])
    except PermissionError:
        return True


def _list(folder: Path, left_out: _LeftOut, root: Path | None = None) -> tuple[list[str], list[str]]:
    """The names of the sub-folders and of the files, each sorted by their bytes.

    Left out are system files and folders and, if `root` is given, links to it and to the folders above it.
    """
    folders, files = [], []
    above = [] if root is None else _above(root)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                left_out.system += 1
            elif not is_folder(entry):
                files.append(entry.name)
            elif above and entry.is_symlink() and file_id(entry.path) in above:
                left_out.loops.append(os.path.relpath(entry.path, root))
            else:
                folders.append(entry.name)
    return sorted(folders, key=bytes_of), sorted(files, key=bytes_of)


def _above(root: Path) -> list[tuple[int, int]]:
    """The ids of a folder and of its parents: a link to one of them would put every class into a single one."""
    resolved = root.resolve()
    return [file_id(folder) for folder in (resolved, *resolved.parents)]


def _class_files(root: Path, below: str, left_out: _LeftOut) -> list[str]:
    """The files in a class folder and its sub-folders, as paths below root."""
    paths: list[str] = []
    ancestors = _above(root)

    def walk(name: str) -> None:
        here = file_id(root / name)
        if here in ancestors:
            left_out.loops.append(name)
            return
        try:
            folders, files = _list(root / name, left_out)
        except PermissionError:
            left_out.closed.append(name)
            return
        ancestors.append(here)
        paths.extend(f"{name}/{file}" for file in files)
        for folder in folders:
            if os.path.splitext(folder)[1].lower() in (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".webp"):
                left_out.like_images.append(f"{name}/{folder}")
            walk(f"{name}/{folder}")
        ancestors.pop()

    walk(below)
    if not paths:
        left_out.empty.append(below)
    deeper = [path for path in paths if path.count("/") > below.count("/") + 1]
    if inner := {path.removeprefix(f"{below}/").split("/")[0] for path in deeper}:
        left_out.nested.append(f"{below} ({_and(sorted(inner, key=bytes_of))})")
    return sorted(paths, key=bytes_of)


def _no_images(given: str, root: Path, folders: list[str], files: list[str]) -> str:
    what = f"DATA {display(given)!r} is a folder"
    tables = [f for f in files if f.lower().endswith((".csv", ".npz"))]
    if folders and not files:
        return f"{what} whose {len(folders)} sub-folders hold no files.\n{FORMS}"
    if tables:
        return f"{what} without sub-folders; did you mean the file {display(root / tables[0])!r}?\n{FORMS}"
    if files:
        return f"{what} of {len(files)} files without class folders: their labels are unknown.\n{FORMS}"
    return f"{what} that is empty.\n{FORMS}"


def _refuse_wrapper(given: str, root: Path, images: list[File], splits: dict[str, SplitName]) -> None:
    """Raise DataError if the only class folder holds the real ones, as in many unpacked archives."""
    classes = {name for _, name, _ in images}
    if len(classes) > 1 or splits:
        return
    (only,) = classes
    inner = sorted({path.split("/")[1] for path, _, _ in images if path.count("/") > 1}, key=bytes_of)
    if len(inner) > 1:
        raise DataError(
            f"DATA {display(given)!r} holds one folder with files, {display(only)!r}, and that {len(inner)} folders "
            f"({', '.join(display(i) for i in inner[:4])}, …). Did you mean {display(root / only)!r}?\n{FORMS}"
        )


def _notes(left_out: _LeftOut) -> list[str]:
    notes = []

    def note(names: list[str], what: str, more: str) -> None:
        if names:
            few = ", ".join(display(n) for n in names[:3]) + (", …" if len(names) > 3 else "")
            notes.append(f"{count_noun(len(names), what)} {more}: {few}")

    note(left_out.outside, "file", "outside any class folder ignored")
    note(left_out.others, "folder", "beside train, val and test ignored")
    note(left_out.nested, "class folder", "with folders of their own, whose images count as the outer class")
    if left_out.system:
        system = count_noun(left_out.system, "hidden or system entry", "hidden or system entries")
        notes.append(f"{system} ignored (.DS_Store, ._x.jpg, Thumbs.db, …)")
    note(left_out.empty, "class folder", "without any file")
    note(left_out.like_images, "folder", "named like an image, read as such")
    note(left_out.loops, "link", "back to a folder above, not followed")
    note(left_out.closed, "folder", "that may not be read, left out")
    return [*left_out.more, *notes]
