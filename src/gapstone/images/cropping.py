"""Tells how much of images of other proportions than the network's input is cut off by the centre crop."""

from collections.abc import Mapping
from math import gcd

import numpy as np

from gapstone.console.formatting import count_noun
from gapstone.images.preprocessing import Preprocessing

LITTLE = 0.02
"""Share of an image that may be cut off without a note."""


def cropping_note(preprocessing: Preprocessing, sizes: Mapping[tuple[int, int], int]) -> str | None:
    """A sentence about images of other proportions than the network's input; None if there are none.

        >>> cropping_note(preprocessing, {(640, 480): 300, (480, 480): 20})
        "300 of 320 images are not of the shape of the network's input (1:1) and are centre-cropped: 25 % of such …"

    `sizes` is (width, height) → number of images.
    """
    if preprocessing.resizing.crop == "squash":
        return None
    height, width = preprocessing.stored
    cut_off = {(w, h): 1 - width * height * min(h / height, w / width) ** 2 / (w * h) for w, h in sizes if w and h}
    shares = np.repeat(list(cut_off.values()), [sizes[size] for size in cut_off])
    large = shares[shares > LITTLE]
    if not len(large):
        return None
    common = gcd(width, height)
    shape = f"{width // common}:{height // common}"
    share = f"{100 * float(np.median(large)):.0f} %"
    if len(shares) == 1:
        return f"Not of the shape of the network's input ({shape}), so centre-cropped: {share} of the image is cut off."
    verb = "is" if len(large) == 1 else "are"
    return (
        f"{len(large):,} of {count_noun(len(shares), 'image')} {verb} not of the shape of the network's input "
        f"({shape}) and {verb} centre-cropped: {share} of such an image (median) is cut off."
    )
