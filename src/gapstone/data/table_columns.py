"""The columns of a table that are read: path, label and split, or what they are usually called elsewhere."""

from collections.abc import Collection, Sequence

from gapstone.console.formatting import display
from gapstone.data.groups import not_read
from gapstone.data.read_table import Rows
from gapstone.data.sample_weights import USUAL
from gapstone.data.sources import DataError
from gapstone.data.split_names import split_name

READ = ("path", "label", "split")
OTHER_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "path": (
        (
            *("file", "filename", "file_name", "filepath", "file_path", "fname", "image", "img", "image_path"),
            *("img_path", "image_file", "image_name", "img_name"),
        ),
        ("image_id", "img_id", "id", "name"),
    ),
    "label": (
        ("class", "class_name", "label_name", "labels", "target", "category", "species", "diagnosis"),
        ("y", "dx"),
    ),
    "split": (("set", "subset", "partition", "fold", "phase", "usage", "data_set", "dataset"),),
}
"""What the columns are called elsewhere; the words of the second row count where none of the first is there."""


def canonical(
    what: str, header: Sequence[str], body: Rows, others: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """(the columns in lower case, where path, label and split have these names; notes on those that are renamed).

        >>> canonical("DATA 'a.csv'", ["Filename", "class"], [(2, ["1.jpg", "cat"])])
        (['path', 'label'], ["column 'Filename' is read as path", "column 'class' is read as label"])

    `others` are columns that are read as something else.

    Raises:
        DataError: several columns may be meant; the message lists them.
    """
    columns = [name.lower() for name in header]
    notes = []
    for name in READ:
        if name in columns:
            continue
        candidates = [_columns(columns, words, others) for words in OTHER_WORDS[name]]
        found = next(filter(None, candidates), [])
        if name == "split":
            found = [k for k in found if _holds_splits([cells[k].strip() for _, cells in body])]
        if len(found) > 1:
            listed = " or ".join(repr(display(header[k])) for k in found)
            raise DataError(f"{what}: is {listed} the {name}? Rename the one that is meant to {name}.")
        for k in found:
            if name == "label":
                _refuse_indicators(what, header, body, k, {*READ, *others})
            columns[k] = name
            notes.append(f"column {display(header[k])!r} is read as {name}")
    return columns, notes


def _columns(columns: Sequence[str], words: Collection[str], others: Collection[str]) -> list[int]:
    return [k for k, name in enumerate(columns) if name in words and name not in others]


def _refuse_indicators(what: str, header: Sequence[str], body: Rows, label: int, others: Collection[str]) -> None:
    """Raise DataError if the column that would be the label is one of several of 0 and 1, which may be classes."""
    same = [
        k
        for k, name in enumerate(header)
        if name.lower() not in others and {cells[k].strip() for _, cells in body} == {"0", "1"}
    ]
    if label in same and len(same) > 1:
        name, listed = display(header[label]), ", ".join(display(header[k]) for k in same)
        raise DataError(
            f"{what}: is {name!r} the label, or has each class a column of 0 and 1 ({listed})? Rename {name!r} to "
            "label, or to the name of its class."
        )


def _holds_splits(cells: Sequence[str]) -> bool:
    """Whether each cell names a split, and some name train: "fold" may as well be a number."""
    known = split_name(cells)
    return "train" in known.values() and set(known) == set(cells)


def check_columns(
    what: str, columns: Sequence[str], header: Sequence[str], kept: Collection[str], labelled: bool
) -> list[str]:
    """Notes on columns that are neither read nor `kept`. Raises DataError if a column is missing or occurs twice.

    `labelled` says whether there has to be a column label.
    """
    needed = ("path", "label") if labelled else ("path",)
    if any(name not in columns for name in needed):
        raise DataError(
            f"{what}: its first line must name the columns path,label (and, if you like, split), or path and a "
            f"column of 0 and 1 for each of at least two classes; it is "
            f"{display(','.join(name.lower() for name in header)[:80]) or 'empty'!r}."
        )
    notes = []
    for name in dict.fromkeys(columns):
        times, is_read = columns.count(name), name in (*needed, "split")
        if is_read and times > 1:
            raise DataError(f"{what}: the column {name!r} is there {times} times; keep one.")
        if not is_read and name not in kept:
            use = ""
            if name in OTHER_WORDS["split"][0] and "split" not in columns:
                use = "; named split, it would say which images train, validate and test"
            if name in USUAL:
                use = f"; --sample-weight {display(name)} would let images count by it in training"
            notes.append(not_read(name, use))
    return notes
