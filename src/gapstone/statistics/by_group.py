"""Test images that are not independent, such as those of one patient: the variance is by group.

    Z_sg = d̄_s + (G / n) · Σ_{i in g} (d_si − d̄_s)

has the same mean over the groups as d has over the images, and goes through the crossed design in its place. Ten images
of each patient, taken for independent, make 21 % false findings. Source: the linearised cluster variance of surveys
(Liang & Zeger 1986, doi 10.1093/biomet/73.1.13), which is statsmodels' `cov_type="cluster"`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapstone.console.formatting import count_noun
from gapstone.statistics.labels import Labels, is_multi_label, of_class

FEWEST = 5
"""Groups, in the test set and, where classes count the same, in every class: of fewer, nobody knows how much they
differ."""
FEWEST_EVEN = 3.0
"""Groups of equal size that unequal ones must be worth."""


@dataclass(frozen=True)
class Groups:
    """Which test images belong together."""

    of: Mapping[int, NDArray[np.integer]]
    """By seed (or fold): a number for each of its test images, shared by those of a group."""
    noun: str = "test group"
    """What is counted instead of images."""
    refused: str | None = None
    """A sentence, where there are too few for any interval (`too_few`)."""
    member: str = "image"
    """What there may be several of in a group."""

    def at(self, number: int) -> NDArray[np.integer] | None:
        """Those of a seed or fold; None where every image is by itself."""
        numbers = np.asarray(self.of[number])
        return None if len(np.unique(numbers)) == len(numbers) else numbers


def by_group(d: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """(S, n) values of images → (S, G) of groups, with the same mean for each seed.

    >>> by_group([[1, 0, 0, 1]], ["a", "a", "b", "c"])
    array([[0.5 , 0.125, 0.875]])
    """
    d = np.asarray(d, np.float64)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    mean, count = d.mean(1, keepdims=True), int(group.max()) + 1
    sums = np.stack([np.bincount(group, row, count) for row in d - mean])
    return np.asarray(mean + sums * count / d.shape[1], np.float64)


def evenness(groups: ArrayLike) -> float:
    """How many groups of equal size they are worth, as a share of their number: n² / Σ n_g² / G (Kish 1965).

    >>> evenness(["a", "a", "b", "b"]), evenness(["a", "a", "a", "b"])
    (1.0, 0.8)
    """
    _, sizes = np.unique(np.asarray(groups), return_counts=True)
    return float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum()) / len(sizes)


def groups_of_classes(groups: NDArray[np.integer], labels: Labels, classes: int) -> list[int]:
    """How many groups each class has images of.

    >>> groups_of_classes(np.array([0, 0, 1]), np.array([0, 0, 1]), 3)
    [1, 1, 0]
    """
    return [len(np.unique(groups[of_class(labels, k)])) for k in range(classes)]


def too_few(groups: NDArray[np.integer], labels: Labels | None = None) -> str | None:
    """A sentence where there are too few groups for an interval; None where there are enough.

        >>> too_few(np.array([0, 0, 1, 1]))
        'The test images are of 2 groups: from 5 on they show how far the result depends on the group.'

    Args:
        groups: of each test image.
        labels: of each test image, where every class counts the same: each that has images needs enough groups.
    """
    needed = f"from {FEWEST} on they show how far the result depends on the group"
    count = len(np.unique(groups))
    if count < FEWEST:
        return f"The test images are of {count_noun(count, 'group')}: {needed}."
    worth = count * evenness(groups)
    if worth < FEWEST_EVEN:
        return (
            f"The {count} test groups are of so unequal size that they are worth {worth:.1f} equal ones: from "
            f"{FEWEST_EVEN:g} on they show how far the result depends on the group."
        )
    if labels is None:
        return None
    classes = labels.shape[1] if is_multi_label(labels) else int(labels.max()) + 1
    least = min(filter(None, groups_of_classes(groups, labels, classes)), default=FEWEST)
    if least < FEWEST:
        return f"The test images of a class are of {count_noun(least, 'group')} only: {needed}."
    return None
