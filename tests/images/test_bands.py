"""Files of other channels than gray and RGB: TIFFs of many bands, and NumPy arrays."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gapstone.data.input_files import input_files
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.images.array_file import read_header
from gapstone.images.intensity_range import Ranges, to_uint8
from gapstone.images.load import ImageError, load
from tests.written_images import tiff

RANDOM = np.random.default_rng(0)
BANDS = RANDOM.integers(100, 3000, (20, 24, 5)).astype(np.uint16)
BYTES = RANDOM.integers(0, 255, (20, 24, 6), np.uint8)
RANGES = Ranges(integers=((0, 3000),) * 5, floats=((0, 3000),) * 5)


def npy(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        tiff(BANDS),
        tiff(BANDS, extra=(0, 0, 0, 0)),
        tiff(BANDS, 2, extra=(0, 0)),
        tiff(BANDS, order=">", planar=True),
        tiff(BANDS, packed=True, predictor=2),
        tiff(BANDS, tile=16, packed=True),
        tiff(BANDS, rows=12, packed=True, predictor=2),
        tiff(BANDS, rows=12),
        tiff(BANDS.astype(np.int32), tile=16, planar=True),
        tiff(BANDS.astype(np.float32), packed=True, predictor=3),
        tiff(BANDS.astype(np.float64)),
        tiff(np.dstack([BANDS, BANDS[..., :1]]), extra=(0, 0, 0, 0, 2)),  # an alpha behind them
        npy(BANDS),
        npy(BANDS.transpose(2, 0, 1)),
        npy(np.asfortranarray(BANDS)),
        npy(BANDS.astype(">i4")),
        npy(BANDS.astype(np.float64)),
    ],
)
def test_bands_are_read_as_they_are(data: bytes) -> None:
    got = load(data, ranges=RANGES)
    assert np.array_equal(got.pixels, to_uint8(BANDS, ((0, 3000),) * 5))
    assert (got.mode, got.size) == ("5 channels", (24, 20))
    assert "5 channels, values from 100 to 2,998: each channel's range becomes 0…255" in got.notes
    assert isinstance(got.spread, tuple)
    guessed = load(data)
    assert guessed.pixels.min(axis=(0, 1)).tolist() == [0] * 5
    assert guessed.pixels.max(axis=(0, 1)).tolist() == [255] * 5
    assert guessed.notes[-1].endswith("(guessed from this picture alone)")


@pytest.mark.parametrize("data", [tiff(BYTES), tiff(BYTES, 2, planar=True, extra=(0,) * 3), npy(BYTES)])
def test_bands_of_8_bits_stay_as_they_are(data: bytes) -> None:
    got = load(data)
    assert np.array_equal(got.pixels, BYTES)
    assert (got.notes, got.spread, got.content) == ((), None, b"")


def test_two_gray_samples_are_bands_where_the_second_is_said_to_be_none_of_alpha() -> None:
    assert load(tiff(BANDS[..., :2], extra=(0,))).mode == "2 channels"
    assert load(tiff(BANDS[..., :2], extra=(2,))).mode == "LA"
    assert load(tiff(BYTES[..., :2])).pixels.shape == (20, 24, 1)
    assert load(tiff(BYTES[..., :4], 2, extra=(0,))).pixels.shape == (20, 24, 3)  # a picture


def test_gray_and_rgb_arrays_are_pictures() -> None:
    gray = load(npy(BYTES[..., 0]))
    assert (gray.mode, gray.pixels.shape) == ("L", (20, 24, 1))
    assert np.array_equal(load(npy(BYTES[..., :3].transpose(2, 0, 1))).pixels, BYTES[..., :3])
    deep = load(npy(BANDS[..., 0]), ranges=Ranges(integers=(0, 4095)))
    assert np.array_equal(deep.pixels[..., 0], to_uint8(BANDS[..., 0], (0, 4095)))
    assert load(tiff(BANDS[..., 0]), ranges=Ranges(integers=(0, 4095))).content == deep.content


def test_a_turned_tiff_is_upright() -> None:
    assert np.array_equal(
        load(tiff(BANDS, orientation=6), ranges=RANGES).pixels, np.rot90(load(npy(BANDS), ranges=RANGES).pixels, -1)
    )


@pytest.mark.parametrize("kind", ["imagej", "ome", "CYX", "none", "(H, W, C)"])
def test_pages_that_are_said_to_be_channels(kind: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    options = {
        "imagej": {"imagej": True, "metadata": {"axes": "CYX"}}, "ome": {"ome": True, "metadata": {"axes": "CYX"}},
        "CYX": {"metadata": {"axes": "CYX"}}, "none": {}, "(H, W, C)": {},
    }[kind]  # fmt: skip
    values = BANDS if kind == "(H, W, C)" else np.ascontiguousarray(BANDS.transpose(2, 0, 1))
    tifffile.imwrite(file, values, photometric="minisblack", **options)
    got = load(file.getvalue(), ranges=RANGES)
    assert np.array_equal(got.pixels, to_uint8(BANDS, ((0, 3000),) * 5))


@pytest.mark.parametrize(
    "options",
    [{"ome": True, "metadata": {"axes": "ZYX"}}, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"metadata": None}],
)
def test_other_pages_are_pictures_of_which_the_first_is_used(options: dict[str, Any]) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.ascontiguousarray(BANDS.transpose(2, 0, 1)), photometric="minisblack", **options)
    got = load(file.getvalue())
    assert got.pixels.shape == (20, 24, 1)
    assert got.notes[0] == "the first of 5 frames or pages is used"


@pytest.mark.parametrize("compression", ["lzw", "zstd", "lzma", "packbits"])
def test_what_imagecodecs_unpacks(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    file = io.BytesIO()
    tifffile.imwrite(file, BANDS, photometric="minisblack", planarconfig="contig", compression=compression)
    assert np.array_equal(load(file.getvalue(), ranges=RANGES).pixels, to_uint8(BANDS, ((0, 3000),) * 5))
    with pytest.raises(ImageError, match=r"^(truncated|damaged): "):
        load(file.getvalue()[:-300])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"^not supported: a TIFF of 5 channels .*; pip install 'gapstone\[slides\]'"):
        load(file.getvalue())


def test_values_that_are_none_do_not_decide_the_range() -> None:
    values = BANDS.astype(np.float32)
    values[:4] = -9999
    values[..., 2] = -9999
    got = load(tiff(values, texts={42113: "-9999"}))
    assert got.notes[0] == "36.0% of its values are none (the file says so: -9999); as the lowest"
    assert isinstance(got.spread, tuple)
    lowest = values[4:].min(axis=(0, 1))
    lowest[2] = 0
    assert [spread.lowest for spread in got.spread] == lowest.tolist()
    assert got.pixels[:4].max() == 0
    values[:4] = np.nan
    assert np.array_equal(load(tiff(values, texts={42113: "nan"})).pixels[..., 0], got.pixels[..., 0])
    with pytest.raises(ImageError, match="not a number"):
        load(tiff(values))
    gray = BANDS[..., 0].copy()
    gray[:4] = 65535
    assert load(tiff(gray, texts={42113: "65535"})).spread.highest < 3000  # type: ignore[union-attr]
    assert load(tiff(gray)).spread.highest == 65535  # type: ignore[union-attr]
    assert np.array_equal(load(tiff(gray, texts={42113: "0.5"})).pixels, load(tiff(gray)).pixels)


class Runs:
    def __reduce__(self) -> Any:
        return open, ("/tmp/never", "w")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tiff(np.zeros((20, 24, 17), np.uint16)), "not supported: .* 17 channels .*; up to 16 channels are read"),
        (tiff(np.zeros((20, 24, 5), np.complex64)), "not supported: a TIFF of 5 channels .*64-bit complex"),
        (tiff(BANDS, compression=34887), "packed by LERC; whole numbers and floats"),
        (tiff(BANDS)[:-1000], "truncated: 1,000 bytes of pixels are missing"),
        (tiff(BANDS, packed=True)[:-100], "truncated: "),
        (tiff(BANDS, packed=True).replace(tiff(BANDS, packed=True)[-3000:-2900], bytes(100)), "damaged: its packed"),
        (tiff(np.zeros((2000, 20, 5), np.uint16), packed=True, tile=0)[:400], "truncated|damaged"),
        (npy(BANDS)[:-7], "truncated: 7 bytes of values are missing"),
        (npy(BANDS)[:40], "damaged: the header of its array cannot be read"),
        (npy(np.zeros(7)), r"not supported: an array of shape \(7,\); expected an image"),
        (npy(np.zeros((4, 0, 3))), r"not supported: an array of shape \(4, 0, 3\)"),
        (npy(np.zeros((20, 20, 20))), r"shape \(20, 20, 20\); expected an image .* of up to 16 channels"),
        (npy(np.zeros((12, 9, 9))), "12 channels that come first, or 9 that come last"),
        (npy(np.zeros((9, 9), complex)), "an array of complex128; expected whole numbers or floats"),
        (npy(np.zeros((9, 9), bool)), "an array of bool"),
        (npy(np.array([[Runs()]]), allow_pickle=True), "an array of Python objects, which is never opened"),
        (npy(np.full((19, 27, 5), np.inf)), "infinite or not a number: 2,565 of 2,565"),
        (npy(BANDS).replace(b"(20, 24, 5)", b"(20,-24,-5)"), "damaged|not supported"),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        load(data)
    assert not Path("/tmp/never").exists()


def test_a_header_alone_takes_no_memory() -> None:
    header = npy(BANDS).replace(b"(20, 24, 5)", b"(9**9, 9, )")
    with pytest.raises(ImageError, match="damaged: the header"):
        load(header)
    large = npy(np.zeros((1, 1, 5), np.uint8)).replace(b"(1, 1, 5), }       ", b"(99999, 99999, 5), }")
    assert read_header(large).size == (99999, 99999)
    with pytest.raises(ImageError, match="more than the limit"):
        load(large)


def test_zeros_of_a_file_that_was_partly_copied() -> None:
    values = np.full((64, 64, 5), 900, np.uint16)
    data = tiff(values)
    lost = data[: len(data) - 64 * 64 * 5 + 30] + bytes(64 * 64 * 5 - 30)
    with pytest.raises(ImageError, match="zeros"):
        load(lost)


def test_folders_of_bands(tmp_path: Path) -> None:
    forms: dict[str, Any] = {"tif": lambda image: tiff(image, packed=True), "npy": npy}
    images = np.stack([BANDS + np.uint16(7 * k) for k in range(8)])
    for suffix, encode in forms.items():
        for k in range(8):
            path = tmp_path / suffix / "ab"[k % 2] / f"{k}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(images[k]))
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # by class
    array = open_source((images[order], np.array([0, 1]).repeat(4)))
    expected = scan(array, cache=None)
    for suffix in forms:
        source = open_source(tmp_path / suffix)
        found = scan(source, cache=tmp_path / "cache", workers=1)
        assert (found.channels, found.ranges) == (5, expected.ranges)
        assert [fact.pixels for fact in found.facts] == [fact.pixels for fact in expected.facts]
        assert np.array_equal(source.pixels(3, ranges=found.ranges), array.pixels(3))
        assert scan(open_source(tmp_path / suffix), cache=tmp_path / "cache", workers=1).facts == found.facts


def test_arrays_beside_pictures_are_masks_and_not_read(tmp_path: Path) -> None:
    for k in range(4):
        folder = tmp_path / "data" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(BYTES[..., k : k + 3]).save(folder / f"{k}.png")
        np.save(folder / f"{k}.npy", BYTES[..., 0])
    source = open_source(tmp_path / "data")
    assert [item.name for item in source.items] == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    assert "4 files .npy beside pictures: none is read" in source.notes
    found = input_files([tmp_path / "data"])
    assert (len(found.paths), found.other) == (4, {".npy": 4})
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert len(input_files([tmp_path / "data"]).paths) == len(open_source(tmp_path / "data")) == 4


def test_what_a_package_would_read_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that tells to install something must not outlive the installation in the cache."""
    from gapstone.data import image_info_cache

    cache = image_info_cache.prepare(tmp_path)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(BANDS, compression=5))
    found = image_info_cache.ImageInfo("not supported: x; pip install 'gapstone[slides]' to read it", "00")
    image_info_cache.write_cached(cache, [found, image_info_cache.ImageInfo("damaged: x", "01")], 100)
    assert image_info_cache.read_cached(cache, "00", 100) is None
    assert image_info_cache.read_cached(cache, "01", 100) is not None
