"""read(bytes) = what the models and the page need of a picture, made in a worker process: its full pixels stay there.

A 12-megapixel photo is 36 MB of pixels; what leaves the process is each model's input (0.2 MB) and a preview (0.3 MB).
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.images.load import OUT_OF_MEMORY, ImageError, load
from gapstone.images.preprocessing import Preprocessing
from gapstone.workers.messages import MessageError

PREVIEW = 1280  # px, longest side: as sharp as a page shows it; 1600 cost 25 ms more of a 12-megapixel photo
LOSSLESS = 256  # px: up to here the preview is a PNG, so that a digit's pixels are its own


@dataclass(frozen=True)
class UploadedPicture:
    size: tuple[int, int]
    """(H, W), upright."""
    notes: tuple[str, ...]
    fitted: tuple[NDArray[np.uint8], ...]
    """Per model, (h, w, C) as its preprocessing stores it."""
    preview: tuple[str, bytes] | None
    """Its media type and its file, at most PREVIEW pixels long; the pixels as loaded, so upright, 8 bits and sRGB:
    browsers show no TIFF and their own idea of CMYK and 16 bits."""


def rules(preprocessings: list[Preprocessing], max_pixels: int) -> dict[str, Any]:
    """The same for every picture; sent to a worker process once."""
    return {"preprocessings": [p.to_json() for p in preprocessings], "max_pixels": max_pixels}


def read(rules: dict[str, Any], task: tuple[bytes, bool]) -> dict[str, Any] | str:
    """In a worker process: the picture, or in one line why it cannot be read. task: its file, and with a preview?"""
    data, preview = task
    try:
        models = [Preprocessing.from_json(p) for p in rules["preprocessings"]]
        loaded = load(data, max_pixels=rules["max_pixels"], ranges=models[0].ranges)

        def fitted(model: Preprocessing) -> NDArray[np.uint8]:
            if loaded.spread is None or model.ranges == models[0].ranges:
                return model.fit(loaded.pixels)
            return model.fit(load(data, max_pixels=rules["max_pixels"], ranges=model.ranges).pixels)

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


def checked(answer: Any, preprocessings: list[Preprocessing]) -> UploadedPicture | str:
    """What `read` answered. Raises MessageError for what no honest process sends."""
    match answer:
        case str():
            return answer
        case {
            "size": [int() as height, int() as width],
            "notes": [*notes],
            "fitted": [*fitted],
            "preview": None | ["image/png" | "image/jpeg", bytes()] as preview,
        } if min(height, width) > 0 and all(isinstance(note, str) for note in notes):
            shapes = [one.shape if isinstance(one, np.ndarray) else () for one in fitted]
            if shapes == [(*p.stored, p.channels) for p in preprocessings]:
                return UploadedPicture(
                    (height, width), tuple(notes), tuple(fitted), tuple(preview) if preview else None
                )
    raise MessageError("what is no picture")


def largest(preprocessings: list[Preprocessing]) -> int:
    """Bytes of one answer: the inputs, and a preview, of which no format takes twice its pixels."""
    return sum(math.prod(p.stored) * p.channels for p in preprocessings) + 6 * PREVIEW**2


def _preview(pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    longest = max(image.size)
    if longest > PREVIEW:
        # reducing_gap: blocks of whole pixels are averaged first, which takes half the time on 12 megapixels
        image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.BICUBIC, reducing_gap=1.0)
    file = io.BytesIO()
    if longest <= LOSSLESS:
        image.save(file, "PNG")
        return "image/png", file.getvalue()
    image.save(file, "JPEG", quality=85)
    return "image/jpeg", file.getvalue()
