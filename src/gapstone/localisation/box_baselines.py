"""What boxes score that look at nothing: the whole picture, or its middle. A map that is no better found nothing.

Objects of photos are large and central, so these are higher than one thinks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gapstone.localisation.iou import boxes_of, ious


def whole_image(boxes: Sequence[ArrayLike], sizes: Sequence[tuple[int, int]], overlap: float = 0.5) -> float:
    """The share of pictures of which the whole reaches an IoU with one of its boxes.

    >>> whole_image([[(0, 0, 80, 100)], [(0, 0, 10, 10)]], sizes=[(100, 100), (100, 100)])
    0.5

    Args: for each picture its boxes (G, 4) and its size (H, W).
    """
    return centre_box(boxes, sizes, 1.0, overlap)


def centre_box(
    boxes: Sequence[ArrayLike], sizes: Sequence[tuple[int, int]], fraction: float, overlap: float = 0.5
) -> float:
    """The same of the box in the middle of each picture, whose sides are `fraction` of the picture's."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: of the picture's sides, above 0 and up to 1")
    if not len(boxes):
        raise ValueError("no pictures: there is nothing to score")
    found = []
    for truths, (height, width) in zip(boxes, sizes, strict=True):
        rim = (1 - fraction) / 2
        middle = np.array([[rim * width, rim * height, (1 - rim) * width, (1 - rim) * height]])
        found.append(ious(middle, boxes_of(truths)).max() >= overlap)
    return float(np.mean(found))
