"""Pyramid(levels): grids of several sizes, their cells one after the other (spatial pyramid pooling).

He, Zhang, Ren, Sun: Spatial pyramid pooling in deep convolutional networks, arXiv 1406.4729.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gapstone.regions.grid import Grid
from gapstone.regions.region import PerAxis, Region, check_whole_numbers, settle


@dataclass(frozen=True)
class Pyramid:
    """Several grids side by side: (N, C, H, W) → (N, C, 1 + 4 + 16) with levels (1, 2, 4), whatever H and W.

    Examples:
        >>> gs.pool(torch.rand(2, 512, 14, 10), "max", over=gs.Pyramid((1, 2, 4))).shape
        torch.Size([2, 512, 21])

    Args:
        levels: cells per axis of each grid. The answers of a level stand row by row.
    """

    levels: Sequence[PerAxis]

    def __post_init__(self) -> None:
        settle(self, "levels")
        if not isinstance(self.levels, tuple) or not self.levels:
            raise ValueError(f"Pyramid({self.levels!r}): give a tuple with one grid size per level, such as (1, 2, 4).")
        for level in self.levels:
            check_whole_numbers("Pyramid", 1, level=level)

    def place(self, shape: tuple[int, ...]) -> tuple[Region, ...]:
        return tuple(Grid(level) for level in self.levels)
