"""WHERE: a region is a value that says which places of a map are pooled. To add one: one file, one line."""

from gapstone.regions.grid import Grid
from gapstone.regions.mask import Mask
from gapstone.regions.pyramid import Pyramid
from gapstone.regions.region import Region
from gapstone.regions.roi import Boxes
from gapstone.regions.segments import Segments
from gapstone.regions.whole import Whole
from gapstone.regions.window import Window

REGIONS: tuple[type[Region], ...] = (Whole, Window, Grid, Pyramid, Boxes, Mask, Segments)

__all__ = ["REGIONS", "Boxes", "Grid", "Mask", "Pyramid", "Region", "Segments", "Whole", "Window"]
