"""What a file of boxes holds, whichever of its formats it has: `read_csv_boxes`, `read_coco` and `read_voc` make it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gapstone.console.formatting import count_noun, display
from gapstone.data.sources import DataError

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxRow:
    """An object: `BoxRow("--boxes 'boxes.csv', line 2", ("cat/1.jpg",), "cat", (8, 5, 60, 71), (640, 480))`."""

    where: str
    """The beginning of a message about it."""
    paths: tuple[str, ...]
    """What its image may be called; the first that is found counts."""
    class_name: str
    """Empty where nothing says it."""
    box: Box
    """(x0, y0, x1, y1) in pixels, x1 and y1 the far edges."""
    size: tuple[int | None, int | None] = (None, None)
    """The width and height that the file says its image has."""
    difficult: bool = False


@dataclass(frozen=True)
class BoxFile:
    """All rows of a file or folder of boxes."""

    rows: Sequence[BoxRow]
    standard: bool = False
    """Whether it is COCO's or Pascal VOC's: made for other uses, too, with classes that DATA may not have, and with the
    names of files where DATA has paths."""
    left_aside: tuple[str, ...] = ()
    """Objects that are not among the rows, in words."""

    def counted(self, rows: int) -> str:
        """A number of its rows in words: "1 row", "49 boxes"."""
        return count_noun(rows, "box", "boxes") if self.standard else count_noun(rows, "row")


def far_edges(where: str, box: Box) -> Box:
    """The box itself. Raises DataError if an edge is not beyond its opposite."""
    for low, high, name in ((box[0], box[2], "x"), (box[1], box[3], "y")):
        if high <= low:
            raise DataError(
                f"{where}: {name}0 = {low:g} and {name}1 = {high:g}: {name}1 is the far edge, more than {name}0. "
                f"(A width or height in its place? Then {name}1 = {low + high:g}.)"
            )
    return box


def pixels(where: str, name: str, value: object) -> float:
    """A number of pixels, from text or as it is. Raises DataError if it is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is {display(str(value), 40)!r}; expected a number of pixels.")
    return number
