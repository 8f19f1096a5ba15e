"""What the scan knows of one image: readable or why not, size, mode, hashes, a thumbnail."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.images.intensity_range import Ranges, ValueSpread
from gapstone.images.load import ImageError, Loaded, load

GRAY_SIDE, COLOUR_SIDE = 32, 8  # thumbnails: 32×32 gray to compare shapes, 8×8×3 to compare colours
THUMBNAIL = GRAY_SIDE**2 + COLOUR_SIDE**2 * 3


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image's facts; where it is unreadable, `reason` says why and the rest but `sha256` is empty."""

    reason: str | None
    sha256: str  # of the file's bytes (of the pixels in an array source); "" where it could not be read at all
    size: tuple[int, int] = (0, 0)  # (width, height)
    mode: str = ""
    notes: tuple[str, ...] = ()
    gray: bool = False  # gray in fact: one channel, or three that are equal everywhere
    pixels: bytes = b""  # 16-byte hash of size and decoded pixels, gray stored as one channel or three alike
    thumbnail: bytes = b""  # GRAY_SIDE² gray bytes, then COLOUR_SIDE²×3
    spread: ValueSpread | None = None  # of a picture of more than 8 bits: between which values its pixels lie


def measure(data: bytes, sha: str, max_pixels: int, ranges: Ranges | None = None) -> ImageInfo:
    """Decode and measure."""
    try:
        image = load(data, max_pixels=max_pixels, ranges=ranges)
    except ImageError as e:
        return ImageInfo(str(e), sha)
    pixels = image.pixels
    gray = is_gray(pixels)
    return ImageInfo(
        None, sha, image.size, image.mode, image.notes, gray, _same(image, gray), thumbnail(pixels), image.spread
    )


def _same(image: Loaded, gray: bool) -> bytes:
    """Equal where two files hold the same picture: of what 8 bits or a white ground do not show of it, too."""
    digest = pixel_hash(image.pixels, gray)
    if not image.content:
        return digest
    # the values decide, not what the range of a data set makes of them
    kept = image.content if image.spread else digest + image.content
    return hashlib.blake2b(kept, digest_size=16).digest()


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """One channel, or three that are equal everywhere (a gray picture saved as RGB)."""
    if pixels.shape[2] == 1:
        return True
    # the first rows settle it for nearly every colour photo
    for rows in (slice(0, 16), slice(16, None)):
        part = pixels[rows]
        if not (np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2])):
            return False
    return True


def pixel_hash(pixels: NDArray[np.uint8], gray: bool) -> bytes:
    """16 bytes, equal where size and pixels are; a gray picture hashes alike with one channel or three."""
    kept = np.ascontiguousarray(pixels[..., 0] if gray else pixels)
    digest = hashlib.blake2b(np.asarray(kept.shape, "<u4").tobytes(), digest_size=16)
    digest.update(kept.data)
    return digest.digest()


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """The whole picture squeezed into 32×32 gray and 8×8 colour, averaged over areas."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    # BOX averages whole areas: cheap, no ringing, and hardly changed by re-encoding
    small = image.resize((GRAY_SIDE, GRAY_SIDE), Image.Resampling.BOX if min(image.size) >= 2 * GRAY_SIDE else _SMOOTH)
    colour = small.convert("RGB").resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return small.convert("L").tobytes() + colour.tobytes()


_SMOOTH = Image.Resampling.BILINEAR  # for small pictures, where BOX would only drop or repeat pixels
