"""Which axis of one image counts its channels."""

from collections.abc import Sequence

from gapstone.images.as_picture import GRAY_OR_RGB, MOST_CHANNELS, same_channels


def channel_axes(shape: Sequence[int], first: bool = False, channels: int | None = None) -> list[int]:
    """The axes, 0 or 2, that may be that of the channels; several where either may be meant, the likelier one first.

    >>> channel_axes((64, 64, 13)), channel_axes((3, 64, 64)), channel_axes((12, 9, 9))
    ([2], [0], [2, 0])

    It counts 1 or 3, else up to 16; where `channels` are expected, these alone (gray and RGB are one kind). `first`:
    they come first, as in tensors, where both may be meant.
    """
    order = (0, 2) if first else (2, 0)
    if channels is not None:
        same = [axis for axis in order if shape[axis] == channels]
        return (same or [axis for axis in order if same_channels(shape[axis], channels)])[:1]
    if known := [axis for axis in order if shape[axis] in GRAY_OR_RGB]:
        return known[:1]
    return [axis for axis in order if shape[axis] <= MOST_CHANNELS]
