"""facts_of(file) = what the scan wants to know of one image: readable or why not, size, mode, hashes, a thumbnail.

Runs in a worker process; the file is read once. What is known of the same bytes comes from the cache.
"""

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .load import ImageError, Loaded, load, read_bytes
from .messages import MessageError
from .ranges import Ranges, Spread

GRAY_SIDE, COLOUR_SIDE = 32, 8  # thumbnails: 32×32 gray to compare shapes, 8×8×3 to compare colours
THUMBNAIL = GRAY_SIDE**2 + COLOUR_SIDE**2 * 3


@dataclass(frozen=True, slots=True)
class Facts:
    """One image's facts; where it is unreadable, `reason` says why and the rest but `sha256` is empty."""

    reason: str | None
    sha256: str  # of the file's bytes (of the pixels in an array source); "" where it could not be read at all
    size: tuple[int, int] = (0, 0)  # (width, height)
    mode: str = ""
    notes: tuple[str, ...] = ()
    gray: bool = False  # gray in fact: one channel, or three that are equal everywhere
    pixels: bytes = b""  # 16-byte hash of size and decoded pixels, gray stored as one channel or three alike
    thumbnail: bytes = b""  # GRAY_SIDE² gray bytes, then COLOUR_SIDE²×3
    spread: Spread | None = None  # of a picture of more than 8 bits: between which values its pixels lie


def facts_of(constant: tuple[int, str | None, dict[str, Any] | None], path: str) -> tuple[Any, ...]:
    """(were they known?, *facts); `constant` is (max_pixels, the cache's file or None, ranges as JSON or None)."""
    max_pixels, cache_file, ranges = constant
    facts, known = _facts_of(path, max_pixels, cache_file, None if ranges is None else Ranges.from_json(ranges))
    return known, *astuple(facts)


def read_facts(answer: Any) -> tuple[Facts, bool]:
    """What `facts_of` answered: (facts, were they known?). Raises MessageError."""
    match answer:
        case [
            bool() as known,
            None | str() as reason,
            str() as sha,
            [int() as width, int() as height],
            str() as mode,
            [*notes],
            bool() as gray,
            bytes() as pixels,
            bytes() as thumbnail,
            None | [*_] as spread,
        ] if all(isinstance(note, str) for note in notes):
            whole = min(width, height) > 0 and len(pixels) == 16 and len(thumbnail) == THUMBNAIL
            if reason is not None or whole:
                values = _spread(spread)
                return Facts(reason, sha, (width, height), mode, tuple(notes), gray, pixels, thumbnail, values), known
    raise MessageError("what are no facts of an image")


def _spread(fields: list[Any] | None) -> Spread | None:
    match fields:
        case None:
            return None
        case ["integers" | "floats" as kind, *numbers] if len(numbers) == 4 and all(type(n) is float for n in numbers):
            return Spread(kind, *numbers)
    raise MessageError("what is no spread of values")


def _facts_of(path: str, max_pixels: int, cache_file: str | None, ranges: Ranges | None) -> tuple[Facts, bool]:
    try:
        data = read_bytes(path, max_pixels)
    except ImageError as e:
        return Facts(str(e), ""), True
    sha = hashlib.sha256(data).hexdigest()
    if cache_file is not None:
        from .cache import look_up

        known = look_up(Path(cache_file), sha, max_pixels, ranges)
        if known is not None:
            return known, True
    return measure(data, sha, max_pixels, ranges), False


def measure(data: bytes, sha: str, max_pixels: int, ranges: Ranges | None = None) -> Facts:
    """Decode and measure."""
    try:
        image = load(data, max_pixels=max_pixels, ranges=ranges)
    except ImageError as e:
        return Facts(str(e), sha)
    pixels = image.pixels
    gray = is_gray(pixels)
    return Facts(
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
