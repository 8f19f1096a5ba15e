"""Reads a picture in a worker process, and returns only what the models and the page need.

A 12-megapixel photo has 36 MB of pixels; the result has each model's input (0.2 MB) and a preview (0.3 MB).
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.images.as_picture import as_picture
from gapstone.images.load import OUT_OF_MEMORY, ImageError, load
from gapstone.images.preprocessing import Preprocessing
from gapstone.workers.messages import MessageError

PREVIEW = 1280  # px, longest side: as sharp as a page shows it; 1600 takes 25 ms more for a 12-megapixel photo
LOSSLESS = 256  # px: up to this side the preview is a PNG, with the exact pixels of a digit


@dataclass(frozen=True)
class UploadedPicture:
    """A picture as models and page need it."""

    size: tuple[int, int]
    """(H, W) after its EXIF orientation."""
    notes: tuple[str, ...]
    fitted: tuple[NDArray[np.uint8], ...]
    """For each model, (h, w, C) as its preprocessing stores it."""
    preview: tuple[str, bytes] | None
    """Media type and file, at most PREVIEW px long, of the loaded pixels (upright, 8 bits, sRGB): browsers do not show
    TIFF, and show CMYK and 16 bits differently."""


def worker_arguments(preprocessings: list[Preprocessing], max_pixels: int) -> dict[str, Any]:
    """Return the arguments of `read` that are the same for every picture."""
    return {"preprocessings": [p.to_json() for p in preprocessings], "max_pixels": max_pixels}


def read(arguments: dict[str, Any], task: tuple[bytes, bool]) -> dict[str, Any] | str:
    """Return the picture as a dictionary, or one line why it cannot be read. `task`: (file, whether to preview)."""
    data, preview = task
    try:
        models = [Preprocessing.from_json(p) for p in arguments["preprocessings"]]
        loaded = load(data, max_pixels=arguments["max_pixels"], ranges=models[0].ranges)

        def fitted(model: Preprocessing) -> NDArray[np.uint8]:
            if loaded.spread is None or model.ranges == models[0].ranges:
                return model.fit(loaded.pixels)
            return model.fit(load(data, max_pixels=arguments["max_pixels"], ranges=model.ranges).pixels)

        return {
            "size": loaded.pixels.shape[:2],
            "notes": loaded.notes,
            "fitted": [fitted(model) for model in models],
            "preview": _preview(loaded.pixels) if preview else None,
        }
    except ImageError as error:
        return str(error)
    except MemoryError:
        return OUT_OF_MEMORY


def check_result(result: Any, preprocessings: list[Preprocessing]) -> UploadedPicture | str:
    """Return the result of `read`. Raise MessageError if it has another form: the process may be compromised."""
    match result:
        case str():
            return result
        case {
            "size": [int() as height, int() as width],
            "notes": [*notes],
            "fitted": [*fitted],
            "preview": None | ["image/png" | "image/jpeg", bytes()] as preview,
        } if min(height, width) > 0 and all(isinstance(note, str) for note in notes):
            shapes = [array.shape if isinstance(array, np.ndarray) else () for array in fitted]
            if shapes == [(*p.stored, p.channels) for p in preprocessings]:
                return UploadedPicture(
                    (height, width), tuple(notes), tuple(fitted), tuple(preview) if preview else None
                )
    raise MessageError("what is no picture")


def largest_result(preprocessings: list[Preprocessing]) -> int:
    """Return the most bytes of a result: the inputs, and a preview, which takes less than twice its pixels."""
    return sum(math.prod(p.stored) * p.channels for p in preprocessings) + 6 * PREVIEW**2


def _preview(pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
    image = as_picture(pixels)
    longest = max(image.size)
    if longest > PREVIEW:
        # reducing_gap averages blocks of pixels first, which takes half the time for 12 megapixels
        image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.BICUBIC, reducing_gap=1.0)
    file = io.BytesIO()
    if longest <= LOSSLESS:
        image.save(file, "PNG")
        return "image/png", file.getvalue()
    image.save(file, "JPEG", quality=85)
    return "image/jpeg", file.getvalue()
