"""The images of a comparison that have object boxes (`gapstone.data.object_boxes`), by their rows in the store."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.box_rows import Box
from gapstone.data.object_boxes import read_objects
from gapstone.training.loop import Rows
from gapstone.training.training_data import Log, TrainingPlan

LONGEST = 1024
"""px: images with a longer side are scored on a smaller grid. A map of 7×7 cells has no finer detail."""


class BoxedImages(NamedTuple):
    """An image and the boxes of one of its classes."""

    row: int
    """Row of the store."""
    size: tuple[int, int]
    """(H, W) of the original image, upright."""
    boxes: tuple[Box, ...]
    """(x0, y0, x1, y1) in its pixels."""
    label: int
    """Number of the class."""

    def scaled(self) -> tuple[float, tuple[int, int], NDArray[np.float64]]:
        """The grid for scoring: its scale, its (H, W), and the boxes on it. Up to LONGEST it is the image's pixels."""
        factor = min(1.0, LONGEST / max(self.size))
        height, width = (max(1, round(side * factor)) for side in self.size)
        return factor, (height, width), np.asarray(self.boxes, np.float64) * factor


def boxed_images(path: Path, plan: TrainingPlan, log: Log) -> tuple[BoxedImages, ...]:
    """Read the boxes of all images of the store. Raises ValueError if no test image has any."""
    sizes = [facts.size for facts in plan.scan.facts]
    objects = read_objects(path, plan.source, sizes)
    rows = {item: row for row, item in enumerate(plan.used.tolist())}
    images = tuple(
        BoxedImages(rows[item], (sizes[item][1], sizes[item][0]), boxes, label)
        for (item, label), boxes in objects.boxes.items()
        if item in rows
    )
    tested = np.unique(np.concatenate([parts.test for parts in plan.splits]))
    boxed = among(images, tested)
    count = number_of_images(boxed)
    aside = f"; left aside: {objects.described()}" if objects.described() else ""
    if not count:
        raise ValueError(
            f"--boxes {display(path)}: none of the {len(tested):,} test images has a box of its own class, so there is "
            f"nothing to measure; {number_of_images(images):,} of the other images have one{aside}."
        )
    measured = f"{count:,} of {len(tested):,} test images have boxes of their class"
    if plan.source.multi_label:
        measured = (
            f"{count:,} of {len(tested):,} test images have boxes of their classes, {len(boxed):,} classes in all"
        )
    log(f"{measured}: where heads look is measured{aside}.")
    for note in objects.notes:
        log(note)
    return images


def number_of_images(boxed: Sequence[BoxedImages]) -> int:
    return len({image.row for image in boxed})


def among(images: Sequence[BoxedImages], rows: Rows) -> tuple[BoxedImages, ...]:
    """Those in these rows of the store, in the order of `images`: the classes of an image side by side."""
    row_set = set(rows.tolist())
    return tuple(image for image in images if image.row in row_set)
