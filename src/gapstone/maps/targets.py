"""Which classes are asked for: numbers or names, the same for every image or each image's own.

A list is the same for every image; a tensor or an array (N,), as labels come, is one class of each image.
"""

import difflib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gapstone.console.formatting import count_noun
from gapstone.heads.contributions import MEAN

NumberOrName = int | str
Classes = NumberOrName | Sequence[NumberOrName] | Sequence[Sequence[NumberOrName]] | Tensor | NDArray[Any]


def and_mean(selected: Tensor | None) -> Tensor | None:
    """The classes (N, K), and at the end the mean of all."""
    return None if selected is None else F.pad(selected, (0, 1), value=MEAN)


def select_classes(
    classes: Classes | None, top_k: int | None, logits: Tensor, labels: Sequence[str] | None
) -> Tensor | None:
    """(N, k) whole numbers; None for all of them. Raises ValueError."""
    n, count = logits.shape
    if labels is not None and len(labels) != count:
        raise ValueError(f"explain: {len(labels)} labels for {count} logits")
    if top_k is not None:
        if classes is not None:
            raise ValueError(f"explain: give classes or top_k={top_k}, not both")
        if not _is_integer(top_k) or top_k < 1:
            raise ValueError(f"explain: top_k={top_k!r} must be a whole number, at least 1")
        return logits.float().topk(min(top_k, count), 1).indices
    if classes is None:
        return None
    if isinstance(classes, np.ndarray):
        classes = torch.from_numpy(classes)
    if isinstance(classes, Tensor):
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(f"explain: classes are whole numbers, and this tensor is {classes.dtype}")
        if classes.dim() == 1:  # as labels come with a batch; and as captum and pytorch-grad-cam take them
            if len(classes) != n:
                raise ValueError(
                    f"explain: a tensor or an array of classes has one for each image, and this one has "
                    f"{len(classes)} for {count_noun(n, 'image')}; these classes of every image are a list: "
                    f"classes.tolist()"
                )
            classes = classes[:, None]
        classes = classes.tolist()
    rows: list[Any] = [classes] if isinstance(classes, int | str | Integral) else list(classes)
    if not rows:
        raise ValueError("explain: classes is empty; None stands for all of them")
    nested = [isinstance(row, Sequence) and not isinstance(row, str) for row in rows]
    if any(nested) and not all(nested):
        raise ValueError("explain: classes is either one list for all images or one list per image, not a mixture")
    if not all(nested):
        rows = [rows]
    elif len(rows) != n:
        raise ValueError(f"explain: classes has {len(rows)} rows for {n} images; give one row per image")
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"explain: classes has rows of {sorted(lengths)} classes; give each image as many, 1 or more")
    numbers = [[class_number(name, count, labels) for name in row] for row in rows]
    return torch.tensor(numbers, device=logits.device).expand(n, -1)


def class_number(name: NumberOrName, count: int, labels: Sequence[str] | None) -> int:
    """A class's number, from its number or its name."""
    if labels is not None and name in labels:
        return list(labels).index(str(name))
    if isinstance(name, str) and not name.lstrip("-").isdecimal():
        if labels is None:
            raise ValueError(
                f"explain: there is no class {name!r}: this model has no labels; give numbers from 0 to {count - 1}"
            )
        close = difflib.get_close_matches(name, labels, 3)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(labels[:8])}" + "…" * (count > 8)
        )
        raise ValueError(f"explain: there is no class {name!r}; {hint}")
    if not isinstance(name, str) and not _is_integer(name):
        raise ValueError(f"explain: {name!r} is no class: give whole numbers, or names where there are labels")
    number = int(name)
    if not 0 <= number < count:
        raise ValueError(f"explain: there is no class {number}: they go from 0 to {count - 1}")
    return number


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
