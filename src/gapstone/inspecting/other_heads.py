"""What each other head would cost on this network."""

from collections.abc import Callable, Sequence

import torch

from gapstone.heads import Head
from gapstone.heads.recipes import RECIPES
from gapstone.inspecting.input_sizes import InputSizes, alike
from gapstone.inspecting.network_costs import OtherHead
from gapstone.nets.on_meta import on_meta
from gapstone.tracing.arithmetic import ArithmeticCounter

MORE = ("fc:512", "fc:4096,4096", "fc:grid=7")
"""After every head by its bare name."""
SPECS = (*RECIPES, *MORE)
AS_IT_IS = "as it is"


def other_heads(
    trunk: int, size_of_one: int, channels: int, classes: int, cells: Sequence[int], accepted: str, flat: str
) -> list[OtherHead]:
    """One row per head.

    trunk: parameters before the head; size_of_one: bytes of each; channels, cells: of the last map; accepted, flat: the
    image sizes that the network takes under a head for maps of any size, and under one that flattens them.
    """
    rows = []
    for spec in SPECS:
        with on_meta():
            head = Head(spec, channels, classes, tuple(cells)).eval()
            maps = torch.empty(1, channels, *cells)
            with torch.no_grad(), ArithmeticCounter() as counter:
                head(maps)
        own = sum(p.numel() for p in head.parameters())
        sizes = flat if head.size is not None else accepted
        rows.append(OtherHead(spec, own, trunk + own, counter.total.macs, (trunk + own) * size_of_one, sizes))
    return rows


def flattened(
    cells: Callable[[int, int], tuple[int, ...] | None], size: tuple[int, int], accepted: InputSizes, stride: int
) -> str:
    """The image sizes whose last map has as many cells as that of `size`: what a head that flattens the map takes."""
    h, w = size
    only = f"{h}×{w} px only"
    if accepted.kind == "only" or accepted.squares:
        return only
    if h == w:
        low, high = alike(lambda n: cells(n, n), h, stride)
        if cells(low, high) == cells(h, w):
            return only if low == high else f"sides {low}–{high} px"
    (top, bottom), (left, right) = (
        alike(lambda n: cells(n, w), h, stride),
        alike(lambda n: cells(h, n), w, stride),
    )
    return only if top == bottom and left == right else f"{top}–{bottom} × {left}–{right} px"
