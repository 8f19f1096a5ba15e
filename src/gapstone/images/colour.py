"""to_uint8(image) = the same picture as uint8 gray or sRGB, whatever Pillow's mode was; every assumption is a note.

Alpha is laid on white; palettes are looked up; CMYK, LAB and files with a profile go through LittleCMS; 16-bit and
float values are scaled to 0…255.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N", "I;12")
_RANGES = (255, 1023, 4095, 16383, 65535)


def to_uint8(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """(H, W) gray or (H, W, 3) sRGB; appends to `notes` what had to be assumed. Raises ValueError with a reason."""
    if image.mode in DEEP:
        return _deep(image, notes)
    profile = image.info.get("icc_profile")
    image = _expand(image)
    image, alpha = _split_alpha(image)
    if image.mode == "L":
        flat = image
    elif image.mode in ("RGB", "CMYK", "LAB"):
        flat = _to_srgb(image, profile, notes)
    else:
        flat = image.convert("RGB")
    if alpha is not None:
        if alpha.getextrema() != (255, 255):
            notes.append("transparent parts are shown on white")
        white = Image.new(flat.mode, flat.size, "white")
        flat = Image.composite(flat, white, alpha)
    return np.asarray(flat, dtype=np.uint8)


def _expand(image: Image.Image) -> Image.Image:
    """Palette, 1-bit, premultiplied and colour-keyed images in a mode that holds each pixel's own colour and alpha."""
    transparent = image.info.get("transparency") is not None
    if image.mode == "P":
        alpha = transparent or (image.palette is not None and image.palette.mode == "RGBA")
        return image.convert("RGBA" if alpha else "RGB")
    if image.mode == "PA":
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("LA" if transparent else "L")
    if image.mode == "L" and transparent:
        return image.convert("LA")
    if image.mode == "RGB" and transparent:
        return image.convert("RGBA")
    if image.mode == "RGBa":
        return image.convert("RGBA")
    if image.mode == "La":
        return image.convert("LA")
    return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode in ("LA", "RGBA"):
        # by band and not by convert(): Pillow's convert would drop the alpha without a word
        *colours, alpha = image.split()
        return (colours[0] if len(colours) == 1 else Image.merge("RGB", colours)), alpha
    return image, None


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if image.mode == "RGB" and not profile:
        return image
    from PIL import ImageCms

    source: ImageCms.ImageCmsProfile | None = None
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")  # type: ignore[assignment]  # either kind is taken
    elif profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            name = (source.profile.profile_description or "").strip("\x00 \n")
            space = source.profile.xcolor_space.strip()
        except (OSError, ImageCms.PyCMSError, ValueError) as e:
            notes.append(f"its colour profile cannot be read ({_line(e)}): colours taken as they are")
            source = None
        else:
            if space != image.mode:
                notes.append(f"its colour profile is for {space}, the image is {image.mode}: profile ignored")
                source = None
            elif image.mode == "RGB" and "srgb" in name.lower():
                return image  # the usual case; a transform from sRGB to itself would only cost time and round
            else:
                notes.append(f"colours converted from {name or 'an unnamed profile'!r} to sRGB")
    if source is None:
        return image.convert("RGB")
    try:
        return _transform(image, source)
    except ImageCms.PyCMSError as e:
        if image.mode == "LAB":
            raise ValueError(f"LAB colours cannot be converted: {_line(e)}") from e
        notes[-1] = f"its colour profile cannot be used ({_line(e)}): colours taken as they are"
        return image.convert("RGB")


def _transform(image: Image.Image, source: "ImageCms.ImageCmsProfile") -> Image.Image:
    from PIL import ImageCms

    out = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert out is not None
    return out


def _deep(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """Gray with more than 8 bits."""
    values = np.asarray(image)
    if image.mode == "F":
        return _floats(values.astype(np.float32, copy=False), notes)
    key = image.info.get("transparency")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise ValueError(f"integer pixels below 0 (the lowest is {lowest}); save it as 8- or 16-bit gray")
    # The smallest range that holds the maximum: a 12-bit camera's file divided by 65535 would be all but black.
    top = next((r for r in _RANGES if highest <= r), highest)
    bits = int(top).bit_length()
    notes.append(f"{bits}-bit range: 0…{top} scaled to 0…255 (its highest value is {highest})")
    out = np.empty(values.shape, np.uint8)
    for rows in range(0, values.shape[0], 1024):  # in strips: 64-bit products of a whole 100 MP image are 800 MB
        strip = values[rows : rows + 1024].astype(np.uint64)
        out[rows : rows + 1024] = (strip * 255 + top // 2) // top
    if isinstance(key, int):
        out[values == key] = 255
        notes.append("transparent parts are shown on white")
    return out


def _floats(values: NDArray[np.float32], notes: list[str]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("float pixels that are infinite or not a number; replace them and save it again")
    if low >= 0 and high <= 1:
        bottom, top = 0.0, 1.0
    elif low >= 0 and high <= 255:
        bottom, top = 0.0, 255.0
    else:
        bottom, top = low, high
    notes.append(f"float pixels: {bottom:g}…{top:g} scaled to 0…255")
    span = (top - bottom) or 1.0
    out = np.empty(values.shape, np.uint8)
    for rows in range(0, values.shape[0], 1024):
        strip = values[rows : rows + 1024].astype(np.float64)
        out[rows : rows + 1024] = np.rint((strip - bottom) * (255 / span))
    return out


def _line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__
