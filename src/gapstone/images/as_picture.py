"""Images of any number of channels as a picture that a person, or Pillow, can see."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRAY_OR_RGB = (1, 3)
MOST_CHANNELS = 16
"""Of an array with two longer axes, one that is up to so long is its channels."""


def as_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image (H, W, C) as a picture: gray, RGB, or of other channels what `three_channels` makes of them.

    >>> as_picture(np.zeros((4, 6, 12), np.uint8)).mode
    'RGB'
    """
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels if pixels.shape[2] == 3 else three_channels(pixels))


def three_channels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(…, C) → (…, 3): the means of the first, the middle and the last third of the channels; 3 stay as they are.

    >>> three_channels(np.array([[10, 20, 30, 50]], np.uint8))     # thirds may share a channel
    array([[15, 25, 40]], dtype=uint8)
    """
    count = pixels.shape[-1]
    thirds = [pixels[..., k * count // 3 : -(-(k + 1) * count // 3)] for k in range(3)]
    return np.stack([third.mean(-1, dtype=np.float32) for third in thirds], -1).astype(np.uint8)


def seen_as(channels: int) -> str | None:
    """How such images are shown, in words; None if they are gray or RGB.

    >>> seen_as(12)
    'Pictures of 12 channels are shown in false colours: red, green and blue are the means of their first, middle and …'
    """
    if channels in GRAY_OR_RGB:
        return None
    return (
        f"Pictures of {channels} channels are shown in false colours: red, green and blue are the means of their "
        f"first, middle and last third"
    )


def same_channels(one: int, other: int) -> bool:
    """Whether images of so many channels become those of the others: gray and RGB do, others are not converted."""
    return one == other or {one, other} <= set(GRAY_OR_RGB)
