"""Opens HEIC photos, as phones make them, if `pillow-heif` is installed (`pip install 'gapstone[heif]'`)."""

import importlib
import io
from typing import Any

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def is_heif(data: bytes) -> bool:
    """Whether the first box names a brand of HEIC. AVIF files are HEIF files, too, but name none."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, length, 4))}
    return data[8:12] not in (b"avif", b"avis") and bool(brands & _BRANDS)


def open_heif(data: bytes) -> Any | None:
    """pillow-heif's file, whose main image is not decoded yet; None if pillow-heif is not installed."""
    try:
        library = importlib.import_module("pillow_heif")
    except ImportError:
        return None
    return library.open_heif(io.BytesIO(data))
