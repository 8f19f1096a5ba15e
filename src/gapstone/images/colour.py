"""`to_uint8` converts an image of any of Pillow's modes of 8 bits to uint8 gray or sRGB; it notes every assumption.

Transparent images are composed with white, or with black if they are invisible on white. Palettes are expanded. CMYK,
LAB and files with a colour profile are converted by LittleCMS. For more than 8 bits see `high_bit_depth`.
"""

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

PLAIN = 32
"""Gray levels between the darkest and the brightest pixel below which a shape is invisible on its background."""


def to_uint8(image: Image.Image, notes: list[str]) -> tuple[NDArray[np.uint8], bytes]:
    """(H, W) gray or (H, W, 3) sRGB pixels, and a hash of the alpha and the colours of a transparent image.

    Images are copies of each other only if this hash is the same, too. Assumptions are added to `notes`. Raises
    ValueError with a reason.
    """
    hidden = b""
    profile = image.info.get("icc_profile")
    image = _expand(image)
    image, alpha = _split_alpha(image)
    if image.mode == "L":
        flat = image
    elif image.mode in ("RGB", "CMYK", "LAB"):
        flat = _to_srgb(image, profile, notes)
    else:
        flat = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        hidden = _hash_visible(flat, alpha)
        flat = _compose(flat, alpha, notes)
    return np.asarray(flat, dtype=np.uint8), hidden


def _hash_visible(flat: Image.Image, alpha: Image.Image) -> bytes:
    """A hash of the alpha and of the colours that are not fully transparent."""
    opacity, colours = np.asarray(alpha), np.asarray(flat)
    if colours.ndim == 3 and bool((colours == colours[..., :1]).all()):
        colours = colours[..., 0]
    colours = np.where(opacity > 0 if colours.ndim == 2 else (opacity > 0)[..., None], colours, 0).astype(np.uint8)
    digest = hashlib.blake2b(f"{colours.shape}".encode(), digest_size=16)
    digest.update(opacity.tobytes())
    digest.update(colours.tobytes())
    return digest.digest()


def _compose(flat: Image.Image, alpha: Image.Image, notes: list[str]) -> Image.Image:
    """The image on white, or on black if it is invisible on white."""
    on_white = Image.composite(flat, Image.new(flat.mode, flat.size, "white"), alpha)
    if alpha.getextrema()[1] == 0:
        notes.append("blank: all of it is transparent")
        return on_white
    if _contrast(on_white) >= PLAIN:
        notes.append("transparent parts are shown on white")
        return on_white
    on_black = Image.composite(flat, Image.new(flat.mode, flat.size, "black"), alpha)
    if _contrast(on_black) > _contrast(on_white):
        notes.append("transparent parts are shown on black: on white nothing would be seen")
        return on_black
    notes.append("blank: nothing stands out from its transparent parts")
    return on_white


def _contrast(image: Image.Image) -> int:
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return max(int(high) - int(low) for low, high in bands)


def _expand(image: Image.Image) -> Image.Image:
    """Convert palette, 1-bit, premultiplied and colour-keyed images to a mode with a colour and an alpha per pixel."""
    palettes_alpha = image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA"
    mode = {"P": "RGB", "PA": "RGBA", "1": "L", "RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)
    if palettes_alpha or image.info.get("transparency") is not None:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return image if mode == image.mode else image.convert(mode)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode in ("LA", "RGBA"):
        # not by convert(), which drops the alpha silently
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
                return image  # the usual case; converting sRGB to itself would take time and round
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


def _line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__
