"""Which class of a model each class of DATA is: by its name, or by the same name spelled otherwise."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.sources import few


class ClassesError(ValueError):
    """DATA has classes that the model does not know; the message says which, and what is near."""


def match_classes(classes: Sequence[str], labels: Sequence[str], model: str) -> tuple[NDArray[np.int64], str | None]:
    """(len(classes),) the model's class of each class of DATA, and a sentence if they are spelled otherwise.

        >>> match_classes(("Golden_Retriever", "tabby"), ("tabby, tabby cat", "golden retriever"), "timm:resnet18")
        (array([1, 0]), "timm:resnet18 spells 2 of the classes otherwise: 'Golden_Retriever' is its 'golden …")

    Capitals, blanks, dashes and underscores do not count where names differ in nothing else; of a label that names its
    class in several ways, with commas, as ImageNet's do, each way counts. The model may have more classes than DATA.

    Raises:
        ClassesError: a class is none of the model's, or could be several of them.
    """
    exact = {label: k for k, label in enumerate(labels)}
    ways: dict[str, set[int]] = {}
    for k, label in enumerate(labels):
        for name in (label, *label.split(",")):
            ways.setdefault(_plain(name), set()).add(k)
    found = {name: [exact[name]] if name in exact else sorted(ways.get(_plain(name), ())) for name in classes}
    unknown = [name for name in classes if not found[name]]
    if unknown:
        raise ClassesError(
            f"{display(model)} does not know {count_noun(len(unknown), 'class', 'classes')} of DATA: {few(unknown)}. "
            f"It has {count_noun(len(labels), 'class', 'classes')}: {few(labels)}. Name the folders as its classes are "
            f"named, or leave the others out."
        )
    for name in classes:
        if len(found[name]) > 1:
            raise ClassesError(
                f"DATA's class {name!r} could be {few([labels[k] for k in found[name]])} of {display(model)}: give it "
                f"the whole name."
            )
    matched = [found[name][0] for name in classes]
    if shared := [k for k, count in Counter(matched).items() if count > 1]:
        both = [name for name, k in zip(classes, matched, strict=True) if k == shared[0]]
        raise ClassesError(f"DATA's classes {few(both)} are one class of {display(model)}, {labels[shared[0]]!r}.")
    return np.array(matched, np.int64), _note(classes, labels, matched, model)


def _note(classes: Sequence[str], labels: Sequence[str], matched: Sequence[int], model: str) -> str | None:
    other = [(name, labels[k]) for name, k in zip(classes, matched, strict=True) if name != labels[k]]
    if not other:
        return None
    pairs = ", ".join(f"{name!r} is its {label!r}" for name, label in other[:3])
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    return f"{display(model)} spells {len(other)} of the classes otherwise: {pairs}{more}."


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()
