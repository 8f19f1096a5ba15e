"""`read_deep` reads the original values of an image of more than 8 bits, whatever the file's format.

Pillow reads gray values completely, but only the upper byte of colours and of gray with alpha. Decoding the file a
second time, with the raw mode of the other byte order, gives the lower bytes.
"""

import hashlib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from gapstone.images.as_picture import GRAY_OR_RGB
from gapstone.images.decode_error import DecodeError, check_missing
from gapstone.images.intensity_range import (
    AnySpread,
    Ranges,
    ValueSpread,
    channel_spreads,
    decide,
    is_of_channels,
    note,
    spread,
    to_uint8,
)

MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N", "I;12")
"""Pillow's modes of more than 8 bits."""

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}
_ALPHA = (1023, 4095, 16383, 65535)


@dataclass(frozen=True, eq=False)
class Deep:
    """An image before its values become 0…255."""

    values: NDArray[Any]
    """(H, W) gray, (H, W, 3) RGB or (H, W, 4) CMYK: integers or float32."""
    mode: str
    alpha: NDArray[Any] | None = None
    """(H, W), of the same type."""
    inverted: bool = False
    """0 is white."""
    profile: bytes | None = None
    key: tuple[int, ...] | None = None
    """The value or colour that means transparent, in a PNG without alpha."""
    notes: list[str] = field(default_factory=list)

    def visible(self) -> NDArray[np.bool_] | None:
        """(H, W) which pixels are visible; None if all are."""
        if self.alpha is not None:
            return np.asarray(self.alpha > 0)
        if self.key is None:
            return None
        same = self.values == np.asarray(self.key, self.values.dtype)
        return np.asarray(~(same if same.ndim == 2 else same.all(axis=2)), np.bool_)

    def turned(self, orientation: int) -> "Deep":
        """The upright image, given an EXIF orientation."""
        turn = TURNS.get(orientation)
        if turn is None:
            return self
        alpha = None if self.alpha is None else turn(self.alpha)
        return replace(self, values=turn(self.values), alpha=alpha)

    def content(self) -> bytes:
        """A hash of the visible values; the same for a gray image with one channel or three."""
        values, visible = self.values, self.visible()
        if values.ndim == 3 and values.shape[2] == 3 and bool((values == values[..., :1]).all()):
            values = values[..., 0]
        if values.dtype.kind in "ui" and values.min() >= 0 and values.max() < 1 << 16:
            values = values.astype(np.uint16)
        digest = hashlib.blake2b(f"{values.dtype.str} {values.shape} {self.inverted}".encode(), digest_size=16)
        if visible is not None and not visible.all():
            values = np.where(visible if values.ndim == 2 else visible[..., None], values, 0)
            digest.update(np.ascontiguousarray(visible if self.alpha is None else self.alpha).data)
        digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    def as_image(self, ranges: Ranges, notes: list[str]) -> tuple[Image.Image, ValueSpread | None]:
        """The image in 8 bits, and the spread of its values (None if they have 8 bits).

        The range is that of `ranges` or, if that has none, a guess from this image. Raises ValueError for float pixels
        that are not finite.
        """
        notes.extend(self.notes)
        visible = self.visible()
        if self.values.dtype == np.uint8:
            image = Image.fromarray(self.values)
            if self.alpha is not None:
                image.putalpha(Image.fromarray(self.alpha))
            return image, None
        all_count = visible is None or visible.all() or not visible.any()
        value_spread = spread(self.values if all_count else self.values[visible])
        given = ranges.of(value_spread.kind)
        if given is not None and is_of_channels(given):  # of a model for other channels, which refuses this image
            given = None
        used = given or decide([value_spread]).of(value_spread.kind)
        assert used is not None
        pixels = to_uint8(self.values, used)
        notes.append(note(value_spread, used, guessed=given is None))
        if self.inverted:
            pixels = 255 - pixels
        image = Image.fromarray(pixels, "CMYK" if pixels.shape[2:] == (4,) else None)
        if self.alpha is not None:
            top = 1.0 if self.alpha.dtype.kind == "f" else alpha_top(self.alpha)
            image.putalpha(Image.fromarray(to_uint8(self.alpha, (0, top))))
        elif visible is not None:
            image.putalpha(Image.fromarray(np.where(visible, np.uint8(255), np.uint8(0))))
        if self.profile:
            image.info["icc_profile"] = self.profile
        return image, value_spread


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32, integers in the machine's byte order."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which is refused
            return values.astype(np.float32, copy=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def content_of(values: NDArray[Any]) -> bytes:
    """A hash of values (H, W, C), equal to that of the same picture in a file (`Deep.content`)."""
    return Deep(values[..., 0] if values.shape[2] == 1 else values, "").content()


def spread_of(values: NDArray[Any]) -> AnySpread:
    """The spread of the values (H, W, C) of an image; of each channel, unless it is gray or RGB.

    Raises ValueError for floats that are not finite.
    """
    return spread(values) if values.shape[2] in GRAY_OR_RGB else channel_spreads(values)


def alpha_top(alpha: NDArray[Any]) -> float:
    """The alpha that means opaque: 16 bits, or as few as the image uses; 16 if it uses at most 8 of them."""
    most = int(alpha.max())
    if alpha.dtype == np.uint8:
        return 255
    return next((top for top in _ALPHA if most <= top), most) if most > 255 else 65535


def unpremultiplied(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Divide colours by their alpha, by which they were multiplied."""
    top = 1.0 if alpha.dtype.kind == "f" else alpha_top(alpha)
    a = alpha.astype(np.float64)
    share = np.divide(top, a, out=np.zeros_like(a), where=a > 0)
    x = colours.astype(np.float64) * (share if colours.ndim == 2 else share[..., None])
    if colours.dtype.kind == "f":
        return x.astype(np.float32)
    return np.clip(np.rint(x), 0, np.iinfo(colours.dtype).max).astype(colours.dtype)


def read_deep(image: ImageFile.ImageFile, data: bytes, notes: list[str]) -> Deep | None:
    """The values of an image that Pillow has opened from `data` and not loaded yet; None if they have 8 bits."""
    form = image.format
    if form == "PPM" and (numbers := _portable(image, data)) is not None:
        return Deep(numbers, image.mode)
    if form == "SGI" and image.tile and image.tile[0].codec_name == "SGI16":
        bands = len(image.getbands())
        width, height = image.size
        planes = np.frombuffer(data, ">u2", bands * width * height, 512).reshape(bands, height, width)
        return _with_alpha(planes[:, ::-1].transpose(1, 2, 0).astype(np.uint16), image)
    if form == "SGI" and image.tile and image.tile[0].codec_name == "sgi_rle" and data[3] == 2:
        raise DecodeError("not supported: 16-bit SGI packed by run lengths; save it as PNG or TIFF")
    if form == "JPEG2000" and image.mode not in MODES and (bits := _jpeg2000_bits(data)):
        notes.append(f"its {bits} bits are read as 8, on the range that the file states")
    if image.mode in MODES:
        mode = image.mode
        image.load()
        values: NDArray[Any] = np.asarray(image)
        key = image.info.get("transparency")
        values = values.astype(np.float32 if mode == "F" else values.dtype.newbyteorder("="), copy=False)
        if form == "JPEG2000" and values.dtype == np.uint16 and (bits := _jpeg2000_bits(data)):
            values = values >> (16 - bits)  # Pillow shifts them to the upper bits
        inverted = form == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
        profile = image.info.get("icc_profile")
        return Deep(values, mode, None, inverted, profile, (key,) if isinstance(key, int) else None)
    if form in ("PNG", "TIFF") and len(image.tile) == 1:
        return _both_bytes(image, data)
    return None


def _both_bytes(image: ImageFile.ImageFile, data: bytes) -> Deep | None:
    args = image.tile[0].args
    raw = args if isinstance(args, str) else args[0] if isinstance(args, tuple) and args else None
    match = re.fullmatch(r"(LA|RGB|RGBA|RGBX|RGBa|CMYK);16([BLN])", raw) if isinstance(raw, str) else None
    if match is None:
        return None
    bands, order = match[1], match[2]
    if bands == "LA":  # read the four bytes of a pixel as four channels
        with Image.open(io.BytesIO(data), formats=[str(image.format)]) as four:
            four.tile = [four.tile[0]._replace(args="RGBA")]
            bytes_ = np.asarray(four).astype(np.uint16)
        image.load()
        return _with_alpha(bytes_[..., 0::2] << 8 | bytes_[..., 1::2], image, "LA")
    bands = "RGBA" if bands == "RGBa" else bands
    upper = f"{bands};16{order}"
    image.tile = [image.tile[0]._replace(args=_with_raw_mode(args, upper))]
    with Image.open(io.BytesIO(data), formats=[str(image.format)]) as lower:
        lower.tile = [lower.tile[0]._replace(args=_with_raw_mode(args, f"{bands};16{_OTHER_ORDER[order]}"))]
        low = np.asarray(lower).astype(np.uint16)
    values = np.asarray(image).astype(np.uint16) << 8 | low
    result = _with_alpha(values, image)
    if match[1] == "RGBa" and result.alpha is not None:
        return replace(result, values=unpremultiplied(result.values, result.alpha), key=None)
    return result


def _with_raw_mode(args: Any, raw: str) -> Any:
    return raw if isinstance(args, str) else (raw, *args[1:])


def _with_alpha(values: NDArray[Any], image: Image.Image, mode: str | None = None) -> Deep:
    """Split values (H, W, bands) into colours and alpha."""
    bands = values.shape[2]
    profile, key = image.info.get("icc_profile"), image.info.get("transparency")
    alpha = values[..., -1] if bands == 2 or (image.mode == "RGBA" and bands == 4) else None
    colours = values if alpha is None else values[..., :-1]
    if colours.shape[2] == 1:
        colours = colours[..., 0]
    colour_key = tuple(key) if isinstance(key, tuple) and len(key) == 3 and bands == 3 else None
    return Deep(colours, mode or image.mode, alpha, profile=profile, key=colour_key)


def _portable(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """The values of a PGM or PPM of more than 8 bits; Pillow would scale them by the maximum in the header."""
    head = re.match(rb"P([2356])((?:\s|#[^\n\r]*[\n\r])+\d+){3}\s", data[:4096])
    if head is None:
        return None
    maximum = int(re.sub(rb"#[^\n\r]*", b"", head[0]).split()[-1])
    if maximum < 256:
        return None
    width, height = image.size
    bands = 3 if head[1] in b"36" else 1
    count = width * height * bands
    if head[1] in b"56":
        check_missing(head.end() + 2 * count - len(data), "bytes of pixels")
        values = np.frombuffer(data, ">u2", count, head.end()).astype(np.uint16)
    else:
        numbers = re.sub(rb"#[^\n\r]*", b"", data[head.end() :]).split(None, count)[:count]
        check_missing(count - len(numbers), f"of {count:,} numbers")
        values = np.asarray(numbers, dtype="S5").astype(np.uint16)
    return values.reshape((height, width, 3) if bands == 3 else (height, width))


def _jpeg2000_bits(data: bytes) -> int | None:
    """The bits of a sample, from the codestream's SIZ marker; None if they are not 9 to 16."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 44:
        return None
    bits = (data[at + 42] & 0x7F) + 1
    return bits if 8 < bits <= 16 else None
