"""The costs of every other head that reads a network's last map."""

from collections.abc import Callable, Sequence

import torch

from gapstone.heads import Head, parse
from gapstone.heads.recipes import RECIPES
from gapstone.inspecting.input_sizes import InputSizes, sides_with_equal_maps
from gapstone.inspecting.network_costs import OtherHead
from gapstone.nets.on_meta import on_meta
from gapstone.tracing.arithmetic import ArithmeticCounter

VARIANTS = ("fc:512", "fc:4096,4096", "fc:grid=7")
"""Heads with arguments, listed after every head by its bare name."""
SPECS = (*(name for name in RECIPES if parse(name).reads.maps_alone), *VARIANTS)
AS_IT_IS = "as it is"


def other_heads(
    trunk: int, size_of_one: int, channels: int, classes: int, cells: Sequence[int], accepted: str, flat: str
) -> list[OtherHead]:
    """Return the costs of each head on a last map of so many channels, cells and classes.

    `trunk` is the number of parameters before the head, of `size_of_one` bytes each. Which image sizes the network
    takes: `accepted` with a head that takes maps of any size, `flat` with one that flattens the map.
    """
    rows = []
    for spec in SPECS:
        with on_meta():
            head = Head(spec, channels, classes, tuple(cells)).eval()
            maps = torch.empty(1, channels, *cells)
            with torch.no_grad(), ArithmeticCounter() as counter:
                head(maps)
        parameters = sum(p.numel() for p in head.parameters())
        sizes = flat if head.size is not None else accepted
        rows.append(
            OtherHead(
                spec, parameters, trunk + parameters, counter.total.macs, (trunk + parameters) * size_of_one, sizes
            )
        )
    return rows


def flattening_sizes(
    cells: Callable[[int, int], tuple[int, ...] | None], size: tuple[int, int], accepted: InputSizes, stride: int
) -> str:
    """Return the image sizes with as many cells as `size`: those that a head that flattens the map takes."""
    h, w = size
    only = f"{h}×{w} px only"
    if accepted.kind == "only" or accepted.squares:
        return only
    if h == w:
        low, high = sides_with_equal_maps(lambda n: cells(n, n), h, stride)
        if cells(low, high) == cells(h, w):
            return only if low == high else f"sides {low}–{high} px"
    (top, bottom), (left, right) = (
        sides_with_equal_maps(lambda n: cells(n, w), h, stride),
        sides_with_equal_maps(lambda n: cells(h, n), w, stride),
    )
    return only if top == bottom and left == right else f"{top}–{bottom} × {left}–{right} px"
