"""deep(image) = the values of a picture of more than 8 bits as its file has them, whatever the file's format.

Pillow keeps gray ones, and of colours and of gray with alpha only the upper byte. The lower bytes are had by decoding
once more with the raw mode of the other byte order, whose upper byte is the lower one.
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

from gapstone.images.decode_error import DecodeError
from gapstone.images.intensity_range import Range, Ranges, ValueSpread, decide, note, spread, to_uint8

MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N", "I;12")
"""Pillow's modes of more than 8 bits."""

_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
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
    """A picture before its values become 0…255."""

    values: NDArray[Any]
    """(H, W) gray, (H, W, 3) RGB or (H, W, 4) CMYK: integers or float32."""
    mode: str
    alpha: NDArray[Any] | None = None
    """(H, W), of the same type."""
    inverted: bool = False
    """0 is white."""
    profile: bytes | None = None
    key: tuple[int, ...] | None = None
    """The values that stand for transparent, of a PNG without alpha."""
    notes: list[str] = field(default_factory=list)

    def visible(self) -> NDArray[np.bool_] | None:
        """(H, W), where not all is."""
        if self.alpha is not None:
            return np.asarray(self.alpha > 0)
        if self.key is None:
            return None
        same = self.values == np.asarray(self.key, self.values.dtype)
        return np.asarray(~(same if same.ndim == 2 else same.all(axis=2)), np.bool_)

    def turned(self, orientation: int) -> "Deep":
        """Upright, from an orientation as EXIF has it."""
        turn = _TURNS.get(orientation)
        if turn is None:
            return self
        alpha = None if self.alpha is None else turn(self.alpha)
        return replace(self, values=turn(self.values), alpha=alpha)

    def content(self) -> bytes:
        """A hash of the values that are seen; the same for gray in one channel and in three."""
        values, seen = self.values, self.visible()
        if values.ndim == 3 and values.shape[2] == 3 and bool((values == values[..., :1]).all()):
            values = values[..., 0]
        if values.dtype.kind in "ui" and values.min() >= 0 and values.max() < 1 << 16:
            values = values.astype(np.uint16)
        digest = hashlib.blake2b(f"{values.dtype.str} {values.shape} {self.inverted}".encode(), digest_size=16)
        if seen is not None and not seen.all():
            values = np.where(seen if values.ndim == 2 else seen[..., None], values, 0)
            digest.update(np.ascontiguousarray(seen if self.alpha is None else self.alpha).data)
        digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    def as_image(self, ranges: Ranges, notes: list[str]) -> tuple[Image.Image, ValueSpread | None]:
        """In 8 bits, on the range of its data set or else its own; and how its values lie, unless they have 8 bits.

        Raises ValueError for what is no number.
        """
        notes.extend(self.notes)
        seen = self.visible()
        if self.values.dtype == np.uint8:
            image = Image.fromarray(self.values)
            if self.alpha is not None:
                image.putalpha(Image.fromarray(self.alpha))
            return image, None
        shown = self.values if seen is None or seen.all() or not seen.any() else self.values[seen]
        found = spread(shown)
        given = ranges.of(found.kind)
        value: Range | None = given or decide([found]).of(found.kind)
        assert value is not None
        pixels = to_uint8(self.values, value)
        notes.append(note(found, value, own=given is None))
        if self.inverted:
            pixels = 255 - pixels
        image = Image.fromarray(pixels, "CMYK" if pixels.shape[2:] == (4,) else None)
        if self.alpha is not None:
            top = 1.0 if self.alpha.dtype.kind == "f" else alpha_top(self.alpha)
            image.putalpha(Image.fromarray(to_uint8(self.alpha, (0, top))))
        elif seen is not None:
            image.putalpha(Image.fromarray(np.where(seen, np.uint8(255), np.uint8(0))))
        if self.profile:
            image.info["icc_profile"] = self.profile
        return image, found


def alpha_top(alpha: NDArray[Any]) -> float:
    """What stands for opaque: all 16 bits, or those that the picture uses; of 8 bits nobody uses 16."""
    most = int(alpha.max())
    if alpha.dtype == np.uint8:
        return 255
    return next((top for top in _ALPHA if most <= top), most) if most > 255 else 65535


def unpremultiplied(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Colours that were multiplied by their alpha, as they were before."""
    top = 1.0 if alpha.dtype.kind == "f" else alpha_top(alpha)
    a = alpha.astype(np.float64)
    share = np.divide(top, a, out=np.zeros_like(a), where=a > 0)
    x = colours.astype(np.float64) * (share if colours.ndim == 2 else share[..., None])
    if colours.dtype.kind == "f":
        return x.astype(np.float32)
    return np.clip(np.rint(x), 0, np.iinfo(colours.dtype).max).astype(colours.dtype)


def deep(image: ImageFile.ImageFile, data: bytes, notes: list[str]) -> Deep | None:
    """Of an image that Pillow has opened and not yet loaded; None for 8 bits. `data`: its file."""
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
            values = values >> (16 - bits)  # Pillow fills the upper bits
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
    if bands == "LA":  # four bytes of a pixel, as if they were four channels
        with Image.open(io.BytesIO(data), formats=[str(image.format)]) as four:
            four.tile = [four.tile[0]._replace(args="RGBA")]
            whole = np.asarray(four).astype(np.uint16)
        image.load()
        return _with_alpha(whole[..., 0::2] << 8 | whole[..., 1::2], image, "LA")
    bands = "RGBA" if bands == "RGBa" else bands
    upper = f"{bands};16{order}"
    image.tile = [image.tile[0]._replace(args=_with(args, upper))]
    with Image.open(io.BytesIO(data), formats=[str(image.format)]) as lower:
        lower.tile = [lower.tile[0]._replace(args=_with(args, f"{bands};16{_OTHER[order]}"))]
        low = np.asarray(lower).astype(np.uint16)
    values = np.asarray(image).astype(np.uint16) << 8 | low
    found = _with_alpha(values, image)
    if match[1] == "RGBa" and found.alpha is not None:
        return Deep(unpremultiplied(found.values, found.alpha), found.mode, found.alpha, profile=found.profile)
    return found


def _with(args: Any, raw: str) -> Any:
    return raw if isinstance(args, str) else (raw, *args[1:])


def _with_alpha(values: NDArray[Any], image: Image.Image, mode: str | None = None) -> Deep:
    """(H, W, bands) → colours and alpha."""
    bands = values.shape[2]
    profile, key = image.info.get("icc_profile"), image.info.get("transparency")
    alpha = values[..., -1] if bands == 2 or (image.mode == "RGBA" and bands == 4) else None
    colours = values if alpha is None else values[..., :-1]
    if colours.shape[2] == 1:
        colours = colours[..., 0]
    held = tuple(key) if isinstance(key, tuple) and len(key) == 3 and bands == 3 else None
    return Deep(colours, mode or image.mode, alpha, profile=profile, key=held)


def _portable(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """PGM or PPM of more than 8 bits, in the file's own numbers: Pillow scales them by what the header says."""
    head = re.match(rb"P([2356])((?:\s|#[^\n\r]*[\n\r])+\d+){3}\s", data[:4096])
    if head is None:
        return None
    most = int(re.sub(rb"#[^\n\r]*", b"", head[0]).split()[-1])
    if most < 256:
        return None
    width, height = image.size
    bands = 3 if head[1] in b"36" else 1
    count = width * height * bands
    if head[1] in b"56":
        if len(data) < head.end() + 2 * count:
            raise DecodeError(f"truncated: {head.end() + 2 * count - len(data):,} bytes of pixels are missing")
        values = np.frombuffer(data, ">u2", count, head.end()).astype(np.uint16)
    else:
        numbers = re.sub(rb"#[^\n\r]*", b"", data[head.end() :]).split(None, count)[:count]
        if len(numbers) < count:
            raise DecodeError(f"truncated: {count - len(numbers):,} of {count:,} numbers are missing")
        values = np.asarray(numbers, dtype="S5").astype(np.uint16)
    return values.reshape((height, width, 3) if bands == 3 else (height, width))


def _jpeg2000_bits(data: bytes) -> int | None:
    """Bits of a sample, as the codestream's SIZ marker says."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 44:
        return None
    bits = (data[at + 42] & 0x7F) + 1
    return bits if 8 < bits <= 16 else None
