"""One item of a map-style Dataset: its parts, and its image as pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.data.array_source import as_bytes
from gapstone.data.sources import DataError
from gapstone.images.colour import to_uint8

_MODES = frozenset(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX", "La", "RGBa"])
"""Pillow's modes of 8 bits or fewer."""


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


def item_pixels(what: str, name: str, image: Any) -> tuple[NDArray[np.uint8], bool]:
    """(its pixels (H, W, C), whether nothing of it was lost). Raises DataError for an image of another kind."""
    if isinstance(image, Image.Image):
        if image.mode not in _MODES:
            raise DataError(
                f"{what}: {name} is a picture of mode {image.mode}, with more than 8 bits. Give its files instead, as "
                "a folder, a CSV or a DataFrame of paths: their values are scaled together."
            )
        flat, _ = to_uint8(image, [])
        return flat if flat.ndim == 3 else flat[:, :, None], True
    is_tensor = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu().numpy() if is_tensor else image)
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and shape[0] in (1, 3) and (is_tensor or shape[2] not in (1, 3)):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in shape:
        of = type(image).__name__ if not array.ndim else f"{type(image).__name__} of shape {shape}"
        raise DataError(
            f"{what}: {name} is {of}; expected a PIL image, an array (H, W), (H, W, 1) or (H, W, 3), or a tensor "
            "(1, H, W) or (3, H, W). Other channels: give arrays of all images, (images, labels)."
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array), True
    if array.dtype.kind == "f" and float(array.min()) >= 0 and float(array.max()) <= 1:
        pixels, exact = as_bytes(array)
        return np.ascontiguousarray(pixels), exact
    low, high = array.min(), array.max()
    raise DataError(
        f"{what}: {name} is {array.dtype} from {low:.3g} to {high:.3g}, normalised or scaled; expected uint8, or "
        "floats from 0 to 1. Leave out Normalize: gapstone resizes and normalises images itself."
    )
