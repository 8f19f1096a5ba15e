"""`TiffImage` reads TIFF, BigTIFF, OME-TIFF and Aperio's .svs: its pages are decoded tile by tile or strip by strip.

What a pixel means (palette, alpha, values without data) is in `tiff_pixels.py`. Not everything that tifffile can
decode is opened: only what unpacks into as much memory as its tile should have.
"""

import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gapstone.huge_images.huge_image import HugeImage, ImageLevel, ImageWindow
from gapstone.huge_images.packed_sizes import check_packed_size
from gapstone.huge_images.tiff_levels import tiff_levels, tiff_micrometres
from gapstone.huge_images.tiff_pixels import TiffPixels
from gapstone.huge_images.tile_cache import TileCache
from gapstone.images.decode_error import DecodeError
from gapstone.images.high_bit_depth import TURNS
from gapstone.images.load import ImageError
from gapstone.storage.paths import format_bytes, open_input

MOST_TILE_BYTES = 1 << 29
MOST_CACHE_BYTES = 1 << 28
PACKINGS = {
    1: "nothing",
    5: "LZW",
    7: "JPEG",
    8: "zlib",
    32773: "PackBits",
    32946: "zlib",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
}


class TiffImage(HugeImage):
    """A TIFF, by tifffile's pages."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tif: Any = None
        self._file: BinaryIO | None = None
        import tifffile

        _quiet()
        self._file = open_input(str(path), path)
        try:
            # another file that an OME description names isn't opened
            self._tif = tifffile.TiffFile(self._file, name=path.name, _multifile=False)
            self._levels, notes = tiff_levels(self._tif)
            self._pixels = TiffPixels(self._levels[0])
            self._check()
            self._describe(notes)
        except (ImageError, MemoryError):
            self.close()
            raise
        except Exception as error:  # tifffile raises nearly any error for hostile files
            self.close()
            raise ImageError(f"damaged (tifffile: {str(error) or type(error).__name__})") from error

    def _describe(self, notes: list[str]) -> None:
        page = self._levels[0].key
        self.kind = "TIFF" if not self._tif.is_bigtiff else "BigTIFF"
        self.kind = "Aperio SVS" if self._tif.is_svs else f"OME-{self.kind}" if self._tif.is_ome else self.kind
        self.compression = PACKINGS[int(page.compression)] if page.compression != 1 else None
        self.dtype, self.channels = self._pixels.dtype, self._pixels.channels
        self.background = self._pixels.background
        self.micrometres = tiff_micrometres(self._tif, page)
        self._turn = int(page.tags[274].value) if 274 in page.tags else 1
        self._swapped = self._turn in (5, 6, 7, 8)
        sizes = [self._upright(*level.size) for level in self._levels]
        tiles = [self._upright(*level.tile) for level in self._levels]
        self.levels = tuple(
            ImageLevel(*size, sizes[0][1] / size[1], tile) for size, tile in zip(sizes, tiles, strict=True)
        )
        self.notes = (*notes, *self._pixels.notes)
        row = max(level.tile_bytes * level.grid[1] * len(self._pixels.planes) for level in self._levels)
        self._cache = TileCache(min(MOST_CACHE_BYTES, row))

    def _check(self) -> None:
        """Raises ImageError for what isn't read, or would need more memory than a tile may."""
        for level in self._levels:
            page = level.key
            if int(page.compression) not in PACKINGS:
                name = str(getattr(page.compression, "name", page.compression))
                raise ImageError(f"not supported: a TIFF packed by {name}; read are {', '.join(_names())}")
            if page.imagedepth > 1 or page.bitspersample not in (8, 16, 32, 64):
                raise ImageError(f"not supported: a TIFF of {page.bitspersample} bits and depth {page.imagedepth}")
            if min(*level.size, *level.strip) < 1:
                raise ImageError("damaged: a TIFF without pixels")
            if level.tile_bytes > MOST_TILE_BYTES:
                raise ImageError(
                    f"a tile or strip of it unpacks to {format_bytes(level.tile_bytes)}, more than the limit of "
                    f"{format_bytes(MOST_TILE_BYTES)}: write it in tiles, as `vips tiffsave IN OUT --tile` does"
                )
            for each in level.pages:
                there = min(len(each.dataoffsets), len(each.databytecounts))
                if there < (asked := level.planes * level.grid[0] * level.grid[1]):
                    raise ImageError(f"damaged: it has {there:,} of {asked:,} tiles or strips")

    def _decode(self, level: int, top: int, left: int, height: int, width: int) -> ImageWindow:
        if self._turn not in TURNS:
            return self._stored(level, top, left, height, width)
        here = self.levels[level]
        rows, columns = _file_window(self._turn, (here.height, here.width), (top, left, height, width))
        pixels, valid = self._stored(level, rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])
        turn = TURNS[self._turn]
        return ImageWindow(np.ascontiguousarray(turn(pixels)), None if valid is None else turn(valid))

    def _stored(self, level: int, top: int, left: int, height: int, width: int) -> ImageWindow:
        """A window as it lies in the file."""
        here = self._levels[level]
        stored = np.empty((height, width, self._pixels.stored), here.key.dtype)
        valid: NDArray[np.bool_] | None = None
        high, wide = here.tile
        for plane, channels in enumerate(self._pixels.planes):
            for y in range(top // high * high, top + height, high):
                for x in range(left // wide * wide, left + width, wide):
                    begin, end = max(y, top), min(y + high, top + height)
                    first, last = max(x, left), min(x + wide, left + width)
                    part = slice(begin - top, end - top), slice(first - left, last - left)
                    tile = self._tile(level, plane, y, x)
                    if tile is None:
                        valid = np.ones((height, width), np.bool_) if valid is None else valid
                        valid[part] = False
                        stored[(*part, channels)] = 0
                    else:
                        stored[(*part, channels)] = tile[begin - y : end - y, first - x : last - x]
        return self._pixels.finish(stored, valid)

    def _tile(self, level: int, plane: int, y: int, x: int) -> NDArray[Any] | None:
        """(h, w, samples) of a tile; None if there is no data, or they are damaged, which is noted."""
        try:
            tile = self._cache.get((level, plane, y, x), lambda: self._unpack(level, plane, y, x))
        except DecodeError as error:
            self._damaged(level, *self._upright_corner(level, y, x), str(error))
            return None
        return tile if tile.size else None

    def _unpack(self, level: int, plane: int, y: int, x: int) -> NDArray[Any]:
        """The same from the file; without pixels where it has none. Raises DecodeError."""
        here = self._levels[level]
        high, wide = min(here.tile[0], here.size[0] - y), min(here.tile[1], here.size[1] - x)
        page, sample = (here.pages[plane], 0) if len(here.pages) > 1 else (here.pages[0], plane)
        down, across = here.grid
        index = sample * down * across + y // here.strip[0] * across + x // here.strip[1]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:  # sparse: never written
            return np.empty((0, 0, 0), here.key.dtype)
        if here.raw:
            row = wide * here.pixel_bytes
            offset, count = offset + y % here.strip[0] * row, high * row
        if count > here.tile_bytes * 2 + (1 << 20):
            raise DecodeError(f"it is packed in {count:,} bytes, more than its pixels have")
        assert self._file is not None
        data = os.pread(self._file.fileno(), count, offset)
        if len(data) < count:
            raise DecodeError(f"truncated: {count - len(data):,} bytes of its pixels are missing")
        if here.raw:
            values = np.frombuffer(data, here.key.dtype.newbyteorder(self._tif.byteorder))
            return values.reshape(high, wide, -1).astype(here.key.dtype, copy=False)
        check_packed_size(data, int(here.key.compression), *here.tile)
        tables: dict[str, Any] = {"jpegtables": page.jpegtables} if here.key.compression == 7 else {}
        try:
            tile = here.key.decode(data, index, **tables)[0]
        except Exception as error:  # the codecs have errors of their own
            raise DecodeError(f"its packed pixels are damaged ({error})") from None
        pixels: NDArray[Any] = tile.reshape(tile.shape[-3:])
        if pixels.shape[0] < high or pixels.shape[1] < wide or pixels.dtype != here.key.dtype:
            raise DecodeError(f"it has {pixels.shape[0]}×{pixels.shape[1]} of {high}×{wide} px")
        return pixels

    def _upright(self, high: int, wide: int) -> tuple[int, int]:
        return (wide, high) if self._swapped else (high, wide)

    def _upright_corner(self, level: int, y: int, x: int) -> tuple[int, int]:
        """Where a tile of the file begins in the upright image."""
        (high, wide), (tall, broad) = self._levels[level].size, self._levels[level].tile
        bottom, right = min(y + tall, high), min(x + broad, wide)
        rows = (high - bottom) if self._turn in (3, 4, 7, 8) else y
        columns = (wide - right) if self._turn in (2, 3, 6, 7) else x
        return (columns, rows) if self._swapped else (rows, columns)

    def close(self) -> None:
        if self._tif is not None:
            self._tif.close()
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:  # as rasterio's and h5py's files: who only looks into one need not close it
        self.close()


def _file_window(turn: int, size: tuple[int, int], window: tuple[int, int, int, int]) -> Any:
    """((first row, behind the last), (…columns)) of the file, of a window of the upright image of this size."""
    (height, width), (top, left, high, wide) = size, window
    rows, columns = (top, top + high), (left, left + wide)
    down, right = (height - rows[1], height - rows[0]), (width - columns[1], width - columns[0])
    return {
        2: (rows, right),
        3: (down, right),
        4: (down, columns),
        5: (columns, rows),
        6: (right, rows),
        7: (right, down),
        8: (columns, down),
    }[turn]


def _names() -> list[str]:
    return sorted({name for code, name in PACKINGS.items() if code != 1})


def _quiet() -> None:
    """Without a handler Python prints tifffile's log; what is wrong with a file is said in our words."""
    log = logging.getLogger("tifffile")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
