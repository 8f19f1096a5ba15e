"""`TiffPixels`: what the samples of a TIFF mean: gray, colours, palette, alpha, values that stand for no data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.huge_images.huge_image import ImageWindow, background_of
from gapstone.huge_images.tiff_levels import TiffLevel
from gapstone.images.load import ImageError

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_READ = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR)
_NODATA, _PROFILE = 42113, 34675


class TiffPixels:
    """Makes pixels and mask of samples as they are stored."""

    def __init__(self, level: TiffLevel) -> None:
        page = level.key
        self.photometric = int(page.photometric)
        samples = int(page.samplesperpixel)
        self.stored = samples * len(level.pages)
        self.dtype: np.dtype[Any] = np.dtype(page.dtype) if page.dtype is not None else np.dtype(np.void)
        self.planes = self._planes(level)
        self.notes: list[str] = []
        self._alpha, self._premultiplied = _alpha(page) if len(level.pages) == 1 else (None, False)
        self._palette = _palette(page) if self.photometric == _PALETTE else None
        self._nodata = _nodata(page)
        self._check(page)
        self.channels = 3 if self._palette is not None else self.stored - (self._alpha is not None)
        self.background: float = 255 if self.dtype == np.uint8 else 0
        if self._nodata is not None and self._alpha is None:
            self.background = self._nodata
        if _PROFILE in page.tags:
            self.notes.append("its colour profile is not applied")

    def _planes(self, level: TiffLevel) -> list[slice]:
        """Which stored channels each plane has: of pages of channels, and where planes lie one after the other."""
        if len(level.pages) > 1:
            each = int(level.key.samplesperpixel)
            return [slice(n * each, (n + 1) * each) for n in range(len(level.pages))]
        if level.planes > 1:
            return [slice(n, n + 1) for n in range(self.stored)]
        return [slice(0, self.stored)]

    def _check(self, page: Any) -> None:
        if self.photometric not in _READ or (self.photometric == _YCBCR and page.compression != 7):
            name = str(getattr(page.photometric, "name", page.photometric))
            raise ImageError(f"not supported: a TIFF of {name} colours; save it as RGB")
        if self.dtype.kind not in "uif" or self.dtype.itemsize > 8:
            raise ImageError(f"not supported: a TIFF of {page.bitspersample}-bit samples of kind {page.sampleformat}")
        if self.photometric == _PALETTE and (self._palette is None or self.stored != 1):
            raise ImageError("not supported: a TIFF with a palette of another form than 8 bits")

    def finish(self, stored: NDArray[Any], valid: NDArray[np.bool_] | None) -> ImageWindow:
        """Pixels and mask; `valid` is False where tiles are missing."""
        pixels = stored
        if self._palette is not None:
            pixels = self._palette[stored[..., 0]]
        elif self.photometric == _WHITE_IS_ZERO and self.dtype.kind == "u":
            pixels = np.iinfo(self.dtype).max - stored
        if self._alpha is not None:
            there = stored[..., self._alpha]
            pixels = np.ascontiguousarray(np.delete(pixels, self._alpha, axis=2))
            if self.dtype == np.uint8:
                pixels = on_white(pixels, there, self._premultiplied)
            valid = _and(valid, there != 0)
        if self._nodata is not None:
            known = ~np.isnan(stored) if np.isnan(self._nodata) else stored != self._nodata
            valid = _and(valid, known.any(axis=2))
        if valid is not None:
            if valid.all():
                valid = None
            elif self._nodata is None or self._alpha is not None:
                pixels = np.where(valid[..., None], pixels, background_of(self.dtype, self.background))
        return ImageWindow(pixels, valid)


def on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8], premultiplied: bool) -> NDArray[np.uint8]:
    """Colours (H, W, C) of an alpha (H, W) on white."""
    if premultiplied:
        added: NDArray[np.uint8] = np.minimum(colours + (255 - alpha[..., None].astype(np.uint16)), 255).astype(
            np.uint8
        )
        return added
    opacity, white = Image.fromarray(alpha), Image.new("L", alpha.shape[::-1], 255)
    channels = [Image.composite(Image.fromarray(colours[..., c]), white, opacity) for c in range(colours.shape[2])]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def _and(valid: NDArray[np.bool_] | None, other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return other if valid is None else valid & other


def _alpha(page: Any) -> tuple[int | None, bool]:
    """The sample that is alpha, and whether colours are multiplied by it already."""
    colours = 3 if int(page.photometric) in (_RGB, _YCBCR) else 1
    extra = [int(kind) for kind in page.extrasamples]
    at = next((n for n, kind in enumerate(extra) if kind in (1, 2)), None)
    return (None, False) if at is None else (colours + at, extra[at] == 1)


def _palette(page: Any) -> NDArray[Any] | None:
    """(256, 3) colours of 8 bits."""
    colours = page.colormap
    if colours is None or page.bitspersample != 8 or np.shape(colours) != (3, 256):
        return None
    return np.ascontiguousarray((np.asarray(colours) >> 8).astype(np.uint8).T)


def _nodata(page: Any) -> float | None:
    """GDAL's value for no data."""
    if _NODATA not in page.tags:
        return None
    try:
        return float(str(page.tags[_NODATA].value).strip("\0 \n"))
    except ValueError:
        return None
