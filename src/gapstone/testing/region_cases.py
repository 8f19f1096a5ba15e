"""Regions with the positions of their answers, listed one by one: what pools over regions are checked against.

Written from the documentation of the regions, not from the code that they check.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import torch

from gapstone.regions import Grid, Mask, Pyramid, Region, Segments, Whole, Window

Axis = list[list[int]]
"""Per answer along an axis, or of all axes together, its positions."""


class RegionCase(NamedTuple):
    """A region of a map, the positions of each of its answers, and the shape of the answers after (N, C)."""

    region: Region
    answers: Axis
    shape: tuple[int, ...]


def windows(
    length: int,
    size: int,
    stride: int | None = None,
    before: int = 0,
    after: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Axis:
    """Per window its positions on the map."""
    stride = stride or size
    span = (size - 1) * dilation + 1
    starts = [s for s in range(-before, length, stride) if s + span <= length + after]
    if ceil_mode:
        more = starts[-1] + stride if starts else -before
        over = more + span - length - after
        # it hangs over by less than a stride, and does not start on the padding behind
        if 0 < over < stride and more < length:
            starts.append(more)
    return [[p for p in range(s, s + span, dilation) if 0 <= p < length] for s in starts]


def grid(length: int, cells: int) -> Axis:
    """Per cell of a grid its positions."""
    return [list(range(i * length // cells, -(-(i + 1) * length // cells))) for i in range(cells)]


def boxes(axes: Sequence[Axis], sizes: tuple[int, ...]) -> Axis:
    """Every combination of one list of positions per axis, as numbers of positions of the flattened map."""
    strides = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
    return [
        [sum(p * s for p, s in zip(at, strides, strict=True)) for at in product(*parts)] for parts in product(*axes)
    ]


@cache
def regions(sizes: tuple[int, ...]) -> dict[str, list[RegionCase]]:
    """For a map of these sizes some regions of each kind, by the kind's name."""
    n = len(sizes)
    every = list(range(math.prod(sizes)))
    small = tuple(min(3, s) for s in sizes)
    pad = tuple(s // 2 for s in small)
    cases: dict[str, list[RegionCase]] = {"Whole": [RegionCase(Whole(), [every], ())]}
    cases |= {kind: [] for kind in ("Window", "Grid", "Pyramid", "Mask", "Segments")}

    def window(region: Window, axes: list[Axis]) -> None:
        cases["Window"].append(RegionCase(region, boxes(axes, sizes), tuple(map(len, axes))))

    window(Window(small), [windows(s, k) for s, k in zip(sizes, small, strict=True)])
    window(Window(small, 1, pad), [windows(s, k, 1, p, p) for s, k, p in zip(sizes, small, pad, strict=True)])
    window(
        Window(small, 2, pad, ceil_mode=True),
        [windows(s, k, 2, p, p, 1, True) for s, k, p in zip(sizes, small, pad, strict=True)],
    )
    sides = tuple((k - 1, 0) for k in small)
    window(Window(small, 1, sides), [windows(s, k, 1, k - 1, 0) for s, k in zip(sizes, small, strict=True)])
    window(
        Window(2, 1, 1, dilation=2, ceil_mode=True),
        [windows(s, 2, 1, 1, 1, 2, True) for s in sizes],
    )
    # dilated windows that begin before the map: the first position of each on the map does not ascend
    window(Window(5, 1, "same", dilation=3), [windows(s, 5, 1, 6, 6, 3) for s in sizes])
    same = []
    for s in sizes:
        total = max((-(-s // 2) - 1) * 2 + 3 - s, 0)
        same.append(windows(s, 3, 2, total // 2, total - total // 2))
    window(Window(3, 2, "same"), same)
    for cells in (1, 2, 5):
        axes = [grid(s, cells) for s in sizes]
        cases["Grid"].append(RegionCase(Grid(cells), boxes(axes, sizes), (cells,) * n))
    levels = [boxes([grid(s, cells) for s in sizes], sizes) for cells in (1, 3)]
    cases["Pyramid"].append(RegionCase(Pyramid((1, 3)), levels[0] + levels[1], (len(levels[0]) + len(levels[1]),)))
    # the last position is always in, so that no answer is empty
    mask = torch.arange(len(every)).reshape(sizes) % 3 != 0
    mask.view(-1)[-1] = True
    cases["Mask"].append(RegionCase(Mask(mask), [mask.flatten().nonzero()[:, 0].tolist()], ()))
    labels = torch.arange(len(every)).reshape(sizes) % 4 - 1
    many = max(int(labels.max()) + 1, 1)
    at = [(labels.flatten() == k).nonzero()[:, 0].tolist() for k in range(many)]
    cases["Segments"].append(RegionCase(Segments(labels, many), at, (many,)))
    return cases
