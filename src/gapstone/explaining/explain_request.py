"""The options of `explain`, checked before anything is opened, and the classes that `--classes` names."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gapstone.any_size.plan_bands import MEMORY, parse_bytes
from gapstone.console.formatting import display

MOST_ANSWERED = 8
"""Classes of a picture that a multi-label model answers, and that are shown."""


@dataclass(frozen=True)
class ExplainRequest:
    """All options of `gapstone explain`.

    Raises:
        ValueError: If an option is out of its range; the message names it.
    """

    model: str
    images: tuple[str, ...]
    classes: str | None = None
    """Comma-separated labels or indexes; None: the `top` most probable classes."""
    top: int | None = None
    """None: 3; of a multi-label model all that are answered, up to 8."""
    all_classes: bool = False
    box: str = "0.2"
    how: Literal["smooth", "cells"] = "smooth"
    alpha: float = 0.88
    drawings: bool = True
    html: bool = False
    as_json: bool = False
    device: str = "auto"
    batch_size: int = 8
    """On a CPU more at once are slower: their blocks of memory are made anew (`nets.features.AT_ONCE`)."""
    weights: Path | None = None
    plain: bool = False
    """Maps as they are; else minus the mean of all classes' maps where classes compete."""
    native: bool = False
    """Pictures enter the network one by one at their own size, neither cropped nor resized."""
    memory: str = MEMORY
    """That a picture of more than 4096² px may take with `native`: it is streamed (`gs.stream`)."""

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ValueError(f"--top {self.top}: at least one class per picture.")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: at least one picture at a time.")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"--alpha {self.alpha:g}: the opacity of the strongest evidence, above 0 and at most 1.")
        _ = self.threshold, parse_bytes(self.memory)

    def most_shown(self, multi_label: bool) -> int:
        """The most classes of a picture that are shown where none are named."""
        return self.top or (MOST_ANSWERED if multi_label else 3)

    @property
    def threshold(self) -> float | Literal["otsu"] | None:
        """The threshold of boxes as a share of the map's maximum, "otsu", or None for no boxes."""
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


def indexes(names: str, labels: Sequence[str]) -> list[int]:
    """Return the indexes of classes given as comma-separated labels or indexes, in that order, each once.

        >>> indexes("dog,0", ("cat", "dog"))
        [1, 0]

    A label takes precedence over an index ("7" is the class labelled 7 if there is one). Labels may contain commas.
    Raises ValueError with the closest labels if a name is neither.
    """
    parts, classes = names.split(","), []
    while parts:
        for taken in range(len(parts), 0, -1):  # the longest label first: "tench, Tinca tinca" is one
            name = ",".join(parts[:taken]).strip()
            if name in labels or taken == 1:
                break
        del parts[:taken]
        classes.append(_index(name, labels))
    return list(dict.fromkeys(classes))


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
    if close:
        hint = f"Close to it: {', '.join(map(display, close))}."
    else:
        hint = f"Among them: {', '.join(map(display, labels[:8]))}{', …' if len(labels) > 8 else ''}."
    raise ValueError(f"--classes {display(name)}: no such label; {known}. {hint}")
