"""WHERE: a region is a value that says which boxes of a map are pooled. To add one: one file, one line."""

from gapstone.regions.boxes import Axis
from gapstone.regions.grid import Grid
from gapstone.regions.region import Region
from gapstone.regions.whole import Whole
from gapstone.regions.window import Window

REGIONS: tuple[type[Region], ...] = (Whole, Window, Grid)

__all__ = ["REGIONS", "Axis", "Grid", "Region", "Whole", "Window"]
