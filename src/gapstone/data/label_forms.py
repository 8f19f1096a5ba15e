"""Several labels per image (multi-label): cells such as cat|dog, and columns or arrays of 0 and 1.

An image has any number of classes, none included. What shows that DATA is multi-label is said in one line.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import composed
from gapstone.data.sources import DataError, few, number_classes, unique

SEPARATOR = "|"
_OTHER_SEPARATORS = re.compile(r"[;,/+&]")
_UNKNOWN = {"", "-1", "-1.0", "nan", "na", "n/a", "null", "none", "?"}
_NO_FINDING = re.compile(r"(?i)(no|without)[ _-](findings?|labels?|objects?|class)|none|normal|nothing|background")


@dataclass(frozen=True)
class FoundLabels:
    """The labels of each row or file, as text."""

    sets: list[tuple[str, ...]]
    why: str | None = None
    """What shows that images have several labels; None where each has one."""
    order: tuple[str, ...] | None = None
    """The classes in their order, where DATA gives one."""
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def numbered(self) -> tuple[tuple[str, ...], list[tuple[int, ...]], tuple[str, ...]]:
        """(classes, each one's labels as indices into them, the notes); classes without images are left out."""
        sets = [tuple(dict.fromkeys(map(composed, labels))) for labels in self.sets]
        notes = self.notes
        if self.order is None:
            classes, flat = number_classes([label for labels in sets for label in labels])
            numbers = iter(flat)
            return classes, [tuple(sorted(next(numbers) for _ in labels)) for labels in sets], notes
        used = {label for labels in sets for label in labels}
        names = list(map(composed, self.order))
        order = [name for name in names if name in used]
        if self.why is not None and len(order) < len(names):
            unused = [name for name in names if name not in used]
            notes = (*notes, f"{count_noun(len(unused), 'class', 'classes')} without any image left out: {few(unused)}")
        index = {name: k for k, name in enumerate(order)}
        return tuple(unique(order)), [tuple(sorted(index[label] for label in labels)) for labels in sets], notes

    def told(self) -> tuple[str, ...]:
        """The line that says what shows several labels, and how many there are; none where each image has one.

        >>> FoundLabels([("cat", "dog"), (), ("dog",)], "--multi-label").told()
        ('Several labels per image (--multi-label): 1.00 on average; 1 of 3 images without any.',)
        """
        if self.why is None:
            return ()
        mean, empty = sum(map(len, self.sets)) / max(1, len(self.sets)), sum(not labels for labels in self.sets)
        without = f"; {empty:,} of {count_noun(len(self.sets), 'image')} without any" if empty else ""
        return (f"Several labels per image ({self.why}): {mean:.2f} on average{without}.",)


def cell_labels(what: str, cells: Sequence[tuple[int, str]], multi_label: bool, place: str = "line {}") -> FoundLabels:
    """The labels in a column of cells, given with their lines; a `|` in any of them makes all of them multi-label.

    >>> cell_labels("DATA 'a.csv'", [(2, "cat|dog"), (3, "")], False).sets
    [('cat', 'dog'), ()]
    """
    several = next((cell for _, cell in cells if SEPARATOR in cell), None)
    hints = _other_separators({cell for _, cell in cells})
    if several is None and not multi_label:
        for line, cell in cells:
            if not cell:
                raise DataError(
                    f"{what}, {place.format(line)}: the label is empty; write the image's class (or, if an image may "
                    "have no label, or several: --multi-label)."
                )
        return FoundLabels([(cell,) for _, cell in cells], hints=hints)
    sets, repeated = [], 0
    for line, cell in cells:
        parts = [part.strip() for part in cell.split(SEPARATOR)] if cell else []
        if "" in parts:
            raise DataError(
                f"{what}, {place.format(line)}: the label {display(cell)!r} has nothing between two {SEPARATOR}, or "
                "at an end; expected cat|dog, or an empty cell for an image without any label."
            )
        repeated += len(set(map(composed, parts))) < len(parts)
        sets.append(tuple(dict.fromkeys(parts)))
    notes = [f"{count_noun(repeated, 'cell')} with the same label twice, counted once"] if repeated else []
    notes += _empty_class(sets)
    why = "--multi-label" if several is None else f"label cells such as {display(several)!r}"
    return FoundLabels(sets, why, notes=tuple(notes), hints=hints)


def _other_separators(labels: set[str]) -> tuple[str, ...]:
    """A hint if a label looks like several that something else than `|` separates: each part is a label elsewhere."""
    parts = {label: [p.strip() for p in _OTHER_SEPARATORS.split(label)] for label in labels}
    seen = Counter(part for several in parts.values() for part in set(several))
    for label, several in sorted(parts.items()):
        if len(several) > 1 and all(part and seen[part] > 1 for part in several):
            meant = display(SEPARATOR.join(several))
            return (
                f"The label {display(label)!r} is read as one class. Several labels of an image are separated by "
                f"{SEPARATOR}: {meant!r}.",
            )
    return ()


def _empty_class(sets: Iterable[tuple[str, ...]]) -> list[str]:
    """A note on a class that seems to mean that an image has no class."""
    alone: set[str] = set()
    together: set[str] = set()
    for labels in sets:
        (alone if len(labels) == 1 else together).update(labels)
    return [
        f"{display(name)!r} is never together with another class: if it means that an image has none, leave its cell "
        "empty instead"
        for name in sorted(alone - together)
        if _NO_FINDING.fullmatch(name)
    ]


def indicator_labels(
    what: str,
    header: Sequence[str],
    body: Sequence[tuple[int, list[str]]],
    others: Collection[str],
    multi_label: bool,
    place: str = "line {}",
) -> FoundLabels | None:
    """The labels in a table with a column of 0 and 1 for each class; None if there are no two such columns.

    `others` are the columns (in lower case) that hold something else, such as path.

    Raises:
        DataError: a cell of such a column is neither; or every row has exactly one 1, which may mean either.
    """
    names, columns = [], []
    for k, name in enumerate(header):
        if name and name.lower() not in others and not name.lower().startswith("unnamed:"):  # pandas' row numbers
            column = _indicators(what, name, [(line, cells[k]) for line, cells in body], place)
            if column is not None:
                names.append(name)
                columns.append(column)
    if len(columns) < 2:
        return None
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{what}: the column {display(twice[0])!r} is there twice; keep one.")
    array = np.array(columns, np.bool_).T
    if not multi_label and bool((array.sum(axis=1) == 1).all()):
        raise DataError(
            f"{what} has no column label, and a column of 0 and 1 for each of {len(names)} classes, of which every row "
            "has exactly one. If an image has one label, name it in a column label; if it may have several: "
            "--multi-label."
        )
    why = f"{len(names)} columns of 0 and 1 instead of label: {few([display(name) for name in names], quote=False)}"
    return FoundLabels(_sets(array, names), why, tuple(names))


def _indicators(what: str, name: str, cells: Sequence[tuple[int, str]], place: str) -> list[bool] | None:
    """A column as truth values; None if it holds something else. Raises DataError if only a few of its cells do."""
    truths = {cell: _truth(cell) for cell in {cell for _, cell in cells}}  # of millions of cells few differ
    values = [truths[cell] for _, cell in cells]
    if None not in values:
        return [bool(value) for value in values]
    others = {cell.strip().lower() for (_, cell), value in zip(cells, values, strict=True) if value is None}
    if True not in values or not (others <= _UNKNOWN or 2 * values.count(None) < len(values)):
        return None
    line, cell = next(each for each, value in zip(cells, values, strict=True) if value is None)
    text = cell.strip()
    means = {
        "-1": " -1 means that the class is absent in some tables (CelebA: write 0) and that nobody knows in others "
        "(leave such images out).",
        "": " Write 0 if the class is absent; leave the image out if nobody knows.",
    }
    raise DataError(
        f"{what}, {place.format(line)}: column {display(name)!r} is {display(text)!r}, where others have 0 or 1; "
        f"expected 0 or 1 for each image.{means.get(text.removesuffix('.0'), '')} If the column is no class, take it "
        "out."
    )


def _truth(cell: str) -> bool | None:
    """What a cell says; None if it is neither 0 nor 1, however they are written."""
    text = cell.strip().lower()
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return None
    return number == 1 if number in (0, 1) else None


def array_labels(what: str, labels: NDArray[np.generic], names: Sequence[str], multi_label: bool) -> FoundLabels:
    """The labels in an array (N, K) of truth values.

    Raises:
        DataError: it holds something else than 0 and 1; or every row has exactly one 1, which may mean either.
    """
    wrong = ~np.isin(labels, (0, 1)) if labels.dtype.kind in "biuf" else np.ones(labels.shape, np.bool_)
    if wrong.any():
        row, k = (int(i[0]) for i in np.nonzero(wrong))
        raise DataError(
            f"{what}: labels[{row}, {k}] is {display(str(labels[row, k]))!r}; labels of shape (N, K) hold 0 or 1 for "
            "each image and class (numbers or bool)."
        )
    array = labels.astype(np.bool_)
    if not multi_label and bool((array.sum(axis=1) == 1).all()):
        raise DataError(
            f"{what}: labels has shape {labels.shape} and one 1 in every row. If an image has one label, save "
            "labels.argmax(1); if it may have several: --multi-label."
        )
    return FoundLabels(_sets(array, names), f"labels of shape {labels.shape}", tuple(names))


def _sets(array: NDArray[np.bool_], names: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(names[k] for k in np.flatnonzero(row).tolist()) for row in array]
