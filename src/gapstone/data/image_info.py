"""What a scan knows about an image: whether it is readable, its size, mode, hashes and thumbnail."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.images.as_picture import as_picture
from gapstone.images.intensity_range import AnySpread, Ranges
from gapstone.images.load import ImageError, Loaded, load

GRAY_SIDE, COLOUR_SIDE = 32, 8  # thumbnails: 32×32 gray to compare shapes, 8×8×3 to compare colours
THUMBNAIL = GRAY_SIDE**2 + COLOUR_SIDE**2 * 3


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about an image; if it is unreadable, `reason` says why and all else except `sha256` is empty."""

    reason: str | None
    sha256: str  # of the file's bytes (of the pixels in an array source); "" if the file cannot be read at all
    size: tuple[int, int] = (0, 0)  # (width, height)
    mode: str = ""
    notes: tuple[str, ...] = ()
    gray: bool = False  # one channel, or three that are equal everywhere
    pixels: bytes = b""  # 16-byte hash of size and pixels; the same for a gray image with one channel or three
    thumbnail: bytes = b""  # GRAY_SIDE² gray bytes, then COLOUR_SIDE²×3
    spread: AnySpread | None = None  # only of an image of more than 8 bits: the range of its values
    channels: int = 3  # 1 (gray), 3 (RGB), or as many as it has


def measure(data: bytes, sha: str, max_pixels: int, ranges: Ranges | None = None) -> ImageInfo:
    """Decode an image and compute its `ImageInfo`."""
    try:
        image = load(data, max_pixels=max_pixels, ranges=ranges)
    except ImageError as e:
        return ImageInfo(str(e), sha)
    pixels = image.pixels
    gray = is_gray(pixels)
    digest = _content_hash(image, gray)
    return ImageInfo(
        None, sha, image.size, image.mode, image.notes, gray, digest, thumbnail(pixels), image.spread, pixels.shape[2]
    )


def _content_hash(image: Loaded, gray: bool) -> bytes:
    """A hash that is equal for equal images, including what 8 bits or a white background hide."""
    digest = pixel_hash(image.pixels, gray)
    if not image.content:
        return digest
    # of an image of more than 8 bits the original values count, because `pixels` depend on the range of the data set
    return deep_hash(image.content) if image.spread else deep_hash(digest + image.content)


def deep_hash(content: bytes) -> bytes:
    """The hash of an image by the hash of its values (`Deep.content`)."""
    return hashlib.blake2b(content, digest_size=16).digest()


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Whether there is one channel, or three that are equal everywhere (a gray image saved as RGB)."""
    if pixels.shape[2] != 3:
        return bool(pixels.shape[2] == 1)
    # the first rows alone identify nearly every colour photo
    for rows in (slice(0, 16), slice(16, None)):
        part = pixels[rows]
        if not (np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2])):
            return False
    return True


def pixel_hash(pixels: NDArray[np.uint8], gray: bool) -> bytes:
    """A 16-byte hash of size and pixels; it is the same for a gray image with one channel or three."""
    array = np.ascontiguousarray(pixels[..., 0] if gray else pixels)
    digest = hashlib.blake2b(np.asarray(array.shape, "<u4").tobytes(), digest_size=16)
    digest.update(array.data)
    return digest.digest()


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """The whole image resized to 32×32 gray and 8×8 colour by averages over areas."""
    image = as_picture(pixels)
    # BOX averages whole areas: it is cheap, has no ringing, and changes little if the image is re-encoded
    small = image.resize((GRAY_SIDE, GRAY_SIDE), Image.Resampling.BOX if min(image.size) >= 2 * GRAY_SIDE else _SMOOTH)
    colour = small.convert("RGB").resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return small.convert("L").tobytes() + colour.tobytes()


_SMOOTH = Image.Resampling.BILINEAR  # for small images, of which BOX would only drop or repeat pixels
