"""The table of images in the terminal: names relative to their common folder, labels with their probabilities."""

import os
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display


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


def image_table(names: Sequence[str]) -> tuple[Table, list[Text]]:
    """Return a table without rows, and the first cell of each row; names are short, to fit a narrow terminal."""
    folder = common_folder(names)
    title = Text(f"in {folder}") if folder else None
    table = Table("image", "prediction (confidence)", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    return table, [Text(relative_to(name, folder)) for name in names]


def class_list(classes: Sequence[tuple[str, float]]) -> Text:
    """Return labels with their probabilities, the first label in bold."""
    text = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in classes))
    text.stylize("bold", 0, len(display(classes[0][0])))
    return text
