"""What is asked of `explain`, checked before anything is opened; and which classes `--classes` means."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gapstone.console.formatting import display


@dataclass(frozen=True)
class ExplainRequest:
    """All options of `gapstone explain`.

    Raises: ValueError naming the option that cannot be.
    """

    model: str
    images: tuple[str, ...]
    classes: str | None = None
    """Comma-separated labels or indexes; the most probable ones where None."""
    top: int = 3
    all_classes: bool = False
    box: str = "0.2"
    how: Literal["smooth", "cells"] = "smooth"
    alpha: float = 0.88
    drawings: bool = True
    html: bool = False
    as_json: bool = False
    device: str = "auto"
    batch_size: int = 32
    weights: Path | None = None
    native: bool = False
    """Each picture as it is, neither cut nor resized; one after another."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"--top {self.top}: at least one class per picture.")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: at least one picture at a time.")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"--alpha {self.alpha:g}: the opacity of the strongest evidence, above 0 and at most 1.")
        _ = self.threshold

    @property
    def threshold(self) -> float | Literal["otsu"] | None:
        """Of the map's maximum, what a box must be above."""
        if self.box == "none":
            return None
        if self.box == "otsu":
            return "otsu"
        try:
            threshold = float(self.box)
        except ValueError:
            threshold = -1
        if not 0 <= threshold < 1:
            raise ValueError(
                f"--box {self.box}: a share of the map's maximum from 0 to below 1, such as 0.2, or otsu, or none."
            )
        return threshold


def indexes(asked: str, labels: Sequence[str]) -> list[int]:
    """The classes meant by comma-separated labels or indexes, in the order given, each once.

        >>> indexes("dog,0", ("cat", "dog"))
        [1, 0]

    A label goes before an index ("7" is the digit where a label is called so), and a label may hold commas itself.
    Raises: ValueError for what is neither, with the labels closest to it.
    """
    parts, chosen = asked.split(","), []
    while parts:
        for taken in range(len(parts), 0, -1):  # the longest label first: "tench, Tinca tinca" is one
            name = ",".join(parts[:taken]).strip()
            if name in labels or taken == 1:
                break
        del parts[:taken]
        chosen.append(_index(name, labels))
    return list(dict.fromkeys(chosen))


def _index(name: str, labels: Sequence[str]) -> int:
    same = [k for k, label in enumerate(labels) if label == name]
    if len(same) > 1:
        raise ValueError(f"--classes {name}: {len(same)} classes are called so; give the index: {same}.")
    if same:
        return same[0]
    known = f"the model knows {len(labels):,} classes"
    if name.isdecimal():
        if int(name) < len(labels):
            return int(name)
        raise ValueError(f"--classes {name}: {known}, with the indexes 0 to {len(labels) - 1}.")
    if not name:
        raise ValueError("--classes: an empty name; give labels or indexes with commas between them.")
    lower = {label.lower(): label for label in labels}
    close = [label for label in labels if name.lower() in label.lower()]
    close += [lower[word] for word in difflib.get_close_matches(name.lower(), lower, n=5)]
    close = list(dict.fromkeys(close))[:5]
    hint = f"Close to it: {', '.join(map(display, close))}." if close else _some(labels)
    raise ValueError(f"--classes {display(name)}: no such label; {known}. {hint}")


def _some(labels: Sequence[str]) -> str:
    return f"Among them: {', '.join(map(display, labels[:8]))}{', …' if len(labels) > 8 else ''}."
