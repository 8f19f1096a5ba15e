"""`tiff_levels`: which pages of a TIFF are the levels of one image, and what they mean.

Pyramids lie in sub-directories (OME-TIFF, libvips), in pages marked as reduced, or in pages that just become smaller.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gapstone.images.as_picture import MOST_CHANNELS
from gapstone.images.load import ImageError

PART_BYTES = 1 << 24
PRINTED = 20.0
"""µm per px from which a plain TIFF's resolution is taken for one of print, which most programs write unasked."""
_CENTIMETRE, _INCH = 3, 2


@dataclass(frozen=True)
class TiffLevel:
    """A level's page, or its page of each channel."""

    pages: tuple[Any, ...]  # tifffile's TiffPage or TiffFrame

    @cached_property
    def key(self) -> Any:
        """The page that has the tags of all."""
        return self.pages[0].keyframe

    @cached_property
    def size(self) -> tuple[int, int]:
        return int(self.key.imagelength), int(self.key.imagewidth)

    @cached_property
    def strip(self) -> tuple[int, int]:
        """(height, width) of a tile or strip of the file."""
        if self.key.is_tiled:
            return int(self.key.tilelength), int(self.key.tilewidth)
        return min(int(self.key.rowsperstrip), self.size[0]), self.size[1]

    @cached_property
    def raw(self) -> bool:
        """Whether rows lie in strips as they are, so that a part of a strip can be read."""
        page = self.key
        return bool(not page.is_tiled and page.compression == 1 and page.predictor == 1 and page.fillorder != 2)

    @cached_property
    def tile(self) -> tuple[int, int]:
        """(height, width) of what is decoded at once: of a raw strip, some of its rows."""
        high, wide = self.strip
        row = wide * self.pixel_bytes
        if self.raw and high * row > PART_BYTES:
            most = max(1, PART_BYTES // row)
            # parts begin anew with each strip
            high = most if high == self.size[0] else max(n for n in range(1, most + 1) if high % n == 0)
        return high, wide

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Tiles or strips of the file: down, and across."""
        return -(-self.size[0] // self.strip[0]), -(-self.size[1] // self.strip[1])

    @cached_property
    def planes(self) -> int:
        """Of a page."""
        return int(self.key.samplesperpixel) if self.key.planarconfig == 2 else 1

    @cached_property
    def pixel_bytes(self) -> int:
        """Of a pixel in a tile."""
        return int(self.key.samplesperpixel) // self.planes * int(self.key.bitspersample) // 8

    @cached_property
    def tile_bytes(self) -> int:
        return self.tile[0] * self.tile[1] * self.pixel_bytes


def tiff_levels(tif: Any) -> tuple[list[TiffLevel], list[str]]:
    """The levels of the first image, the finest first, and notes. Raises ImageError where there is none."""
    if not tif.series:
        raise ImageError("damaged: a TIFF without an image")
    notes: list[str] = []
    main = tif.series[0]
    levels = [TiffLevel(_pages(level, notes)) for level in main.levels]
    others = [series for series in tif.series[1:] if len(series.levels) == 1 and len(series.pages) == 1]
    if len(levels) == 1 and len(levels[0].pages) == 1 and main.kind in ("generic", "uniform", "shaped"):
        # pages of one image at ever smaller sizes, none marked as reduced
        for series in others:
            smaller = TiffLevel((series.pages[0],))
            if not _is_next(levels[-1], smaller):
                break
            levels.append(smaller)
    return [levels[0], *(level for level in levels[1:] if _alike(levels[0], level))], list(dict.fromkeys(notes))


def _pages(series: Any, notes: list[str]) -> tuple[Any, ...]:
    """The pages of one level: those of the first plane, time, …; one for each channel where they lie in pages."""
    pages = [page for page in series.pages if page is not None]
    if not pages:
        raise ImageError("damaged: a TIFF without an image")
    leading = series.axes[: series.axes.find("Y")] if "Y" in series.axes else ""
    inside = pages[0].keyframe.axes
    outer = leading[: len(leading) - (len(inside) - len(inside.lstrip("S")))] if inside.startswith("S") else leading
    shape = series.shape[: len(outer)]
    if len(pages) == 1 or int(np.prod(shape)) != len(pages):
        if len(pages) > 1:
            notes.append(f"the first of {len(pages):,} pages is read")
        return (pages[0],)
    order = np.arange(len(pages)).reshape(shape)
    for axis in range(len(outer) - 1, -1, -1):
        if outer[axis] not in "CS":
            if shape[axis] > 1:
                notes.append(f"the first of {shape[axis]:,} planes is read")
            order = order.take(0, axis)
    if order.size > MOST_CHANNELS:
        notes.append(f"the first of {order.size:,} pages is read")
        order = order.ravel()[:1]
    return tuple(pages[int(number)] for number in order.ravel())


def _is_next(level: TiffLevel, smaller: TiffLevel) -> bool:
    """Whether a page is the next level: both sides smaller by the same factor, but for rounding."""
    (high, wide), (small_high, small_wide) = level.size, smaller.size
    factor = wide / small_wide
    return factor >= 1.5 and abs(high / factor - small_high) <= 1.5 and _alike(level, smaller)


def _alike(level: TiffLevel, other: TiffLevel) -> bool:
    a, b = level.key, other.key
    return len(level.pages) == len(other.pages) and all(
        getattr(a, name) == getattr(b, name) for name in ("dtype", "samplesperpixel", "planarconfig")
    )


def tiff_micrometres(tif: Any, page: Any) -> float | None:
    """µm per px, where the file says so: OME, Aperio, ImageJ, or resolution tags that aren't those of print."""
    try:
        return _micrometres(tif, page)
    except (ValueError, KeyError, TypeError, ZeroDivisionError, AttributeError, IndexError):
        return None


_UNITS = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3}


def _micrometres(tif: Any, page: Any) -> float | None:
    import tifffile

    if tif.is_ome:
        image = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        return _positive(float(pixels["PhysicalSizeX"]) * _UNITS[pixels.get("PhysicalSizeXUnit", "µm")])
    if tif.is_svs:
        return _positive(float(tifffile.tifffile.svs_description_metadata(page.description)["MPP"]))
    over, under = page.tags[282].value
    per_px = under / over
    if tif.is_imagej and (unit := str(tif.imagej_metadata.get("unit", ""))):
        return _positive(per_px * _UNITS[unit.replace("\\u00B5", "µ")])
    code = int(page.tags[296].value) if 296 in page.tags else _INCH
    size: float = per_px * {_CENTIMETRE: 1e4, _INCH: 25400.0}[code]
    return _positive(size) if size < PRINTED else None


def _positive(size: float) -> float | None:
    return size if 0 < size < float("inf") else None
