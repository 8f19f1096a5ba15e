"""The table of images in the terminal: names relative to their common folder, labels with their probabilities."""

import os
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.models.class_probabilities import ANSWERED


def common_folder(names: Iterable[str]) -> str:
    """Return the deepest folder that holds all files; "" if there is none.

    >>> common_folder(["photos/a/1.jpg", "photos/b/1.jpg"])
    'photos'
    """
    try:
        return os.path.commonpath(sorted({os.path.dirname(name) for name in names}))
    except ValueError:  # no names, or relative and absolute ones
        return ""


def relative_to(name: str, folder: str) -> str:
    """Return `name` relative to `folder`; `name` itself if there is no folder."""
    return os.path.relpath(name, folder) if folder else name


def image_table(names: Sequence[str], multi_label: bool = False) -> tuple[Table, list[Text]]:
    """Return a table without rows, and the first cell of each row; names are short, to fit a narrow terminal."""
    folder = common_folder(names)
    title = Text(f"in {folder}") if folder else None
    predicted = "predictions (and what is below 50 %)" if multi_label else "prediction (confidence)"
    table = Table("image", predicted, box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    return table, [Text(relative_to(name, folder)) for name in names]


def class_list(classes: Sequence[tuple[str, float]], multi_label: bool = False) -> Text:
    """Return labels with their probabilities, the first label in bold; with `multi_label` as `answered_list`."""
    if multi_label:
        return answered_list(classes)
    text = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in classes))
    text.stylize("bold", 0, len(display(classes[0][0])))
    return text


def answered_list(classes: Sequence[tuple[str, float]]) -> Text:
    """Return the labels of 50 % or more, most probable first, and the others in brackets.

    >>> str(answered_list([("cat", 0.93), ("dog", 0.81), ("fox", 0.12)])), str(answered_list([("fox", 0.12)]))
    ('cat 93.0 %, dog 81.0 % (fox 12.0 %)', 'none (fox 12.0 %)')
    """
    text, others = Text(), [f"{display(label)} {100 * p:.1f} %" for label, p in classes if p < ANSWERED]
    for label, p in classes:
        if p >= ANSWERED:
            text.append(", " if text else "")
            text.append(display(label), "bold")
            text.append(f" {100 * p:.1f} %")
    if not text:
        text.append("none", "dim")
    return text.append(f" ({', '.join(others)})") if others else text
