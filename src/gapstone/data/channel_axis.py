"""Which axis of an array of images is that of the channels: told where only one can be, asked where two may be."""

from typing import Any, Literal

from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.sources import DataError
from gapstone.images.as_picture import GRAY_OR_RGB, MOST_CHANNELS

Channels = Literal["first", "last"]
EXPECTED = (
    f"expected (N, H, W), (N, H, W, C) or (N, C, H, W), C up to {MOST_CHANNELS} channels; whole numbers or floats"
)


def channels_last(
    what: str, name: str, images: NDArray[Any], said: Channels | None = None, expected: str = EXPECTED
) -> NDArray[Any]:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) as a view (N, H, W, C).

    >>> channels_last("DATA", "images", np.zeros((5, 8, 64, 64))).shape
    (5, 64, 64, 8)

    One or three channels are gray and RGB; otherwise the axis counts that is up to 16 long. `said` decides.

    Raises:
        DataError: images of another shape; or both axes are that short, so that either may be meant.
    """
    shape = tuple(map(int, images.shape))
    if len(shape) == 3 and 0 not in shape:
        return images[..., None]
    if len(shape) != 4 or 0 in shape:
        raise DataError(f"{what}: {display(name)} has shape {shape}; {expected}.")
    short = [axis for axis in (1, 3) if shape[axis] <= MOST_CHANNELS]
    if said is not None:
        short = [axis for axis in short if axis == (1 if said == "first" else 3)]
    elif known := [axis for axis in (3, 1) if shape[axis] in GRAY_OR_RGB]:
        short = known[:1]
    if not short:
        raise DataError(f"{what}: {display(name)} has shape {shape}; {expected}.")
    if len(short) > 1:
        raise DataError(
            f"{what}: {display(name)} has shape {shape}: {shape[1]} channels that come first, or {shape[3]} that come "
            f"last? Say it beside images and labels: channels='first' or channels='last', in an .npz or a dictionary "
            f"{{'images': …, 'labels': …, 'channels': …}}."
        )
    return images if short[0] == 3 else images.transpose(0, 2, 3, 1)


def channels_said(what: str, given: Any) -> Channels | None:
    """What the entry `channels` beside the images says; None without one. Raises DataError."""
    if given is None:
        return None
    word = str(given)
    if word not in ("first", "last"):
        raise DataError(f"{what}: channels is {display(word[:40])!r}; expected 'first' or 'last'.")
    return "first" if word == "first" else "last"
