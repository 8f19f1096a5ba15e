"""One item of a map-style Dataset: its parts, and its image as pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import count_noun
from gapstone.data.array_source import as_bytes, check_values, has_8_bits
from gapstone.data.sources import DataError
from gapstone.images.as_picture import GRAY_OR_RGB, MOST_CHANNELS
from gapstone.images.channel_order import channel_axes
from gapstone.images.colour import to_uint8
from gapstone.images.high_bit_depth import native
from gapstone.images.intensity_range import UNDECIDED, Ranges, on_ranges

_MODES = frozenset(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX", "La", "RGBa"])
"""Pillow's modes of 8 bits or fewer."""
_NORMALISED = 16
"""Gray and RGB floats that go below 0, and nowhere further than this, were normalised; Hounsfield units go further."""


def read_item(what: str, item: Any) -> tuple[Any, Any]:
    """(image, label) of an item, which has these two parts or these two keys.

    >>> read_item("DATA", {"image": "…", "label": 3})
    ('…', 3)
    """
    if isinstance(item, Mapping):
        names = [name for name in item if str(name) in ("image", "label")]
        if len(names) == 2:
            return item["image"], item["label"]
        raise DataError(f"{what}: its items have the keys {', '.join(map(str, item))}; expected image and label.")
    if not isinstance(item, Sequence) or len(item) != 2:
        parts = f"{len(item)} parts" if isinstance(item, Sequence) else f"an object of type {type(item).__name__}"
        raise DataError(f"{what}: its items are {parts}; expected (image, label).")
    return item[0], item[1]


def item_values(what: str, name: str, image: Any, channels: int | None = None) -> NDArray[Any]:
    """Its values (H, W, C): uint8, or whole numbers or floats of another range.

    `channels` are those that are expected, where that is known. Raises DataError for what is no image.
    """
    if isinstance(image, Image.Image):
        if image.mode in _MODES:
            flat, _ = to_uint8(image, [])
            return flat if flat.ndim == 3 else flat[:, :, None]
        return native(np.asarray(image))[:, :, None]
    is_tensor = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu().numpy() if is_tensor else image)
    values = _channels_last(what, name, array, is_tensor, channels)
    if values is None:
        of = type(image).__name__ if not array.ndim else f"{array.dtype} of shape {array.shape}"
        many = f"of up to {MOST_CHANNELS} channels" if channels is None else f"of {count_noun(channels, 'channel')}"
        raise DataError(
            f"{what}: {name} is {of}; expected a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W), "
            f"{many}."
        )
    check_values(f"{what}: {name}", values)
    return np.ascontiguousarray(native(values))


def _channels_last(
    what: str, name: str, array: NDArray[Any], is_tensor: bool, channels: int | None
) -> NDArray[Any] | None:
    """(H, W, C) of (H, W), (H, W, C) or (C, H, W); None if it is none of them.

    Of a tensor the channels come first where they can; of an array the axis counts that alone is short enough.
    """
    if array.ndim == 2 and array.size:
        return array[:, :, None]
    if array.ndim != 3 or not array.size:
        return None
    short = channel_axes(array.shape, is_tensor, channels)
    if not short:
        return None
    if len(short) > 1 and not is_tensor:
        raise DataError(
            f"{what}: {name} has shape {array.shape}: {array.shape[0]} channels that come first, or {array.shape[2]} "
            "that come last? Give tensors, whose channels come first."
        )
    return array if short[0] == 2 else array.transpose(1, 2, 0)


def refuse_normalised(what: str, name: str, values: NDArray[Any]) -> None:
    """Raises DataError for gray and RGB that was normalised."""
    if values.dtype.kind != "f" or values.shape[2] not in GRAY_OR_RGB:
        return
    low, high = float(values.min()), float(values.max())
    if -_NORMALISED <= low < 0 and high <= _NORMALISED:
        raise DataError(
            f"{what}: {name} is floats from {low:.3g} to {high:.3g}, normalised; expected uint8, floats from "
            "0 to 1, or values as they were measured. Leave out Normalize: gapstone resizes and normalises images "
            "itself."
        )


def as_8_bits(values: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
    """Values of which `has_8_bits` holds as 0…255, and whether nothing of them was lost."""
    return (values, True) if values.dtype == np.uint8 else as_bytes(values)


def item_pixels(
    what: str, name: str, image: Any, ranges: Ranges = UNDECIDED, channels: int | None = None
) -> NDArray[np.uint8]:
    """An image as 0…255: on `ranges`, where these were decided for values like its own.

    Raises DataError for what is no image, and for values of more than 8 bits for which there is no range.
    """
    values = item_values(what, name, image, channels)
    try:
        shown = on_ranges(values, ranges)
    except ValueError as error:
        raise DataError(f"{what}: {name} has {error}") from error
    if shown is not None:
        return shown
    refuse_normalised(what, name, values)
    if ranges == UNDECIDED and has_8_bits(values):
        return as_8_bits(values)[0]
    expected = "8 bits: uint8, or gray or RGB floats from 0 to 1" if ranges == UNDECIDED else f"those of {ranges}"
    raise DataError(
        f"{what}: {name} is {values.dtype} of {count_noun(values.shape[2], 'channel')}, from {values.min():.4g} to "
        f"{values.max():.4g}; expected {expected}."
    )
