"""Every kind of TIFF, window by window and band by band, against the whole image."""

import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from gapstone.huge_images.open_huge_image import open_huge_image
from gapstone.images.load import ImageError

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")
KINDS = {
    "tiles": {"tile": (32, 48)},
    "raw strips": {"rowsperstrip": 7},
    "one strip": {},
    "zlib": {"tile": (32, 32), "compression": "zlib", "predictor": True},
    "zlib strips": {"rowsperstrip": 10, "compression": "zlib"},
    "lzw": {"tile": (16, 64), "compression": "lzw"},
    "zstd": {"tile": (64, 64), "compression": "zstd"},
    "big-endian": {"byteorder": ">", "rowsperstrip": 9},
    "bigtiff": {"bigtiff": True, "tile": (64, 64)},
}


def values(shape, dtype, seed=0):
    made = np.random.default_rng(seed).integers(0, 255, shape)
    return (made * (257 if dtype == "uint16" else 1)).astype(dtype)


def write(path, array, *, bigtiff=False, byteorder="<", **options):
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
        file.write(
            array,
            photometric="rgb" if array.ndim == 3 and 3 in (array.shape[0], array.shape[2]) else "minisblack",
            **options,
        )
    return path


def check_against(image, whole, level=0):
    """Windows at the corners and anywhere, and bands of several heights, against all pixels."""
    height, width = whole.shape[:2]
    assert image.levels[level][:2] == (height, width)
    draw = np.random.default_rng(1)
    windows = [(0, 0, 1, 1), (height - 1, width - 1, 1, 1), (0, 0, height, width)]
    for _ in range(12):
        top, left = draw.integers(height), draw.integers(width)
        windows.append((top, left, draw.integers(1, height - top + 1), draw.integers(1, width - left + 1)))
    for top, left, high, wide in windows:
        expected = whole[top : top + high, left : left + wide]
        np.testing.assert_array_equal(image.read(top, left, high, wide, level), expected)
    for rows in (1, 13, height, 1000):
        bands = list(image.bands(rows, level))
        assert [band.top for band in bands] == list(range(0, height, rows))
        np.testing.assert_array_equal(np.concatenate([band.pixels for band in bands]), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16"), (1, "float32")])
def test_every_kind(tmp_path, kind, channels, dtype):
    array = values((101, 83, channels), dtype)
    path = write(tmp_path / "a.tif", array if channels == 3 else array[..., 0], **KINDS[kind])
    with open_huge_image(path) as image:
        assert (image.channels, image.dtype) == (channels, np.dtype(dtype))
        check_against(image, array)
        assert image.read_mask(0, 0, 101, 83).all()


def test_planes(tmp_path):
    array = values((70, 90, 3), "uint8")
    path = write(tmp_path / "a.tif", array.transpose(2, 0, 1).copy(), planarconfig="separate", tile=(32, 32))
    check_against(open_huge_image(path), array)


@pytest.mark.parametrize("how", ["sub-directories", "reduced pages"])
def test_pyramids(tmp_path, how):
    levels = [values((200 >> n, 160 >> n, 3), "uint8", n) for n in range(3)]
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}
    with tifffile.TiffWriter(path) as file:
        file.write(levels[0], subifds=2 if how == "sub-directories" else None, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    image = open_huge_image(path)
    assert [level.downsample for level in image.levels] == [1, 2, 4]
    for number, level in enumerate(levels):
        check_against(image, level, number)


def test_jpeg_as_pillow_has_it(tmp_path):
    smooth = np.linspace(0, 255, 120 * 100 * 3).reshape(120, 100, 3).astype(np.uint8)
    path = write(tmp_path / "a.tif", smooth, tile=(32, 32), compression="jpeg")
    check_against(open_huge_image(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path, orientation):
    from PIL import ImageOps

    array = values((60, 45, 3), "uint8")
    path = write(tmp_path / "a.tif", array, tile=(16, 32), extratags=[(274, 3, 1, orientation, True)])
    check_against(open_huge_image(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))


def test_a_damaged_tile_is_said_and_masked(tmp_path):
    path = write(tmp_path / "a.tif", values((64, 96, 3), "uint8"), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[4]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    image = open_huge_image(path)
    with pytest.warns(UserWarning, match="32×32 px at row 32, column 32 of level 0 cannot be decoded"):
        window = image.read_window(0, 0, 64, 96)
    assert not window.valid[32:, 32:64].any()
    assert window.valid.sum() == 64 * 96 - 32 * 32
    assert (window.pixels[32:, 32:64] == 255).all()
    assert [damage[:5] for damage in image.damage] == [(0, 32, 32, 32, 32)]
    assert "1 part" in image.damage_text()


def test_a_truncated_file(tmp_path):
    path = write(tmp_path / "a.tif", values((64, 64, 3), "uint8"))
    path.write_bytes(path.read_bytes()[:-5000])
    image = open_huge_image(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not image.read_mask(0, 0, 64, 64).all()
    assert "truncated" in str(caught[0].message)


def test_windows_outside_are_refused(tmp_path):
    image = open_huge_image(write(tmp_path / "a.tif", values((20, 30), "uint8")))
    with pytest.raises(ValueError, match="has 20 rows and 30 columns"):
        image.read(10, 0, 11, 5)
    with pytest.raises(ValueError, match=r"level 1: .* has the levels 0 to 0"):
        image.read(0, 0, 1, 1, level=1)
    with pytest.raises(ValueError, match=r"level 2: .* has the levels 0 to 0"):
        next(image.bands(4, level=2))


def test_another_process_opens_it_anew(tmp_path):
    array = values((20, 30), "uint8")
    image = pickle.loads(pickle.dumps(open_huge_image(write(tmp_path / "a.tif", array))))
    check_against(image, array[..., None])


def test_resolution(tmp_path):
    path = write(tmp_path / "a.tif", values((64, 64), "uint8"), resolution=(20000, 20000), resolutionunit="CENTIMETER")
    image = open_huge_image(path)
    assert image.micrometres == pytest.approx(0.5)
    assert image.level_for(2.0) == (0, pytest.approx(4.0))
    printed = write(tmp_path / "b.tif", values((64, 64), "uint8"), resolution=(300, 300), resolutionunit="INCH")
    assert open_huge_image(printed).micrometres is None


def test_no_image_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + bytes(10))
    with pytest.raises(ImageError):
        open_huge_image(path)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "mosaic_10400x7200_pyramid.tif"])
def test_real_slides(real_images, name):
    path = real_images("slides") / name
    image = open_huge_image(path)
    for level in range(len(image.levels)):
        here = image.levels[level]
        whole = tifffile.imread(path, series=0, level=level)
        for top, left in ((0, 0), (here.height // 2, here.width // 3)):
            high, wide = min(300, here.height - top), min(500, here.width - left)
            expected = whole[top : top + high, left : left + wide]
            np.testing.assert_array_equal(image.read(top, left, high, wide, level), expected)
    assert image.micrometres == (0.499 if name.startswith("CMU") else None)


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composed_with_white_as_pillow_does_it(tmp_path, channels):
    pixels = values((40, 30, channels + 1), "uint8")
    pixels[:10, :, -1], pixels[10:20, :, -1] = 0, 255
    path = tmp_path / "a.tif"
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(
        path, pixels, photometric=photometric, planarconfig="contig", extrasamples=["unassalpha"], tile=(16, 16)
    )
    image = open_huge_image(path)
    picture = Image.fromarray(pixels, "RGBA" if channels == 3 else "LA").convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    assert image.channels == channels
    found = image.read(0, 0, 40, 30)
    assert np.abs(found.astype(int) - np.asarray(expected)[..., :channels]).max() <= 1  # two ways of rounding
    assert (found[:10] == 255).all()
    mask = image.read_mask(0, 0, 40, 30)
    assert not mask[:10].any()
    assert mask[10:20].all()


def test_colours_that_alpha_has_multiplied_already(tmp_path):
    pixels = values((40, 30, 4), "uint8")
    pixels[..., :3] = pixels[..., :3] // 255 * pixels[..., 3:]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["assocalpha"])
    expected = pixels[..., :3].astype(int) + 255 - pixels[..., 3:]
    np.testing.assert_array_equal(open_huge_image(path).read(0, 0, 40, 30), expected)


def test_a_palette_and_white_that_is_zero(tmp_path):
    picture = Image.fromarray(values((40, 30, 3), "uint8")).quantize(200)
    picture.save(tmp_path / "a.tif")
    check_against(open_huge_image(tmp_path / "a.tif"), np.asarray(picture.convert("RGB")))
    grey = values((40, 30), "uint16")
    tifffile.imwrite(tmp_path / "b.tif", grey, photometric="miniswhite")
    check_against(open_huge_image(tmp_path / "b.tif"), 65535 - grey[..., None])


@pytest.mark.parametrize(("dtype", "word"), [("int16", "-999"), ("float32", "nan"), ("uint8", "7")])
def test_values_that_stand_for_no_data_are_masked(tmp_path, dtype, word):
    pixels = values((40, 30), "uint8", 3).astype(dtype)
    nothing = np.asarray(float(word)).astype(dtype)
    pixels[pixels == nothing] = 8
    pixels[5:9, 4:20] = nothing
    path = write(tmp_path / "a.tif", pixels, extratags=[(42113, "s", 0, word, True)])
    image = open_huge_image(path)
    mask = np.ones((40, 30), bool)
    mask[5:9, 4:20] = False
    np.testing.assert_array_equal(image.read_mask(0, 0, 40, 30), mask)
    np.testing.assert_array_equal(image.read(0, 0, 40, 30)[..., 0][mask], pixels[mask])


def test_tiles_that_were_never_written_are_no_data(tmp_path):
    path = tmp_path / "a.tif"
    tile = values((32, 32), "uint8")
    with tifffile.TiffWriter(path) as file:
        tiles = iter([tile, None, None, tile])
        options = {"photometric": "minisblack", "compression": "zlib"}
        file.write(tiles, shape=(64, 64), dtype="uint8", tile=(32, 32), **options)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].databytecounts.count(0) == 2, "the file is to be sparse"
    image = open_huge_image(path)
    window = image.read_window(0, 0, 64, 64)
    np.testing.assert_array_equal(window.pixels[32:, 32:, 0], tile)
    assert (window.pixels[:32, 32:] == 255).all()
    assert window.valid.sum() == 2 * 32 * 32
    assert not image.damage


def test_channels_in_pages_and_the_resolution_of_ome(tmp_path):
    pixels = values((5, 40, 30), "uint16")
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, pixels, metadata={"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}, tile=(16, 16)
    )
    image = open_huge_image(path)
    assert (image.channels, image.micrometres) == (5, 0.25)
    check_against(image, pixels.transpose(1, 2, 0))


def test_the_resolution_of_imagej(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values((40, 30), "uint8"), imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    assert open_huge_image(path).micrometres == pytest.approx(0.25)


@pytest.mark.parametrize("packing", ["jpeg2000", "webp", "lzma", "packbits"])
def test_other_packings(tmp_path, packing):
    pixels = values((70, 50, 3), "uint8")
    options = {"compressionargs": {"lossless": True}} if packing == "webp" else {}
    path = write(tmp_path / "a.tif", pixels, tile=(32, 32), compression=packing, **options)
    check_against(open_huge_image(path), pixels)


def test_pages_that_just_become_smaller_are_levels(tmp_path):
    levels = [values((200 >> n, 160 >> n, 3), "uint8", n) for n in range(3)]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for level in (*levels, values((31, 33, 3), "uint8")):  # the last is a label, say
            file.write(level, photometric="rgb", tile=(32, 32))
    image = open_huge_image(path)
    assert [level.downsample for level in image.levels] == [1, 2, 4]
    for number, level in enumerate(levels):
        check_against(image, level, number)


@pytest.mark.parametrize("packing", ["jpeg", "jpeg2000", "webp"])
def test_a_tile_that_says_to_be_larger_is_not_unpacked(tmp_path, packing):
    path = write(tmp_path / "a.tif", values((64, 64, 3), "uint8"), tile=(64, 64), compression=packing)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    tile = bytes(data[offset : offset + count])
    header, skipped, size = {
        "jpeg": (b"\xff\xc0", 5, b"\xff\xf0\xff\xf0"),
        "jpeg2000": (b"\xff\x4f\xff\x51", 8, b"\0\1\0\0\0\1\0\0"),
        "webp": (b"VP8L", 9, b"\xff\xff\xff\x0f"),
    }[packing]
    at = tile.index(header) + skipped
    data[offset + at : offset + at + len(size)] = size
    path.write_bytes(data)
    image = open_huge_image(path)
    with pytest.warns(UserWarning, match=r"it says to be \d+×\d+ px, in a tile of 64×64"):
        assert not image.read_mask(0, 0, 64, 64).any()


def test_a_strip_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = write(tmp_path / "a.tif", values((8, 8), "uint8"), compression="zlib")
    data = path.read_bytes()
    for tag in (256, 257, 278):  # width, height, rows in a strip
        with tifffile.TiffFile(path) as file:
            entry = file.pages[0].tags[tag]
            at, size = entry.valueoffset, 4 if entry.dtype == 4 else 2
        data = data[:at] + (60000).to_bytes(size, "little") + data[at + size :]
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"unpacks to 3\.\d+ GB, more than the limit"):
        open_huge_image(path)


def test_an_ordinary_file_is_read_whole(tmp_path):
    pixels = values((40, 30, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = open_huge_image(tmp_path / "a.png")
    check_against(image, pixels)
    assert "decoded whole" in image.kind


def test_hostile_tiffs_are_read_or_refused(real_images):
    """Whatever a file holds: pixels, or one sentence."""
    seen = {"read": 0, "refused": 0}
    for path in sorted(real_images("awkward").rglob("*.tif*")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = open_huge_image(path)
                image.read(0, 0, min(64, image.height), min(64, image.width))
                seen["read"] += 1
            except ImageError:
                seen["refused"] += 1
    assert all(seen.values()), seen
