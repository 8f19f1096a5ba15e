"""What is taken for what, as a picture: one <svg> for any page of gapstone's, without a script.

    Markup of a K × K grid: row = true class, column = predicted class, colour = share of the row.

Up to MOST_WITH_NUMBERS classes have shares and counts in their cells. More are in an order in which classes that are
taken for each other lie together, with their names up to MOST_NAMED.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from gapstone.console.formatting import display

MOST_WITH_NUMBERS, MOST_NAMED, MOST_DRAWN = 25, 120, 400
FEW = 5
"""Test images of a class: the shares of fewer say little."""
LEVELS = 12
"""Of colour, where cells have no numbers: each is one path."""
LONGEST = 22
"""Characters of a name in the picture; all of it is its title."""

Counts = NDArray[np.int64]


def confusion_picture(counts: ArrayLike, classes: Sequence[str], images: Sequence[int] | None = None) -> Markup | None:
    """The picture; None of more than MOST_DRAWN classes.

        >>> confusion_picture([[9, 1], [2, 8]], ["cat", "dog"])
        Markup('<svg class="confusion" viewBox=…')

    Args:
        counts: predictions, `counts[true][predicted]`, of one model or of several trials together.
        classes: their names.
        images: test images of each class; by default the sums of the rows. Classes with fewer than FEW are marked.
    """
    table = np.asarray(counts, np.int64)
    if len(classes) > MOST_DRAWN or not len(classes):
        return None
    of_class = np.asarray(table.sum(1) if images is None else images)
    order = np.arange(len(classes)) if len(classes) <= MOST_WITH_NUMBERS else alike_together(table)
    table, names = table[order][:, order], [ClassName(classes[k], int(of_class[k])) for k in order]
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = 46 if len(names) <= 12 else 33 if len(names) <= MOST_WITH_NUMBERS else 10 if len(names) <= MOST_NAMED else 3
    cells = _numbered(table, shares, side) if len(names) <= MOST_WITH_NUMBERS else _coloured(shares, side)
    beside = _names(names, side) if len(names) <= MOST_NAMED else Markup()
    room = 0.65 * name_font(side) * max(name.width for name in names) + 14 if beside else 4
    top = room if side > 3 else 4
    width, height = room + side * len(names) + 4, top + side * len(names) + 4
    label = f"Confusion of {len(names)} classes: true classes are rows, predicted ones columns"
    frame = Markup('<rect x="0" y="0" width="{0}" height="{0}" fill="none" stroke="var(--rule, #ccc)"/>')
    return Markup(
        '<svg class="confusion" viewBox="{:.0f} {:.0f} {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{}">'
        "{}{}{}</svg>"
    ).format(-room, -top, width, height, width, label, cells, frame.format(side * len(names)), beside)


def most_confused(counts: ArrayLike, classes: Sequence[str], most: int = 5) -> list[dict[str, Any]]:
    """The classes that are most often taken for another, by share of their images, each with a sentence.

    >>> most_confused([[9, 1], [4, 6]], ["cat", "dog"], most=1)
    [{'true': 'dog', 'predicted': 'cat', 'count': 4, 'of': 10, 'share': 0.4, 'sentence': 'dog is taken for cat …'}]
    """
    table = np.asarray(counts, np.int64)
    totals = table.sum(1)
    wrong = [(int(i), int(j)) for i, j in np.argwhere(table > 0) if i != j]
    wrong.sort(key=lambda pair: (-table[pair] / totals[pair[0]], -table[pair], pair))
    return [
        {
            "true": classes[i],
            "predicted": classes[j],
            "count": int(table[i, j]),
            "of": int(totals[i]),
            "share": float(table[i, j] / totals[i]),
            "sentence": f"{classes[i]} is taken for {classes[j]} in {_percent(table[i, j] / totals[i])} of its "
            f"predictions ({table[i, j]:,} of {totals[i]:,}).",
        }
        for i, j in wrong[:most]
    ]


def alike_together(counts: Counts) -> NDArray[np.intp]:
    """An order of the classes in which those that are taken for each other lie side by side."""
    if len(counts) < 3:
        return np.arange(len(counts))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    apart = 1 - (shares + shares.T) / 2
    np.fill_diagonal(apart, 0)
    return np.asarray(leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True)))


class ClassName:
    """The name of a class as the picture shows it."""

    def __init__(self, text: str, images: int) -> None:
        self.full = display(text) + (f" ({images} test image{'' if images == 1 else 's'})" if images < FEW else "")
        self.few = images < FEW
        self.short, self.width = "", 0
        for character in display(text):
            wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if self.width + wide > LONGEST:
                self.short += "…"
                self.width += 1
                break
            self.short += character
            self.width += wide
        if self.few:
            self.short, self.width = f"* {self.short}", self.width + 2


def _names(names: Sequence[ClassName], side: int) -> Markup:
    """Beside the rows and, turned, above the columns."""
    size = name_font(side)
    lines = []
    for place, name in enumerate(names):
        middle = side * (place + 0.5) + 0.35 * size
        fill = "var(--soft, #666)" if name.few else "var(--ink, #222)"
        for turned in (Markup(), Markup(' transform="rotate(-90)"')):
            x, anchor = (6, "start") if turned else (-6, "end")
            lines.append(
                Markup(
                    '<text x="{}" y="{:.1f}" text-anchor="{}" font-size="{:.1f}" fill="{}"{}><title>{}</title>{}</text>'
                ).format(x, middle, anchor, size, fill, turned, name.full, name.short)
            )
    return Markup("").join(lines)


def name_font(side: int) -> float:
    """Of names beside cells of that side."""
    return min(12.0, 0.95 * side)


def _numbered(table: Counts, shares: NDArray[np.float64], side: int) -> Markup:
    """Cells with the share of the row in per cent, and the count below it."""
    cells = []
    large, small = (13, 9) if side > 40 else (10, 7.5)
    for i, j in np.argwhere(table > 0).tolist():
        x, y, middle = side * j, side * i, side * (j + 0.5)
        text = Markup(
            '<text x="{0}" y="{1:.1f}" font-size="{2}">{3}</text><text x="{0}" y="{4:.1f}" font-size="{5}">{6}</text>'
        ).format(
            middle, y + side * 0.48, large, _short_percent(shares[i, j]), y + side * 0.8, small, _count(table[i, j])
        )
        cells.append(
            Markup('<rect x="{0}" y="{1}" width="{2}" height="{2}" fill="{3}"/>{4}').format(
                x, y, side, _colour(float(shares[i, j]), i == j), text
            )
        )
    return Markup('<g text-anchor="middle" style="fill:var(--ink, #222)">{}</g>').format(Markup("").join(cells))


def _coloured(shares: NDArray[np.float64], side: int) -> Markup:
    """Cells without numbers: those of one colour are one path."""
    paths = []
    levels = np.ceil(np.sqrt(shares) * LEVELS).astype(int)  # a square root: most confusions are small
    diagonal = np.eye(len(shares), dtype=bool)
    for right in (False, True):
        for level in range(1, LEVELS + 1):
            places = np.argwhere((levels == level) & (diagonal == right)).tolist()
            if places:
                squares = "".join(f"M{side * j} {side * i}h{side}v{side}h-{side}z" for i, j in places)
                colour = _colour((level / LEVELS) ** 2, right)
                paths.append(Markup('<path d="{}" fill="{}"/>').format(squares, colour))
    return Markup("").join(paths)


def _colour(share: float, right: bool) -> str:
    strength = 0.08 + 0.6 * (share if right else min(1.0, 1.6 * float(np.sqrt(share))))
    return f"rgb(var(--{'right, 0 114 178' if right else 'wrong, 213 94 0'}) / {strength:.2f})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _short_percent(share: float) -> str:
    """>>> _short_percent(0.934), _short_percent(0.001)
    ('93', '<1')
    """
    return f"{100 * share:.0f}" if share >= 0.005 else "<1"


def _count(number: int) -> str:
    """>>> _count(812), _count(12_345)
    ('812', '12k')
    """
    return f"{number}" if number < 10_000 else f"{number // 1000}k"
