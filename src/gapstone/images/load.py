"""`load` decodes an image file to uint8 pixels (H, W, C), upright, gray or sRGB, or raises ImageError with a reason.

The format is recognised by the content, not by the file's suffix. The pixel limit is checked before decoding. Truncated
files are refused. Only raster formats are opened (an EPS file is a program, which Pillow would give to Ghostscript). An
unusable image is never replaced by a black image or by another file.
"""

import hashlib
import importlib
import io
import os
import stat
import struct
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gapstone.console.formatting import count_noun, display
from gapstone.images import array_file, heif, missing_data, tiff, tiff_bands
from gapstone.images.as_picture import MOST_CHANNELS, same_channels
from gapstone.images.bands import Bands
from gapstone.images.colour import to_uint8
from gapstone.images.decode_error import DecodeError
from gapstone.images.file_type import file_type
from gapstone.images.high_bit_depth import Deep, read_deep
from gapstone.images.intensity_range import UNDECIDED, AnySpread, Ranges
from gapstone.images.no_data import without_no_data
from gapstone.images.pillow_guard import strict
from gapstone.storage.paths import opener

MAX_PIXELS = 178_956_970  # twice Pillow's limit, from which Pillow refuses an image instead of warning
VERSION = 3  # changes when load() returns other pixels for the same bytes; part of the key of the scan's cache

# In the order in which they are tried: TGA has no signature, so it comes last. Formats that run programs (EPS), hold
# drawings (WMF, SVG) or that Pillow only guesses are left out on purpose.
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


Encoded = str | os.PathLike[str] | bytes | tuple[str, int, int]
"""Where the bytes of an image are: a file, in memory, or a part of a file (path, first byte, length)."""

OUT_OF_MEMORY = "decoding it needs more memory than there is"
CHANGED = "it is no longer the file that was looked at: it was replaced or changed meanwhile"


class ImageError(ValueError):
    """The image cannot be used; the message is the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A decoded image."""

    pixels: NDArray[np.uint8]  # (H, W, C); C is 1 (gray), 3 (sRGB), or as many channels as the file has
    mode: str  # Pillow's name of the file's mode: "RGB", "P", "CMYK", "I;16", …
    size: tuple[int, int]  # (width, height) of the upright image
    notes: tuple[str, ...]  # assumptions and omissions: "the first of 41 frames is used", …
    spread: AnySpread | None = None  # the range of the values, if they have more than 8 bits
    content: bytes = b""  # a hash of what `pixels` does not show of an image of more than 8 bits or with alpha


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    ranges: Ranges | None = None,
) -> Loaded:
    """Decode an image.

    ```python
    load("photo.jpg").pixels.shape                # (480, 640, 3)
    load("scan.tif", channels=1).pixels.shape     # (1024, 768, 1)
    load(open("photo.jpg", "rb").read()).notes    # ()
    ```

    Threads and processes can call it safely. `channels` converts to gray (1: ITU-R 601 luma) or sRGB (3), and has to be
    that of the image for other numbers. The limit on
    width × height is checked by the header before decoding. `ranges` are those of a data set or a model; without them,
    the black and white of 16-bit and float values are guessed from this image alone, with a note.

    Raises ImageError if the image cannot be used, for any reason; the message is the reason.
    """
    if channels is not None and not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(f"load(channels={channels!r}): give 1 (gray), 3 (sRGB) or None (as the image is)")
    try:
        data = source if isinstance(source, bytes) else read_bytes(source, max_pixels)
        with strict(max_pixels) as pillow_warnings:
            return _decode(data, channels, max_pixels, ranges or UNDECIDED, pillow_warnings)
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
    except Exception as e:  # Pillow's plugins raise nearly any error for hostile files
        raise ImageError(_reason(e)) from e


def read_bytes(source: Encoded, max_pixels: int = MAX_PIXELS, sha256: str | None = None) -> bytes:
    """Read a regular file, or a part of one; `sha256` is the hash that it had in a scan, `max_pixels` bounds its size.

    Raises ImageError if the file cannot be read, has another hash, or is no regular file (a folder, a pipe, …).
    """
    if isinstance(source, bytes):
        data = source
        _check_length(len(data), max_pixels)
    elif isinstance(source, tuple | list):  # a list where it has been a message to a worker
        data = _read_file(source[0], max_pixels, source[1], source[2])
    else:
        data = _read_file(source, max_pixels)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ImageError(CHANGED)
    return data


def _check_length(length: int, max_pixels: int) -> None:
    # 8 bytes per pixel (uncompressed 16-bit RGBA) and metadata: a larger file has more pixels than the limit
    if length > max_pixels * 8 + (64 << 20):
        raise ImageError(f"the file is {length / 1e9:.1f} GB, more than any image within the pixel limit")


def _read_file(
    path: str | os.PathLike[str], max_pixels: int, start: int | None = None, length: int | None = None
) -> bytes:
    """The bytes of a regular file, or those from `start` on. Raises ImageError."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file (a pipe, socket or device)")
        _check_length(status.st_size if length is None else length, max_pixels)
        with open(path, "rb", opener=opener) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):  # replaced since os.stat
                raise ImageError("not a regular file (a pipe, socket or device)")
            if length is None:
                return f.read()
            f.seek(start or 0)
            data = f.read(length)
        if len(data) < length:
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
    """Import only these plugins: Image.init() imports all 45, which takes 0.1 s per worker process."""
    for plugin in _PLUGINS.values():
        importlib.import_module(f"PIL.{plugin}")
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


def _decode(data: bytes, channels: int | None, max_pixels: int, ranges: Ranges, pillow_warnings: list[str]) -> Loaded:
    notes: list[str] = []
    upright, mode = _decode_upright(data, max_pixels, notes)
    if isinstance(upright, Bands):
        pixels, spread = upright.as_pixels(ranges, notes)
        content = upright.content()
    else:
        pixels, spread, content = _picture_pixels(upright, ranges, notes)
    if channels is not None:
        pixels = convert(pixels, channels)
    pixels = np.ascontiguousarray(pixels[:, :, None] if pixels.ndim == 2 else pixels)
    pixels.flags.writeable = False
    notes.extend(dict.fromkeys(f"Pillow: {text}" for text in pillow_warnings))
    return Loaded(pixels, mode, (pixels.shape[1], pixels.shape[0]), tuple(notes), spread, content)


def _picture_pixels(
    upright: Image.Image | Deep, ranges: Ranges, notes: list[str]
) -> tuple[NDArray[np.uint8], AnySpread | None, bytes]:
    """(pixels, the spread of more than 8 bits, a hash of what the pixels do not show)."""
    if not isinstance(upright, Deep):
        pixels, hidden = to_uint8(upright, notes)
        return pixels, None, hidden
    image, spread = upright.as_image(ranges, notes)
    pixels, hidden = to_uint8(image, notes)
    return pixels, spread, upright.content() if spread else hidden


def _decode_upright(data: bytes, max_pixels: int, notes: list[str]) -> tuple[Image.Image | Deep | Bands, str]:
    """The upright image, or its values if they have more than 8 bits or other channels; and the file's mode."""
    if array_file.is_array_file(data):
        header = array_file.read_header(data)
        _check_size(header.size[1], header.size[0], max_pixels)
        bands = array_file.read_array_file(data, header)
        return bands, bands.mode
    missing_data.check_file(data)
    if (layout := tiff.read_layout(data)) is not None:
        _check_size(layout.width, layout.height, max_pixels)
        if (bands_of_tiff := tiff_bands.read_bands(layout, data)) is not None:
            if layout.compression == 1 and layout.no_data is None:
                for first in range(0, bands_of_tiff.values.shape[2], 3):
                    missing_data.check_rows(bands_of_tiff.values[..., first : first + 3])
            return bands_of_tiff.turned(layout.orientation), bands_of_tiff.mode
        if (deep := tiff.read_pixels(layout, data)) is not None:
            if layout.compression == 1:
                missing_data.check_rows(deep.values)
            if (pages := tiff.count_pages(layout, data)) > 1:
                notes.append(_frames_note(pages))
            return _without_no_data(deep, layout).turned(layout.orientation), deep.mode
    if heif.is_heif(data) and (file := heif.open_heif(data)) is not None:
        width, height = file.size
        _check_size(width, height, max_pixels)
        if len(file) != 1:
            notes.append(f"the main one of {len(file)} pictures is used")
        heif_image: Image.Image = file.to_pillow()  # already upright
        return heif_image, heif_image.mode
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        _check_size(*image.size, max_pixels)
        notes.extend(_notes_on_frames(image))
        check_decoded = missing_data.check_opened(image, data, layout, notes)
        deep = read_deep(image, data, notes)
        if deep is None:
            image.load()
            check_decoded()
            return _turn(image, _orientation(image, notes)), image.mode
        missing_data.check_deep(deep.values, str(image.format))
        return _without_no_data(deep, layout).turned(_orientation(image, notes)), deep.mode


def _without_no_data(deep: Deep, layout: tiff.TiffLayout | None) -> Deep:
    if layout is None or deep.visible() is not None:
        return deep
    return replace(deep, values=without_no_data(deep.values, layout.no_data, deep.notes))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"its size is {width}×{height}: there are no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width}×{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}")


def convert(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Convert between gray and colour: (H, W), (H, W, 1) or (H, W, 3) → (H, W, channels).

    Raises ImageError where one of them is neither, and they differ.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == channels:
        return pixels
    if not same_channels(pixels.shape[2], channels):
        raise ImageError(wrong_channels(pixels.shape[2], channels))
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def wrong_channels(has: int, takes: int) -> str:
    """What is wrong with an image of other channels than the model takes."""
    return (
        f"it has {count_noun(has, 'channel')}, and the model takes images of {takes}: give it images of the channels "
        f"that it was trained on, in their order"
    )


def _notes_on_frames(image: Image.Image) -> list[str]:
    try:
        frames = int(getattr(image, "n_frames", 1))
    except Exception:  # a later frame is damaged; the first one may be intact, which decoding it will show
        frames = 0
    finally:
        if hasattr(image, "seek"):
            image.seek(0)
    if frames == 1:
        return []
    if not frames:
        return ["its later frames are damaged; the first is used"]
    return [_frames_note(frames)]


def _frames_note(frames: int) -> str:
    return f"the first of {frames} frames or pages is used"


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """The orientation, 1 to 8, in EXIF or, if EXIF has none, in XMP."""
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
    turned.info = info  # transpose() does not copy it for every mode
    return turned


def _reason(e: Exception) -> str:
    text = " ".join(str(e).split())
    if "truncated" in text.lower() or isinstance(e, EOFError):
        return f"truncated: the end of the file is missing ({text or type(e).__name__})"
    return display(f"cannot be decoded: {text or type(e).__name__}")
