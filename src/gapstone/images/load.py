"""load(file) = its pixels as uint8 (H, W, C), upright, gray or sRGB; or ImageError with the reason in one line.

The one careful loader: content is sniffed and the extension ignored; the pixel limit is checked before anything is
decoded; truncated files are refused; only raster formats are opened (an EPS file is a program: it would be handed to
Ghostscript). Nothing is ever replaced by a black image or the next file.
"""

import hashlib
import importlib
import io
import os
import stat
import struct
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gapstone.console.formatting import display
from gapstone.images import heif, missing_data, tiff
from gapstone.images.colour import to_uint8
from gapstone.images.decode_error import DecodeError
from gapstone.images.file_type import file_type
from gapstone.images.high_bit_depth import Deep, deep
from gapstone.images.intensity_range import UNDECIDED, Ranges, ValueSpread
from gapstone.images.pillow_guard import strict
from gapstone.storage.paths import opener

MAX_PIXELS = 178_956_970  # twice Pillow's own: where it turns from warning to refusing
VERSION = 2  # of what load() returns for the same bytes; the scan's cache is keyed by it

# In the order they are tried: TGA has no signature, so it comes last. Formats that run programs (EPS), hold drawings
# (WMF, SVG) or that Pillow only guesses at are left out on purpose.
_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "MPO": "MpoImagePlugin",
    "PNG": "PngImagePlugin",
    "GIF": "GifImagePlugin",
    "WEBP": "WebPImagePlugin",
    "AVIF": "AvifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "PPM": "PpmImagePlugin",
    "ICO": "IcoImagePlugin",
    "QOI": "QoiImagePlugin",
    "SGI": "SgiImagePlugin",
    "DDS": "DdsImagePlugin",
    "PCX": "PcxImagePlugin",
    "TGA": "TgaImagePlugin",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


OUT_OF_MEMORY = "decoding it needs more memory than there is"
CHANGED = "it is no longer the file that was looked at: it was replaced or changed meanwhile"


class ImageError(ValueError):
    """The image cannot be used; `str(e)` is the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image as the rest of the project sees it."""

    pixels: NDArray[np.uint8]  # (H, W, C); C is 1 (gray) or 3 (sRGB)
    mode: str  # the file's own, in Pillow's words: "RGB", "P", "CMYK", "I;16", …
    size: tuple[int, int]  # (width, height) after turning upright
    notes: tuple[str, ...]  # what was assumed or left out: "the first of 41 frames is used", …
    spread: ValueSpread | None = None  # of more than 8 bits: between which values the pixels lie
    content: bytes = b""  # of more than 8 bits, or with alpha: a hash of what `pixels` does not hold of it


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    channels: Literal[1, 3] | None = None,
    max_pixels: int = MAX_PIXELS,
    ranges: Ranges | None = None,
) -> Loaded:
    """Load one image right, or say why not.

    ```python
    load("photo.jpg").pixels.shape                # (480, 640, 3)
    load("scan.tif", channels=1).pixels.shape     # (1024, 768, 1)
    load(open("photo.jpg", "rb").read()).notes    # ()
    ```

    source: a path, or the bytes of a file.
    channels: 1 converts to gray (ITU-R 601 luma), 3 to sRGB; None keeps what the image is.
    max_pixels: the limit on width × height, checked on the header before decoding.
    ranges: what is black and white among 16-bit and float values, as a data set or a model says; None: guessed from
        this picture alone, and noted.

    Raises ImageError with the reason, whatever went wrong. Safe to call from threads and processes.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"load(channels={channels!r}): give 1 (gray), 3 (sRGB) or None (as the image is)")
    try:
        data = source if isinstance(source, bytes) else read_bytes(source, max_pixels)
        with strict(max_pixels) as heard:
            return _decode(data, channels, max_pixels, ranges or UNDECIDED, heard)
    except ImageError:
        raise
    except DecodeError as e:
        raise ImageError(str(e) if str(e).startswith(("truncated", "not supported")) else f"damaged: {e}") from None
    except MemoryError:
        raise ImageError(OUT_OF_MEMORY) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {max_pixels:,}") from None
    except UnidentifiedImageError:
        raise ImageError(tiff.refusal(data) or file_type(data[:1024])) from None
    except RecursionError:
        raise ImageError("its structure is nested without end") from None
    except Exception as e:  # Pillow's plugins raise nearly everything on hostile files
        raise ImageError(_reason(e)) from e


def read_bytes(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, sha256: str | None = None) -> bytes:
    """The bytes of a regular file; ImageError for anything else (a folder, a pipe that would block for ever, …).

    sha256: what a scan found the file to be; what is kept under that hash must be made of these bytes and no others, so
    ImageError where it has changed since.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file (a pipe, socket or device)")
        # 8 bytes per pixel (16-bit RGBA, not compressed) and some metadata: nothing larger can pass the pixel limit
        if status.st_size > max_pixels * 8 + (64 << 20):
            raise ImageError(f"the file is {status.st_size / 1e9:.1f} GB, more than any image within the pixel limit")
        with open(path, "rb", opener=opener) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):  # exchanged meanwhile
                raise ImageError("not a regular file (a pipe, socket or device)")
            data = f.read()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError(CHANGED)
        return data
    except ImageError:
        raise
    except FileNotFoundError:
        dangling = os.path.islink(path)
        raise ImageError("a link to a file that does not exist" if dangling else "there is no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except OSError as e:
        raise ImageError(f"cannot be read: {e.strerror or e}") from None
    except ValueError as e:  # a NUL in the name
        raise ImageError(f"no possible file name: {e}") from None


@cache
def _formats() -> tuple[str, ...]:
    """Import just these plugins: Image.init() would import all 45 (0.1 s per worker process)."""
    for plugin in _PLUGINS.values():
        importlib.import_module(f"PIL.{plugin}")
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


def _decode(data: bytes, channels: Literal[1, 3] | None, max_pixels: int, ranges: Ranges, heard: list[str]) -> Loaded:
    notes: list[str] = []
    upright, mode = _upright(data, max_pixels, notes)
    found, content = None, b""
    if isinstance(upright, Deep):
        flat, found = upright.as_image(ranges, notes)
        content = upright.content() if found else b""
    else:
        flat = upright
    pixels, hidden = to_uint8(flat, notes)
    if channels is not None:
        pixels = convert(pixels, channels)
    pixels = np.ascontiguousarray(pixels[:, :, None] if pixels.ndim == 2 else pixels)
    pixels.flags.writeable = False
    notes.extend(dict.fromkeys(f"Pillow: {text}" for text in heard))
    return Loaded(pixels, mode, (pixels.shape[1], pixels.shape[0]), tuple(notes), found, content or hidden)


def _upright(data: bytes, max_pixels: int, notes: list[str]) -> tuple[Image.Image | Deep, str]:
    """The picture as it is held, or its values where they have more than 8 bits; and the file's mode."""
    missing_data.in_file(data)
    if (layout := tiff.layout(data)) is not None:
        _check_size(layout.width, layout.height, max_pixels)
        if (values := tiff.read(layout, data)) is not None:
            if layout.compression == 1:
                missing_data.check_rows(values.values)
            if (pages := tiff.pages(layout, data)) > 1:
                notes.append(_first_of(pages))
            return values.turned(layout.orientation), values.mode
    if heif.is_heif(data) and (photo := heif.opened(data)) is not None:
        file, said = photo
        width, height = file.size
        _check_size(width, height, max_pixels)
        notes.extend(said)
        image = heif.decoded(file)
        return image, image.mode
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        _check_size(*image.size, max_pixels)
        notes.extend(_frames(image))
        check = missing_data.before(image, data, layout, notes)
        values = deep(image, data, notes)
        if values is None:
            image.load()
            check()
            return _turn(image, _orientation(image, notes)), image.mode
        missing_data.check_deep(values.values, str(image.format))
        return values.turned(_orientation(image, notes)), values.mode


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"its size is {width}×{height}: there are no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width}×{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}")


def convert(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Gray ↔ colour: (H, W), (H, W, 1) or (H, W, 3) to (H, W, channels)."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def _frames(image: Image.Image) -> list[str]:
    try:
        frames = int(getattr(image, "n_frames", 1))
    except Exception:  # a broken later frame; the first may well be whole, and loading it tells
        frames = 0
    finally:
        if hasattr(image, "seek"):
            image.seek(0)
    if frames == 1:
        return []
    if not frames:
        return ["its later frames are damaged; the first is used"]
    return [_first_of(frames)]


def _first_of(frames: int) -> str:
    return f"the first of {frames} frames or pages is used"


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """1 to 8, in EXIF or, where EXIF has none, in XMP."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError, EOFError, OSError, struct.error):
        notes.append("its EXIF data are damaged: not turned")
        return 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    if orientation not in _UPRIGHT:
        return image
    info = image.info
    turned = image.transpose(_UPRIGHT[orientation])
    turned.info = info  # transpose() copies it, but not for every mode
    return turned


def _reason(e: Exception) -> str:
    text = " ".join(str(e).split())
    low = text.lower()
    if "truncated" in low or isinstance(e, EOFError):
        return f"truncated: the end of the file is missing ({text or type(e).__name__})"
    return display(f"cannot be decoded: {text or type(e).__name__}")
