"""HEIC photos, as phones make them: read where `pillow-heif` is installed (`pip install 'gapstone[heif]'`)."""

import importlib
import io
from typing import Any

from PIL import Image

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def is_heif(data: bytes) -> bool:
    """By its first box. AVIF is another: its files are a HEIF, too, but name no brand of HEIC's."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, length, 4))}
    return data[8:12] not in (b"avif", b"avis") and bool(brands & _BRANDS)


def opened(data: bytes) -> tuple[Any, list[str]] | None:
    """What pillow-heif makes of the file's main picture, not decoded yet, and notes; None where it is not installed."""
    try:
        library = importlib.import_module("pillow_heif")
    except ImportError:
        return None
    file = library.open_heif(io.BytesIO(data))
    return file, [] if len(file) == 1 else [f"the main one of {len(file)} pictures is used"]


def decoded(file: Any) -> Image.Image:
    """Turned upright already."""
    image: Image.Image = file.to_pillow()
    return image
