"""to_uint8(image) = the same picture as uint8 gray or sRGB, whatever Pillow's mode was; every assumption is a note.

Alpha is laid on white, or on black where white would not show it; palettes are looked up; CMYK, LAB and files with a
profile go through LittleCMS. More than 8 bits: `deep`.
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
"""Gray levels between the darkest and the brightest pixel: of less, a shape cannot be told from its ground."""


def to_uint8(image: Image.Image, notes: list[str]) -> tuple[NDArray[np.uint8], bytes]:
    """(H, W) gray or (H, W, 3) sRGB; and a hash of what its transparency hides: pictures are the same only if that is.

    Appends to `notes` what had to be assumed. Raises ValueError with a reason.
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
        hidden = _content(flat, alpha)
        flat = _on_ground(flat, alpha, notes)
    return np.asarray(flat, dtype=np.uint8), hidden


def _content(flat: Image.Image, alpha: Image.Image) -> bytes:
    """Of the colours that can be seen, and of how much."""
    seen, colours = np.asarray(alpha), np.asarray(flat)
    if colours.ndim == 3 and bool((colours == colours[..., :1]).all()):
        colours = colours[..., 0]
    colours = np.where(seen > 0 if colours.ndim == 2 else (seen > 0)[..., None], colours, 0).astype(np.uint8)
    digest = hashlib.blake2b(f"{colours.shape}".encode(), digest_size=16)
    digest.update(seen.tobytes())
    digest.update(colours.tobytes())
    return digest.digest()


def _on_ground(flat: Image.Image, alpha: Image.Image, notes: list[str]) -> Image.Image:
    """On white; on black, where the picture would vanish in white."""
    on_white = Image.composite(flat, Image.new(flat.mode, flat.size, "white"), alpha)
    if alpha.getextrema()[1] == 0:
        notes.append("blank: all of it is transparent")
        return on_white
    if _contrast(on_white) < PLAIN:
        on_black = Image.composite(flat, Image.new(flat.mode, flat.size, "black"), alpha)
        if _contrast(on_black) > _contrast(on_white):
            notes.append("transparent parts are shown on black: on white nothing would be seen")
            return on_black
        notes.append("blank: nothing stands out from its transparent parts")
        return on_white
    notes.append("transparent parts are shown on white")
    return on_white


def _contrast(image: Image.Image) -> int:
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return max(int(high) - int(low) for low, high in bands)


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


def _line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__
