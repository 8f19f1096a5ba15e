"""open_source(DATA) = what DATA holds: classes and items, whatever form it came in. Nothing is decoded yet.

The five forms are told apart by looking, never by asking; which of them was found is `Source.kind`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .load import MAX_PIXELS, convert, load, read_bytes
from .names import bytes_of, composed, display, natural, twins
from .ranges import Ranges
from .split_words import SPLITS as SPLITS
from .split_words import SplitName as SplitName

Kind = Literal["digits", "folder", "split folder", "csv", "idx", "npz"]
FORMS = """DATA is one of:
  digits                   1,797 handwritten digits of 8×8 pixels, built in
  a folder                 with one sub-folder of images per class, or with train/, val/ and/or test/ that hold them
  a .csv file              with the columns path,label and, if you like, split (train, val, test); paths relative to it
  a folder of idx files    train-images-idx3-ubyte[.gz] and so on, as MNIST comes
  an .npz file             with images (N, H, W[, 1 or 3]), labels and, if you like, classes and split"""


class DataError(ValueError):
    """DATA cannot be used as it is; the message says what was found, what was expected and what to do."""

    @property
    def more(self) -> str:
        """The lines below the message's first: the forms that DATA may have."""
        return f"\n{FORMS}" if str(self).endswith(f"\n{FORMS}") else ""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source: `Item("train/rose/12.jpg", 0, "train", Path(…), 0)`."""

    name: str  # unique in its source and always printable; what a person sees
    label: int  # index in Source.classes
    split: SplitName | None  # as given by the source
    path: Path | None  # None where the source is an array
    row: int  # the row in the array, the line of a CSV (from 1, the header), else the item's number


@dataclass(frozen=True)
class Source:
    """The images of DATA and their labels, in an order that is the same on every machine.

    ```python
    source = open_source("flowers")
    source.kind, source.classes         # 'folder', ('daisy', 'rose', 'tulip')
    source.items[7].name                # 'daisy/100080576.jpg'
    source.pixels(7).shape              # (213, 320, 3)
    ```
    """

    given: str
    kind: Kind
    classes: tuple[str, ...]
    items: Sequence[Item]
    notes: tuple[str, ...] = ()
    array: NDArray[np.uint8] | None = field(default=None, repr=False)  # (N, H, W, C) of an array source

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) the label of every item."""
        return np.fromiter((i.label for i in self.items), np.int64, len(self.items))

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits the source itself gives, in the order train, val, test; empty where it gives none."""
        given = {i.split for i in self.items}
        return tuple(s for s in SPLITS if s in given)

    def pixels(
        self,
        i: int,
        channels: Literal[1, 3] | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        sha256: str | None = None,
        ranges: Ranges | None = None,
    ) -> NDArray[np.uint8]:
        """(H, W, C) uint8 of item `i`; ImageError where its file cannot be used, or is not the one with that hash."""
        item = self.items[i]
        if item.path is not None:
            data = read_bytes(item.path, max_pixels, sha256)
            return load(data, channels=channels, max_pixels=max_pixels, ranges=ranges).pixels
        assert self.array is not None
        pixels = self.array[item.row]
        return pixels if channels is None else convert(pixels, channels)


def open_source(data: str | os.PathLike[str]) -> Source:
    """Find out what DATA is and list its classes and images.

    ```python
    open_source("digits").kind                # 'digits'
    open_source("photos/").classes            # ('cat', 'dog')
    open_source("labels.csv").splits          # ('train', 'test')
    ```

    Raises DataError, which names the five accepted forms where DATA is none of them.
    """
    source = _open(os.fspath(data))
    alike = [" and ".join(repr(c) for c in group) for group in twins(source.classes)]
    if not alike:
        return source
    note = (
        f"classes that differ only in case, blanks, separators or leading zeros count as different: "
        f"{_few(alike, quote=False)}; if they mean one, rename them alike"
    )
    return replace(source, notes=(*source.notes, note))


def _open(given: str) -> Source:
    from . import folders, idx, tables

    if not given.strip():
        raise DataError(
            f"DATA {given!r} is empty: an empty path would be the working folder; write . to mean it.\n{FORMS}"
        )
    if given == "digits":
        source = tables.digits()
        if Path("digits").exists():
            note = "these are the built-in digits; for the file or folder of that name, write ./digits"
            source = replace(source, notes=(*source.notes, note))
        return source
    path = Path(given).expanduser()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as e:
        raise DataError(f"DATA {display(given)!r} is no possible path: {e}\n{FORMS}") from e
    if not exists:
        raise DataError(f"DATA {display(given)!r} does not exist (looked in {display(Path.cwd())}).\n{FORMS}")
    if is_folder:
        try:
            return idx.open_idx(given, path) if idx.holds_idx(path) else folders.open_folder(given, path)
        except PermissionError as e:
            raise DataError(f"DATA {display(given)!r}: no permission to read {display(str(e.filename))}") from e
    if path.suffix.lower() in (".csv", ".tsv"):
        return tables.open_csv(given, path)
    if path.suffix.lower() == ".npz":
        return tables.open_npz(given, path)
    raise DataError(f"DATA {display(given)!r} is a file that is neither .csv nor .npz.{_hint(path)}\n{FORMS}")


def _hint(path: Path) -> str:
    name = path.name.lower()
    if "idx" in name and "ubyte" in name:
        return f" It is one of a set of idx files: give their folder, {display(path.parent)!r}."
    if name.endswith((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")):
        return " Unpack the archive first and give the folder."
    if name.endswith((".npy", ".parquet", ".pkl", ".pickle", ".h5", ".mat")):
        return " Save it as .npz: np.savez('data.npz', images=images, labels=labels)."
    if name.endswith((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp")):
        return " One image is not enough: give the folder that holds one sub-folder per class."
    return ""


def _check(source: Source) -> None:
    """What every form must fulfil, in one place."""
    given = display(source.given)
    if len(source.classes) < 2:
        only = f"only one class, {source.classes[0]!r}" if source.classes else "no class"
        raise DataError(f"DATA {given!r} ({source.kind}) has {only}; a classifier needs at least two.\n{FORMS}")
    if not source.splits:
        return
    if "train" not in source.splits:
        raise DataError(
            f"DATA {given!r} gives {' and '.join(source.splits)} images but no train images. "
            "Name those to train on `train`, or give no split at all: it is then made here."
        )
    if any(i.split is None for i in source.items):
        raise DataError(f"DATA {given!r}: some images have a split and some have none; give all of them one, or none.")
    trained = {i.label for i in source.items if i.split == "train"}
    missing = [c for k, c in enumerate(source.classes) if k not in trained]
    if missing:
        twin = [group for group in twins(source.classes) if set(group) & set(missing)]
        hint = f" {twin[0][0]!r} and {twin[0][1]!r} differ only in their spelling: are they one class?" if twin else ""
        raise DataError(
            f"DATA {given!r}: no train images of {_few(missing)}, though {' or '.join(source.splits[1:])} has them."
            f"{hint} Add some, or leave the class out."
        )


def _few(names: Sequence[str], most: int = 5, quote: bool = True) -> str:
    shown = ", ".join(repr(n) if quote else n for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def unique(names: Sequence[str]) -> list[str]:
    """The same names, printable, with " (2)", " (3)", … after those that would otherwise read the same."""
    taken: set[str] = set()
    result = []
    for name in names:
        shown = base = display(name)
        n = 1
        while shown in taken:
            n += 1
            shown = f"{base} ({n})"
        taken.add(shown)
        result.append(shown)
    return result


def number_classes(labels: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """The class names in order, and every label as an index into them.

    ```python
    number_classes(["b", "a", "b"])    # (('a', 'b'), [1, 0, 1])
    ```
    """
    # café in one code point or in two (as macOS writes file names) is one word
    labels = [composed(label) for label in labels]
    order = natural(list(set(labels)))
    index = {name: k for k, name in enumerate(order)}
    return tuple(unique(order)), [index[label] for label in labels]


def other_spellings(labels: Sequence[str]) -> list[str]:
    """Notes on labels that are written with different code points, and count as one class."""
    written: dict[str, set[str]] = {}
    for label in set(labels):
        written.setdefault(composed(label), set()).add(label)
    several = sorted((name for name, forms in written.items() if len(forms) > 1), key=bytes_of)
    if not several:
        return []
    return [f"{len(several)} class(es) written in two ways of Unicode (NFC, NFD), counted as one: {_few(several)}"]
