"""The public functions that draw maps: over a picture, beside it, many on a page, as SVG; all in logit units."""

from gapstone.drawing.overlay import largest, overlay
from gapstone.drawing.sheet import SheetRow, contact_sheet, side_by_side
from gapstone.drawing.svg import svg

__all__ = ["SheetRow", "contact_sheet", "largest", "overlay", "side_by_side", "svg"]
