"""Which images of a comparison have boxes: a table of them (`gapstone.data.object_boxes`) in rows of the store."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.object_boxes import Box, read_objects
from gapstone.training.loop import Rows
from gapstone.training.training_data import Log, TrainingPlan

LONGEST = 1024
"""px: pictures with a longer side are scored on a grid of that size. A map of 7×7 cells has nothing to show beyond."""


class BoxedImages(NamedTuple):
    """An image and where its object is."""

    row: int
    """Of the store."""
    size: tuple[int, int]
    """(H, W) of the original picture, upright."""
    boxes: tuple[Box, ...]
    """(x0, y0, x1, y1) in its pixels, of the image's own class."""

    def scaled(self) -> tuple[float, tuple[int, int], NDArray[np.float64]]:
        """(pixels of the grid per pixel, (H, W) of the grid, boxes on it): the picture itself up to LONGEST."""
        factor = min(1.0, LONGEST / max(self.size))
        height, width = (max(1, round(side * factor)) for side in self.size)
        return factor, (height, width), np.asarray(self.boxes, np.float64) * factor


def boxed_images(path: Path, decided: TrainingPlan, log: Log) -> tuple[BoxedImages, ...]:
    """All images of the store that have boxes. Raises: ValueError where no test image has."""
    sizes = [facts.size for facts in decided.scan.facts]
    read = read_objects(path, decided.source, sizes)
    rows = {item: row for row, item in enumerate(decided.used.tolist())}
    found = tuple(
        BoxedImages(rows[item], (sizes[item][1], sizes[item][0]), boxes)
        for item, boxes in read.boxes.items()
        if item in rows
    )
    tested = np.unique(np.concatenate([parts.test for parts in decided.splits]))
    count = len(among(found, tested))
    aside = f"; left aside: {read.described()}" if read.described() else ""
    if not count:
        raise ValueError(
            f"--boxes {display(path)}: none of the {len(tested):,} test images has a box of its own class, so there is "
            f"nothing to measure; {len(found):,} of the other images have one{aside}."
        )
    log(f"{count:,} of {len(tested):,} test images have boxes of their class: where heads look is measured{aside}.")
    return found


def among(objects: Sequence[BoxedImages], rows: Rows) -> tuple[BoxedImages, ...]:
    """Those that stand in some rows of the store, in their order."""
    wanted = set(rows.tolist())
    return tuple(one for one in objects if one.row in wanted)
