"""Which images of different sizes go through a network together.

A batch costs its pixels, padding included, and for being a batch at all as much as so many pixels more: the weights are
read (and on CPUs laid out anew) once per batch, and each call takes its time however little there is to do; a watched
one takes more. Batches are joined as long as that saves more than the padding adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from gapstone.ragged.extents import Size

MOST_PIXELS = 1 << 20
"""In a batch, padding included: VGG's first maps of so many take 0.5 GB. A larger image goes alone."""
FILLING = 1.1
"""What a pixel costs where padding is kept out: a tenth more."""
AT_ONCE = 256
"""Sizes compared with each other; more are cut into such groups, sorted."""


@dataclass(frozen=True)
class Batch:
    """Images by number, those of one size side by side."""

    images: tuple[int, ...]
    size: Size
    """Padded to it."""
    pixels: int
    """Of the images themselves."""

    several: bool
    """Of several sizes."""

    @property
    def padded(self) -> int:
        """Pixels that it computes."""
        return len(self.images) * prod(self.size)

    @property
    def padding(self) -> float:
        """The share of it that is padding."""
        return 1 - self.pixels / self.padded


@dataclass(frozen=True)
class BatchPlan:
    """How images of different sizes go through a network, and why so."""

    batches: tuple[Batch, ...]
    why: str
    refused: bool = False
    """The network has a call that padding, or other images, cannot be kept out of."""

    def __str__(self) -> str:
        images, several = sum(len(b.images) for b in self.batches), sum(b.several for b in self.batches)
        padded = 1 - sum(b.pixels for b in self.batches) / max(1, sum(b.padded for b in self.batches))
        kinds = f"{several:,} of several sizes ({padded:.0%} padding, kept out)" if several else "each of one size"
        return f"{images:,} images in {len(self.batches):,} batches, {kinds}: {self.why}"


def buckets(sizes: Sequence[Size], why: str, refused: bool = False) -> BatchPlan:
    """Equal sizes together.

    >>> [batch.images for batch in buckets([(8, 8), (9, 8), (8, 8)], "…").batches]
    [(0, 2), (1,)]
    """
    return BatchPlan(tuple(_cut(_buckets(sizes), sizes)), why, refused)


def singly(sizes: Sequence[Size], why: str) -> BatchPlan:
    """Every image alone: the network lets images of one batch change each other's answers."""
    return BatchPlan(tuple(_batch({size: [number]}, sizes) for number, size in enumerate(sizes)), why, refused=True)


def joined(sizes: Sequence[Size], plain: float, watched: float, why: str) -> BatchPlan:
    """Joined two by two, always those that save most; taken apart again where that did not pay.

    plain, watched: what a batch costs beyond its pixels, in pixels: of one size, and of several.
    """
    sorted_buckets = list(_buckets(sizes).items())
    batches: list[Batch] = []
    for start in range(0, len(sorted_buckets), AT_ONCE):
        groups = sorted_buckets[start : start + AT_ONCE]
        for members in _join(groups, watched):
            together = dict(groups[k] for k in members)
            apart, batch = _cut(together, sizes), _batch(together, sizes)
            cost = sum(plain + part.padded for part in apart)
            batches += [batch] if len(together) > 1 and watched + FILLING * batch.padded < cost else apart
    return BatchPlan(tuple(batches), why)


def _buckets(sizes: Sequence[Size]) -> dict[Size, list[int]]:
    buckets: dict[Size, list[int]] = {}
    for number in sorted(range(len(sizes)), key=lambda k: sizes[k]):
        buckets.setdefault(sizes[number], []).append(number)
    return buckets


def _cut(together: dict[Size, list[int]], sizes: Sequence[Size]) -> list[Batch]:
    """Buckets as batches that fit."""
    batches = []
    for size, numbers in together.items():
        most = max(1, MOST_PIXELS // prod(size))
        batches += [_batch({size: numbers[k : k + most]}, sizes) for k in range(0, len(numbers), most)]
    return batches


def _batch(together: dict[Size, list[int]], sizes: Sequence[Size]) -> Batch:
    images = tuple(number for size in sorted(together) for number in together[size])
    longest = tuple(map(max, zip(*together, strict=True)))
    return Batch(images, longest, sum(prod(sizes[number]) for number in images), len(together) > 1)


def _join(groups: Sequence[tuple[Size, list[int]]], overhead: float) -> list[list[int]]:
    """Which of the groups make a batch."""
    longest = np.array([size for size, _ in groups], np.int64)
    counts = np.array([len(numbers) for _, numbers in groups], np.int64)
    members = [[k] for k in range(len(groups))]
    costs = counts * longest.prod(1)

    def savings(k: int) -> NDArray[np.float64]:
        both = np.maximum(longest, longest[k]).prod(1) * (counts + counts[k])
        saved: NDArray[np.float64] = float(overhead) + costs + costs[k] - both
        saved[(both > MOST_PIXELS) | (counts == 0)] = -np.inf
        saved[k] = -np.inf
        return saved

    table = np.stack([savings(k) for k in range(len(groups))])
    while len(groups) > 1:
        a, b = divmod(int(table.argmax()), len(groups))
        if table[a, b] <= 0:
            break
        longest[a] = np.maximum(longest[a], longest[b])
        counts[a] += counts[b]
        costs[a] = counts[a] * longest[a].prod()
        counts[b] = 0
        members[a] += members[b]
        members[b] = []
        table[a] = table[:, a] = savings(a)
        table[b] = table[:, b] = -np.inf
    return [sorted(some) for some in members if some]
