"""Which test images the report shows with their maps: of as many classes as possible, independent of the results."""

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.labels import Labels, class_sets, is_multi_label
from gapstone.training.loop import Rows

MOST_SHOWN = 8
FROM = 500
"""Test images that they are chosen from, drawn at random."""


def shown_images(test: Rows, labels: Labels) -> Rows:
    """At most MOST_SHOWN of the test images, in the order of their classes; `labels` of all images."""
    drawn = np.random.default_rng(0).permutation(test)[:FROM]
    rows = _of_many_classes(drawn, labels[drawn]) if is_multi_label(labels) else _first_of_each(drawn, labels[drawn])
    order = sorted(range(len(rows)), key=lambda place: class_sets(labels[rows[place : place + 1]]))
    return rows[order]


def _first_of_each(drawn: Rows, labels: Labels) -> Rows:
    rank = [int((labels[:i] == label).sum()) for i, label in enumerate(labels)]  # 0 for the first of its class
    return np.asarray(drawn[np.argsort(rank, kind="stable")[:MOST_SHOWN]])


def _of_many_classes(drawn: Rows, labels: NDArray[np.bool_]) -> Rows:
    """One after the other the first that has the class, or none at all, that was shown least."""
    several = np.column_stack([labels, ~labels.any(1)])
    left, seen = list(range(len(drawn))), np.zeros(several.shape[1])
    found: list[int] = []
    while left and len(found) < MOST_SHOWN:
        there = several[left]
        least = int(np.where(there.any(0), seen, np.inf).argmin())
        found.append(left.pop(int(there[:, least].argmax())))
        seen += several[found[-1]]
    return np.asarray(drawn[found])
