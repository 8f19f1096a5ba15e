"""Grid(size): the map cut into a fixed number of cells, whatever its size (adaptive pooling).

Cell i of g on L positions is [floor(i L / g), ceil((i + 1) L / g)): cells share an edge row where g does not divide L,
and repeat positions where g is larger than L.
"""

from dataclasses import dataclass

from gapstone.regions.places import Cells, Intervals
from gapstone.regions.region import PerAxis, check_extent, check_whole_numbers, per_axis, settle


@dataclass(frozen=True)
class Grid:
    """A grid of cells over the map, whatever its size: (N, C, H, W) → (N, C, 7, 7) with `Grid(7)`.

    Examples:
        >>> gs.pool(torch.rand(2, 512, 14, 10), "mean", over=gs.Grid((2, 3))).shape
        torch.Size([2, 512, 2, 3])

    Args:
        size: cells, one number or one per axis.
    """

    size: PerAxis

    def __post_init__(self) -> None:
        settle(self, "size")
        check_whole_numbers("Grid", 1, size=self.size)

    def place(self, shape: tuple[int, ...]) -> Intervals:
        cells = per_axis(self.size, len(shape) - 2, "Grid size")
        for cells_here, length in zip(cells, shape[2:], strict=True):
            check_extent(self, cells_here, 1, length)
        return Intervals(tuple(Cells(n, length) for n, length in zip(cells, shape[2:], strict=True)))
