"""What a network that takes one shape does not see of pictures of another: they are centre-cropped, never squeezed."""

from collections.abc import Mapping
from math import gcd

import numpy as np

from gapstone.console.formatting import count_noun
from gapstone.images.preprocessing import Preprocessing

LITTLE = 0.02
"""Of a picture: less is cut off without a word."""


def cropping_note(preprocessing: Preprocessing, sizes: Mapping[tuple[int, int], int]) -> str | None:
    """A sentence about pictures whose sides are not in the proportion of the network's input; None without any.

        >>> cropping_note(preprocessing, {(640, 480): 300, (480, 480): 20})
        "300 of 320 images are not of the shape of the network's input (1:1) and are centre-cropped: 25 % of such …"

    sizes: how many pictures have that (width, height).
    """
    height, width = preprocessing.stored
    cut = {(w, h): 1 - width * height * min(h / height, w / width) ** 2 / (w * h) for w, h in sizes if w and h}
    shares = np.repeat(list(cut.values()), [sizes[size] for size in cut])
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
        f"({shape}) and "
        f"{verb} centre-cropped: {share} of such an image (median) is cut off."
    )
