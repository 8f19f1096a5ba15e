"""`Source`: the classes and images of DATA in any of its forms, before any image is decoded."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.deep_images import DeepImages
from gapstone.data.file_names import bytes_of, composed, natural, similar_names
from gapstone.data.split_names import SPLITS as SPLITS
from gapstone.data.split_names import SplitName as SplitName
from gapstone.images.intensity_range import UNDECIDED, Ranges
from gapstone.images.load import MAX_PIXELS, Encoded, convert, load, read_bytes
from gapstone.statistics.labels import indicators

Kind = Literal[
    "digits",
    "folder",
    "split folder",
    "csv",
    "idx",
    "npz",
    "arrays",
    "frame",
    "dataset",
    "arrow",
    "parquet",
    "webdataset",
    "metadata",
]
FORMS = """DATA is one of:
  digits                   1,797 handwritten digits of 8×8 pixels, built in
  a folder                 with one sub-folder of images per class, or with train/, val/ and/or test/ that hold them
  a .csv file              with the columns path,label and, if you like, split (train, val, test); paths relative to it;
                           for several labels per image, labels such as cat|dog, or a column of 0 and 1 for each class
  a folder of idx files    train-images-idx3-ubyte[.gz] and so on, as MNIST comes
  an .npz file             with images (N, H, W[, C]), labels and, if you like, classes and split; for several
                           labels per image, labels (N, K) of 0 and 1
  a .tar file              of a WebDataset, or a folder of them: KEY.jpg beside KEY.cls or KEY.json
  a .parquet file          with the images' bytes, or a folder of them: train-00000-of-00002.parquet; or a folder that
                           save_to_disk of Hugging Face's datasets wrote
  a folder                 with metadata.csv or metadata.jsonl: file_name and label"""


class DataError(ValueError):
    """DATA cannot be used; the message says what it holds, what is expected and what to do."""

    @property
    def more(self) -> str:
        """The list of the forms that DATA may have, where the message ends in it."""
        return f"\n{FORMS}" if str(self).endswith(f"\n{FORMS}") else ""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source: `Item("train/rose/12.jpg", (0,), "train", Path(…), 0)`."""

    name: str  # unique in its source and printable; what users see
    labels: tuple[int, ...]  # indices in Source.classes, ascending; one unless the source is multi-label
    split: SplitName | None  # the split that the source gives it
    path: Path | None  # its own file; None if it has none
    row: int  # the row in Source.array or .encoded, the line in a CSV file (line 1 is the header), or the item's number


class DecodedImages(Protocol):
    """Decoded images by their row: an array (N, H, W, C) uint8, or images of different sizes, each (H, W, C)."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]: ...


class DrawsImages(Protocol):
    """Random transforms of the user's own (gapstone.data.drawn_images)."""

    @property
    def digest(self) -> str: ...

    @property
    def unknown(self) -> str | None: ...

    def draw(self, item: int, seed: Sequence[int], ranges: Ranges = UNDECIDED) -> NDArray[np.uint8]: ...

    def random_state_kept(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Grouping:
    """Which images belong together, as `gapstone.data.groups.with_groups` found them."""

    by: str
    """The option that names them: "--group patient"."""
    names: tuple[str | None, ...]
    """The group of each item; None: an empty cell, which is a group of its own."""

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """(N,) a number for each item, shared by those of a group."""
        keys: dict[str | int, int] = {}
        each = (keys.setdefault(i if name is None else name, len(keys)) for i, name in enumerate(self.names))
        return np.fromiter(each, np.int64, len(self.names))

    def shared_by(self, values: Sequence[object]) -> list[str]:
        """The names of the groups whose items have more than one of these values.

        >>> Grouping("--group patient", ("a", "a", "b")).shared_by(["train", "test", "test"])
        ['a']
        """
        found: dict[str, set[object]] = {}
        for name, value in zip(self.names, values, strict=True):
            if name is not None:
                found.setdefault(name, set()).add(value)
        return natural([name for name, several in found.items() if len(several) > 1])

    @property
    def described(self) -> str:
        """>>> Grouping("--group patient", ("a", "a", "b", "b", "b")).described
        '2 groups by --group patient, of 2 to 3 images'
        """
        sizes = np.bincount(self.numbers)
        low, high = int(sizes.min()), int(sizes.max())
        images = count_noun(high, "image") if low == high else f"{low:,} to {high:,} images"
        empty = sum(name is None for name in self.names)
        alone = f" ({count_noun(empty, 'image')} without a group, each counted as one)" if empty else ""
        return f"{count_noun(len(sizes), 'group')} by {self.by}, of {images}{alone}"


@dataclass(frozen=True)
class Source:
    """The images of DATA and their labels; their order is the same on every machine.

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
    array: DecodedImages | None = field(default=None, repr=False)
    """The decoded images of a source without image files."""
    encoded: Sequence[Encoded] | None = field(default=None, repr=False)
    """Where the bytes of image files are that are no files of their own, as in archives."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    """Of a table, a cell per item: the column that groups are named in, and those that look as if they were."""
    grouping: Grouping | None = field(default=None, repr=False)
    multi_label: bool = False
    """Whether an image may have several labels, or none."""
    hints: tuple[str, ...] = ()
    """Sentences to be told before the work: what shows several labels; groups that the images seem to have."""
    drawn: DrawsImages | None = field(default=None, repr=False)
    """Draws the training images anew in each epoch, by random transforms of the user's own."""
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    """How much each item counts in training; None: all the same."""

    def __post_init__(self) -> None:
        """Check what holds for every form of DATA. Raises DataError."""
        given = display(self.given)
        if len(self.classes) < 2:
            only = f"only one class, {self.classes[0]!r}" if self.classes else "no class"
            alone = ""
            if self.multi_label:
                alone = " For one finding, present or not, give each image one of two labels, such as yes and no."
            raise DataError(
                f"DATA {given!r} ({self.kind}) has {only}; a classifier needs at least two.{alone}\n{FORMS}"
            )
        if not self.splits:
            return
        if "train" not in self.splits:
            raise DataError(
                f"DATA {given!r} gives {' and '.join(self.splits)} images but no train images. "
                "Name those to train on `train`, or give no split at all: it is then made here."
            )
        if any(i.split is None for i in self.items):
            raise DataError(
                f"DATA {given!r}: some images have a split and some have none; give all of them one, or none."
            )
        trained = {label for i in self.items if i.split == "train" for label in i.labels}
        missing = [c for k, c in enumerate(self.classes) if k not in trained]
        if missing:
            hint = ""
            if similar := [group for group in similar_names(self.classes) if set(group) & set(missing)]:
                hint = f" {similar[0][0]!r} and {similar[0][1]!r} differ only in their spelling: are they one class?"
            raise DataError(
                f"DATA {given!r}: no train images of {few(missing)}, though {' or '.join(self.splits[1:])} has them."
                f"{hint} Add some, or leave the class out."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int64, the label of each item; (N, K) bool if the source is multi-label."""
        if not self.multi_label:
            return np.fromiter((i.labels[0] for i in self.items), np.int64, len(self.items))
        return indicators([i.labels for i in self.items], len(self.classes))

    def hashed_label(self, i: int) -> int | list[int]:
        """The label of item `i` as hashes of the data write it; a list if the source is multi-label."""
        labels = self.items[i].labels
        return list(labels) if self.multi_label else labels[0]

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that the source gives, in the order train, val, test; empty if it gives none."""
        given = {i.split for i in self.items}
        return tuple(s for s in SPLITS if s in given)

    def pixels(
        self,
        i: int,
        channels: int | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        sha256: str | None = None,
        ranges: Ranges | None = None,
    ) -> NDArray[np.uint8]:
        """The pixels of item `i`, (H, W, C) uint8. Raises ImageError if its file is unusable or has another hash.

        Values of more than 8 bits are seen on `ranges`; without them arrays on their own, a file on a guess.
        """
        if self.array is None:
            data = read_bytes(self.file(i), max_pixels, sha256)
            return load(data, channels=channels, max_pixels=max_pixels, ranges=ranges).pixels
        row = self.items[i].row
        pixels = self.array.pixels(row, ranges) if isinstance(self.array, DeepImages) else self.array[row]
        return pixels if channels is None else convert(pixels, channels)

    def file(self, i: int) -> Encoded:
        """Where the bytes of item `i` are, which `read_bytes` reads; of a source without `array`."""
        item = self.items[i]
        if item.path is not None:
            return str(item.path)
        assert self.encoded is not None
        return self.encoded[item.row]


class Tasks(Sequence[object]):
    """What is to be done with each item, made when it is asked for: bytes in memory are not held twice."""

    def __init__(self, items: Sequence[int], task: Callable[[int], object]) -> None:
        self.items, self.task = items, task

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: Any) -> Any:
        return self.task(self.items[k])


def few(names: Sequence[str], most: int = 5, quote: bool = True) -> str:
    """The first names as a text, and how many more there are."""
    shown = ", ".join(repr(n) if quote else n for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def unique(names: Sequence[str]) -> list[str]:
    """The names in printable form, with " (2)", " (3)", … after those that would otherwise look the same."""
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
    """The class names in order, and each label as an index into them.

    ```python
    number_classes(["b", "a", "b"])    # (('a', 'b'), [1, 0, 1])
    ```
    """
    # "café" is the same word with é as one code point or as two (as macOS writes file names)
    labels = [composed(label) for label in labels]
    order = natural(list(set(labels)))
    index = {name: k for k, name in enumerate(order)}
    return tuple(unique(order)), [index[label] for label in labels]


def other_spellings(labels: Sequence[str]) -> list[str]:
    """Notes on labels that are written with different code points and count as the same class."""
    forms: dict[str, set[str]] = {}
    for label in set(labels):
        forms.setdefault(composed(label), set()).add(label)
    several = sorted((name for name, spelled in forms.items() if len(spelled) > 1), key=bytes_of)
    if not several:
        return []
    return [f"{len(several)} class(es) written in two ways of Unicode (NFC, NFD), counted as one: {few(several)}"]
