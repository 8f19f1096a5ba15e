"""Groups images of any size into batches of bounded memory."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 22
"""Pixels of a batch of images in their own sizes: 50 MB as float32."""


def batches(
    pictures: Iterable[NDArray[np.uint8]], size: int, most: float = math.inf
) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield batches of at most `size` images and, unless it is a single image, at most `most` pixels.

    >>> [len(batch) for batch in batches([np.zeros((2, 2, 3), np.uint8)] * 5, 2)]
    [2, 2, 1]
    """
    batch: list[NDArray[np.uint8]] = []
    pixels = 0
    for picture in pictures:
        area = picture.shape[0] * picture.shape[1]
        if batch and (len(batch) == size or pixels + area > most):
            yield batch
            batch, pixels = [], 0
        batch.append(picture)
        pixels += area
    if batch:
        yield batch
