"""Baselines: scores of boxes that do not depend on a map, the whole picture or its centre.

A map that scores no better has not localised the object. Objects in photos are large and central, so these scores are
high.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gapstone.localisation.iou import boxes_of, ious


def whole_image(boxes: Sequence[ArrayLike], sizes: Sequence[tuple[int, int]], overlap: float = 0.5) -> float:
    """Return the share of pictures whose whole area reaches an IoU with one of the boxes.

    >>> whole_image([[(0, 0, 80, 100)], [(0, 0, 10, 10)]], sizes=[(100, 100), (100, 100)])
    0.5

    Args:
        boxes: The boxes (G, 4) of each picture.
        sizes: (H, W) of each picture.
        overlap: The IoU.
    """
    return centre_box(boxes, sizes, 1.0, overlap)


def centre_box(
    boxes: Sequence[ArrayLike], sizes: Sequence[tuple[int, int]], fraction: float, overlap: float = 0.5
) -> float:
    """Return the same share for a centred box whose sides are `fraction` of those of the picture."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: of the picture's sides, above 0 and up to 1")
    if not len(boxes):
        raise ValueError("no pictures: there is nothing to score")
    hits = []
    for truths, (height, width) in zip(boxes, sizes, strict=True):
        rim = (1 - fraction) / 2
        middle = np.array([[rim * width, rim * height, (1 - rim) * width, (1 - rim) * height]])
        hits.append(ious(middle, boxes_of(truths)).max() >= overlap)
    return float(np.mean(hits))
