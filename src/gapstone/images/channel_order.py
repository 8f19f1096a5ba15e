"""Which axis of one image counts its channels."""

from collections.abc import Sequence

from gapstone.images.as_picture import GRAY_OR_RGB, MOST_CHANNELS


def channel_axes(shape: Sequence[int], first: bool = False, channels: int | None = None) -> list[int]:
    """The axes, 0 or 2, that may be that of the channels; several where either may be meant, the likelier one first.

    >>> channel_axes((64, 64, 13)), channel_axes((3, 64, 64)), channel_axes((12, 9, 9)), channel_axes((64, 64, 64))
    ([2], [0], [2, 0], [])

    It is as long as there are `channels`, where these are known; else 1 or 3; else up to 16. `first`: channels come
    first, as in tensors, where both may be meant.
    """
    order = (0, 2) if first else (2, 0)
    for fits in ((channels,), GRAY_OR_RGB):
        if known := [axis for axis in order if shape[axis] in fits]:
            return known[:1]
    return [axis for axis in order if shape[axis] <= MOST_CHANNELS]
