"""Pictures of which something is missing, which decoders fill up without a word; and sound ones, all loaded."""

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gapstone.images import jpeg
from gapstone.images.load import ImageError, load
from tests.written_images import png16, tiff


@cache
def photo() -> Image.Image:
    """Smooth, with noise, and no pixel of 0."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(40, 216, (9, 13, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((160, 120), Image.Resampling.BICUBIC)) + random.normal(0, 9, (120, 160, 3))
    return Image.fromarray(np.clip(pixels, 1, 255).astype(np.uint8))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 88}),
    "JPEG 4:4:4": ("JPEG", {"quality": 70, "optimize": True, "subsampling": 0}),
    "gray JPEG": ("JPEG", {"quality": 85}),
    "JPEG with restarts": ("JPEG", {"quality": 85, "restart_marker_rows": 1}),
    "progressive": ("JPEG", {"quality": 85, "progressive": True}),
    "WebP": ("WEBP", {"quality": 80}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {}),
    "QOI": ("QOI", {}),
    "JPEG in TIFF": ("TIFF", {"compression": "jpeg"}),
    "zlib in TIFF": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "JPEG 2000": ("JPEG2000", {}),
    "PNG": ("PNG", {}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "PPM": ("PPM", {}),
    "TGA": ("TGA", {}),
    "DDS": ("DDS", {}),
    "DDS in blocks": ("DDS", {"pixel_format": "DXT1"}),
    "PCX": ("PCX", {}),
    "SGI": ("SGI", {}),
}


@cache
def file(kind: str) -> bytes:
    form, options = KINDS[kind]
    out = io.BytesIO()
    (photo().convert("L") if kind.startswith("gray") else photo()).save(out, form, **options)
    return out.getvalue()


def cut(data: bytes, random: np.random.Generator) -> bytes:
    """Bytes from the middle are missing."""
    at = int(len(data) * random.uniform(0.3, 0.6))
    return data[:at] + data[at + int(len(data) * random.uniform(0.05, 0.25)) :]


def closed(data: bytes, random: np.random.Generator) -> bytes:
    """Cut, and closed by an end marker."""
    return data[: int(len(data) * random.uniform(0.3, 0.7))] + b"\xff\xd9"


def overwritten(data: bytes, random: np.random.Generator) -> bytes:
    at, length = int(len(data) * random.uniform(0.3, 0.6)), int(len(data) * random.uniform(0.1, 0.2))
    return data[:at] + random.integers(0, 256, length, dtype=np.uint8).tobytes() + data[at + length :]


def zeroed(data: bytes, random: np.random.Generator) -> bytes:
    """As a copy that was interrupted leaves a file of full length."""
    at = int(len(data) * random.uniform(0.35, 0.65))
    return data[:at] + bytes(len(data) - at)


# What cannot be told is not listed: random bytes in pixels without checksum and count.
CANNOT_BE_TOLD = {"WebP", "lossless WebP", "AVIF", "BMP", "TIFF", "PPM", "TGA", "DDS", "DDS in blocks", "SGI"}


@pytest.mark.parametrize("kind", KINDS)
def test_missing_pixels_are_listed(kind: str) -> None:
    random = np.random.default_rng(1)
    for damage in (cut, zeroed, *([closed] if "J" in kind or kind == "progressive" else [])):
        for _ in range(3):
            with pytest.raises(ImageError) as error:
                load(damage(file(kind), random))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CANNOT_BE_TOLD])
def test_overwritten_pixels_are_listed(kind: str) -> None:
    random = np.random.default_rng(2)
    for _ in range(3):
        with pytest.raises(ImageError):
            load(overwritten(file(kind), random))


@pytest.mark.parametrize("kind", KINDS)
def test_sound_ones_are_the_pixels_that_pillow_decodes(kind: str) -> None:
    with Image.open(io.BytesIO(file(kind))) as image:
        expected = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    for trailing in (b"", b"\0" * 4096, b"and something of a camera's"):
        got = load(file(kind) + trailing)
        assert np.array_equal(got.pixels.squeeze(), expected)
        assert got.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG 4:4:4", "gray JPEG", "JPEG with restarts", "progressive"])
@pytest.mark.parametrize("instead", [b"", b"\0" * 5000])
def test_a_jpeg_without_its_end_marker_is_loaded_and_noted(kind: str, instead: bytes) -> None:
    got = load(file(kind)[:-2] + instead)
    assert np.array_equal(got.pixels, load(file(kind)).pixels)
    assert got.notes == ("its end marker is missing; all of its pixels are there",)


@pytest.mark.parametrize("spare", [b"\xff", b"\xff\xff\xff", b"\0\0", b"\x12\x34\x56"])
def test_a_few_bytes_before_the_end_marker_are_nothing(spare: bytes) -> None:
    data = file("JPEG")[:-2] + spare + b"\xff\xd9"
    assert np.array_equal(load(data).pixels, load(file("JPEG")).pixels)


def test_every_size_of_jpeg_comes_out_even() -> None:
    """Blocks at the border, one pixel, flat pictures whose codes are all zeros: the decoder reads ahead in all."""
    random = np.random.default_rng(3)
    for width, height in [(1, 1), (7, 9), (8, 8), (16, 16), (17, 15), (33, 64), (64, 3)]:
        for pixels in (
            random.integers(0, 256, (height, width, 3), dtype=np.uint8),
            np.full((height, width, 3), 128, np.uint8),
        ):
            for options in (
                {},
                {"optimize": True},
                {"progressive": True},
                {"subsampling": 0},
                {"restart_marker_blocks": 1},
            ):
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "JPEG", **options)
                with Image.open(out) as image:
                    assert np.array_equal(load(out.getvalue()).pixels, np.asarray(image))


def test_scans_of_a_progressive_jpeg_that_are_missing_are_counted() -> None:
    found = jpeg.read_structure(file("progressive"))
    for scan in found.scans[:-1]:
        with pytest.raises(ImageError, match=r"scans?, and some are missing"):
            load(file("progressive")[: scan.end] + b"\xff\xd9")
    # within the last one: nothing but its data tells
    last = found.scans[-1]
    with pytest.raises(ImageError, match="bytes of its pixels are missing"):
        load(file("progressive")[: (last.start + last.end) // 2] + b"\xff\xd9")


def test_restart_markers_are_counted_and_in_order() -> None:
    data = file("JPEG with restarts")
    (scan,) = jpeg.read_structure(data).scans
    a, b, c = scan.restarts[:3]
    with pytest.raises(ImageError, match="of its 7 restart markers are there"):
        load(data[:a] + data[b:])
    with pytest.raises(ImageError, match="restart markers do not follow each other"):
        load(data[:a] + data[b:c] + data[a:b] + data[c:])


def test_black_parts_of_sound_pictures_are_no_damage() -> None:
    """Letterboxes, a digit on black, a mask, a night with a lamp, drawings: in every format that has no check."""
    random = np.random.default_rng(4)
    bright = np.asarray(photo())
    letterbox = bright.copy()
    letterbox[:30] = letterbox[90:] = 0
    digit = np.zeros_like(bright)
    digit[40:77, 60:95] = bright[40:77, 60:95]
    corner = bright.copy()
    corner[60:, 80:] = 0
    slope = bright.copy()
    for x in range(160):
        slope[60 + x // 3 :, x] = 0
    mask = np.where(random.random((120, 160, 1)) < 0.01, 255, 0).astype(np.uint8).repeat(3, 2)
    red = bright.copy()
    red[50:, :, 1:] = 0
    for picture in (letterbox, digit, corner, slope, mask, red, np.zeros_like(bright)):
        for form in ("BMP", "TIFF", "PPM", "TGA", "DDS", "PCX", "SGI"):
            out = io.BytesIO()
            Image.fromarray(picture).save(out, form)
            assert np.array_equal(load(out.getvalue()).pixels, picture)


def test_flat_pictures_have_no_run_of_zeros() -> None:
    for level in (0, 128, 255):
        for form, options in (("WEBP", {}), ("WEBP", {"lossless": True}), ("AVIF", {}), ("QOI", {}), ("JPEG2000", {})):
            out = io.BytesIO()
            Image.new("RGB", (700, 500), (level, level, level)).save(out, form, **options)
            load(out.getvalue())


def test_missing_and_overwritten_deep_pixels() -> None:
    values = np.random.default_rng(5).integers(1000, 4000, (60, 80, 3), dtype=np.uint16)
    whole = tiff(values, 2)
    with pytest.raises(ImageError, match=r"truncated: 7,\d+ bytes of pixels are missing"):
        load(whole[:-7001])
    with pytest.raises(ImageError, match="rows of it are only zeros"):
        load(whole[: len(whole) - 9001] + bytes(9001))
    packed = tiff(values, 2, packed=True)
    with pytest.raises(ImageError, match="packed pixels are damaged"):
        load(packed[:-4] + b"\1\2\3\4")  # the sum behind the pixels
    with pytest.raises(ImageError, match="bytes of pixels are missing"):
        load(b"P6 80 60 4095\n" + values.astype(">u2").tobytes()[:-6])


def test_a_tiff_without_its_directory_is_truncated() -> None:
    data = file("JPEG in TIFF")
    first = struct.unpack_from("<I", data, 4)[0]
    with pytest.raises(ImageError, match="truncated: its directory, at byte"):
        load(data[: first - 100])


def test_a_white_shape_is_seen() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:15, 5:15] = 255
    got = load(png(pixels))
    assert got.pixels[10, 10].tolist() == [255, 255, 255]
    assert got.pixels[0, 0].tolist() == [0, 0, 0]
    assert got.notes == ("transparent parts are shown on black: on white nothing would be seen",)
    deep = np.where(pixels == 255, 65535, 0).astype(np.uint16)
    assert np.array_equal(load(png16(deep)).pixels, got.pixels)
    gray = load(png(pixels[..., 2:]))
    assert np.array_equal(gray.pixels[..., 0], got.pixels[..., 0])


def test_shapes_of_any_colour_stand_out() -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (250, 250, 245), (128, 128, 128), (255, 255, 0), (255, 0, 0)):
        pixels = np.zeros((20, 20, 4), np.uint8)
        pixels[5:15, 5:15] = (*colour, 255)
        got = load(png(pixels)).pixels.astype(int)
        assert np.abs(got[10, 10] - got[0, 0]).max() >= 100


def test_blank_pictures_are_noted_and_no_conflict(tmp_path: Path) -> None:
    from gapstone.data.open_source import open_source
    from gapstone.data.scan import scan

    clear = np.zeros((20, 20, 4), np.uint8)
    faint = np.full((20, 20, 4), 255, np.uint8)
    faint[..., 3] = 100
    assert load(png(clear)).notes == ("blank: all of it is transparent",)
    square, disc = clear.copy(), clear.copy()
    square[5:15, 5:15] = 255
    disc[2:9, 2:18] = 255
    for name, pixels in {"a/0": square, "a/1": faint, "b/0": disc, "b/1": np.full((20, 20, 4), 255, np.uint8)}.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(pixels))
    found = scan(open_source(tmp_path), cache=None, workers=1)
    assert found.conflicts == []
    assert found.excluded == set()


def png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_heic_names_the_extra_or_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from gapstone.images import heif

    box = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")
    assert heif.is_heif(box)
    assert not heif.is_heif(struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"avif", 0, b"mif1", b"avif"))
    monkeypatch.setattr(heif, "open_heif", lambda data: None)
    with pytest.raises(ImageError, match=r"HEIC photo.*pip install 'gapstone\[heif\]'"):
        load(box + bytes(100))


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    library = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    library.from_pillow(photo()).save(out, quality=95)
    data = out.getvalue()
    got = load(data)
    assert got.size == photo().size
    assert np.abs(got.pixels.astype(int) - np.asarray(photo())).mean() < 12
    with pytest.raises(ImageError, match="only zeros"):
        load(zeroed(data, np.random.default_rng(0)))
    with pytest.raises(ImageError, match="truncated"):
        load(data[: len(data) // 2])
