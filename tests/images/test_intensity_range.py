"""More than 8 bits: the same picture whatever the file's format, on one range per data set, which the model keeps."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gapstone.data import scan_report
from gapstone.data.decoded_store import build
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.scan_report import counted
from gapstone.images.intensity_range import UNDECIDED, Ranges, ValueSpread, decide, spread, to_uint8
from gapstone.images.load import ImageError, load
from gapstone.images.preprocessing import Preprocessing
from tests.written_images import png16, tiff

RAMP = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (8, 1))  # of a 12-bit camera
OPAQUE = np.full_like(RAMP, 65535)
RGB = np.dstack([RAMP] * 3)
SHOWN = to_uint8(RAMP, (0, 4095))


def saved(values: Any, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, form, **options)
    return out.getvalue()


def lzw(raw: bytes) -> bytes:
    """TIFF's LZW without compressing: a clear code before the table grows beyond 9 bits."""
    bits = ""
    for start in range(0, len(raw), 250):
        bits += f"{256:09b}" + "".join(f"{byte:09b}" for byte in raw[start : start + 250])
    bits += f"{257:09b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def tiff_lzw(values: Any, photometric: int, extra: tuple[int, ...] = ()) -> bytes:
    """What only libtiff unpacks, so that Pillow's two passes are taken."""
    packed = np.frombuffer(lzw(values.astype("<u2").tobytes()), np.uint8)
    plain = tiff(values, photometric, compression=5, extra=extra)
    return plain.replace(values.astype("<u2").tobytes(), packed.tobytes()).replace(
        np.uint32(values.nbytes).tobytes(), np.uint32(len(packed)).tobytes(), 1
    )


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "gray PNG": lambda: png16(RAMP),
    "RGB PNG": lambda: png16(RGB),
    "LA PNG": lambda: png16(np.dstack([RAMP, OPAQUE])),
    "RGBA PNG": lambda: png16(np.dstack([RGB, OPAQUE])),
    "LA PNG, alpha of 12 bits": lambda: png16(np.dstack([RAMP, np.full_like(RAMP, 4095)])),
    "gray TIFF": lambda: tiff(RAMP),
    "RGB TIFF": lambda: tiff(RGB, 2),
    "RGB TIFF by LZW": lambda: tiff_lzw(RGB, 2),
    "RGBA TIFF by LZW": lambda: tiff_lzw(np.dstack([RGB, OPAQUE]), 2),
    "RGBA TIFF": lambda: tiff(np.dstack([RGB, OPAQUE]), 2, extra=(2,)),
    "RGB TIFF in planes": lambda: tiff(RGB, 2, ">", planar=True),
    "RGB TIFF in tiles": lambda: tiff(RGB, 2, tile=16, packed=True, predictor=2),
    "gray TIFF in tiles": lambda: tiff(RAMP, 1, ">", tile=48),
    "32-bit TIFF": lambda: tiff(RAMP.astype(np.uint32), 1, ">", packed=True),
    "signed TIFF": lambda: tiff(RAMP.astype(np.int16)),
    "WhiteIsZero TIFF": lambda: tiff(4095 - RAMP, 0, ">"),
    "PGM": lambda: b"P5 256 8 4095\n" + RAMP.astype(">u2").tobytes(),
    "PGM of 16 bits": lambda: b"P5\n# a camera's\n256 8\n65535\n" + RAMP.astype(">u2").tobytes(),
    "PPM": lambda: b"P6 256 8 65535\n" + RGB.astype(">u2").tobytes(),
    "plain PGM": lambda: b"P2 256 8 4095\n" + " ".join(map(str, RAMP.ravel())).encode(),
    "plain PPM": lambda: b"P3 256 8 65535\n" + " ".join(map(str, RGB.ravel())).encode(),
    "JPEG 2000": lambda: saved(RAMP, "JPEG2000", irreversible=False),
    "float TIFF": lambda: tiff((RAMP / 4095).astype(np.float32)),
    "float64 TIFF": lambda: tiff(RAMP / 4095, 1, ">", packed=True, predictor=3),
    "float RGB TIFF": lambda: tiff((RGB / 4095).astype(np.float32), 2, packed=True, predictor=3),
    "float WhiteIsZero TIFF": lambda: tiff((1 - RAMP / 4095).astype(np.float32), 0),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_picture_whatever_the_container(name: str) -> None:
    got = load(CONTAINERS[name](), channels=1)
    assert np.abs(got.pixels[..., 0].astype(int) - SHOWN).max() <= ("WhiteIsZero" in name)
    assert [note for note in got.notes if "becomes 0…255" in note]


def test_colours_multiplied_by_their_alpha_are_as_they_were() -> None:
    half = OPAQUE // 2 + 1
    plain = load(tiff(np.dstack([RGB, half]), 2, extra=(2,))).pixels.astype(int)
    assert abs(plain[0, 0, 0] - 127) <= 1  # black at half opacity, on white
    for premultiplied in (
        tiff(np.dstack([(RGB * 0.5).astype(np.uint16), half]), 2, extra=(1,)),
        tiff_lzw(np.dstack([(RGB * 0.5).astype(np.uint16), half]), 2, extra=(1,)),
    ):
        assert np.abs(load(premultiplied).pixels - plain).max() <= 1


def test_half_precision_is_read_within_a_level() -> None:
    got = load(tiff((RAMP / 4095).astype(np.float16), 1, ">")).pixels[..., 0].astype(int)
    assert np.abs(got - SHOWN).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("by", ["own reader", "Pillow"])
def test_deep_pictures_are_turned_upright(by: str, orientation: int) -> None:
    upright = np.zeros((4, 8), np.uint16)
    upright[:2, :2] = 4095
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    lying = np.ascontiguousarray(turn(upright))
    if by == "Pillow":
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(lying, "PNG", exif=exif)
    else:
        data = tiff(lying, orientation=orientation)
    assert np.array_equal(load(data).pixels[..., 0], to_uint8(upright, (0, 4095)))


def test_one_pixel_beyond_white_costs_a_level_and_not_the_picture() -> None:
    values = (RAMP / 4095).astype(np.float32)
    for outlier in (1.002, 1.04, 30.0, 1e6):
        values[3, 7] = outlier
        got = load(tiff(values)).pixels[..., 0].astype(int)
        assert np.abs(np.delete(got, 7, 1) - np.delete(SHOWN, 7, 1)).max() <= 1
        assert got[3, 7] == 255


def test_a_stuck_pixel_of_a_camera_does_not_decide() -> None:
    values = RAMP.copy()
    values[0, 0] = 65535
    assert np.abs(load(png16(values)).pixels[..., 0].astype(int) - SHOWN)[1:].max() == 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(0, 1000), (0, 4000)], (0, 4095)),
        ([(0, 1000), (0, 1024)], (0, 4095)),
        ([(0, 200)], (0, 255)),
        ([(0, 60000)], (0, 65535)),
        ([(0, 1_000_000)], (0, 1_000_000)),
        ([(-1000, 3000), (-1024, 1000)], (-1024, 3000)),
    ],
)
def test_one_range_holds_them_all(found: list[tuple[float, float]], expected: tuple[float, float]) -> None:
    assert decide([ValueSpread("integers", a, b, a, b) for a, b in found]) == Ranges(integers=expected)


def test_floats_and_integers_have_a_range_each() -> None:
    whole = [ValueSpread("floats", -0.01, 1.03, 0, 1), ValueSpread("integers", 0, 900, 0, 900)]
    assert decide(whole) == Ranges((0, 1023), (0, 1))
    assert decide([ValueSpread("floats", 0, 250, 0, 250)]).floats == (0, 255)
    assert decide([ValueSpread("floats", 0, 1.8, 0, 1.8)]).floats == (0, 1.8)
    assert decide([]) == UNDECIDED


def test_a_spread_leaves_out_the_rarest() -> None:
    values = np.full((100, 100), 500, np.uint16)
    values[0, :9] = 60000
    values[1, :9] = 1
    assert spread(values) == ValueSpread("integers", 1, 60000, 500, 500)
    assert spread(values.astype(np.float32)) == ValueSpread("floats", 1, 60000, 500, 500)


def folder(path: Path, pictures: dict[str, np.ndarray]) -> Path:
    for name, values in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png16(values))
    return path


def test_a_data_set_keeps_the_brightness_its_classes_differ_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    level = {"dark": 1000, "bright": 4000}
    data = folder(
        tmp_path / "data",
        {f"{c}/{i}.png": random.integers(0, top, (12, 12)) for c, top in level.items() for i in range(4)}
        | {"dark/flat.png": np.full((12, 12), 1000), "bright/flat.png": np.full((12, 12), 4000)},
    )
    source = open_source(data)
    found = scan(source, cache=tmp_path / "cache", workers=1)
    assert found.ranges == Ranges(integers=(0, 4095))
    assert found.conflicts == []
    assert all("0…4,095 becomes 0…255" in note and "guessed" not in note for f in found.facts for note in f.notes)
    # from the cache, the same
    assert scan(source, cache=tmp_path / "cache", workers=1).facts == found.facts
    page = scan_report.text(found)
    assert "more than 8 bits: 10 files; integers 0…4,095 become 0…255, in all of them alike" in page
    assert "N" not in page.split("note on")[1]
    chosen = Preprocessing(1, (12, 12), (12, 12), (0.5,), (0.5,), found.ranges)
    store = build(source, range(10), chosen, tmp_path / "store", scan=found, workers=1)
    flat = {store.names[i]: int(store.images[i].max()) for i in range(10) if "flat" in store.names[i]}
    assert flat == {"bright/flat.png": 249, "dark/flat.png": 62}
    other = dataclasses.replace(chosen, ranges=Ranges(integers=(0, 65535)))
    assert build(source, range(10), other, tmp_path / "other", scan=found, workers=1).key != store.key


def test_pictures_that_differ_only_in_scale_are_no_duplicates(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a/0.png": RAMP // 4, "b/0.png": RAMP, "a/1.png": RAMP // 2, "b/1.png": RAMP // 2 + 1})
    assert scan(open_source(data), cache=None, workers=1).exact_duplicates == []


def test_a_copy_in_another_container_is_a_duplicate(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a/0.png": RAMP, "b/0.png": RAMP.T})
    (data / "a/1.tif").write_bytes(tiff(RGB, 2, ">"))
    found = scan(open_source(data), cache=None, workers=1)
    assert [[found.names[i] for i in g] for g in found.exact_duplicates] == [["a/0.png", "a/1.tif"]]


def test_a_models_range_is_kept_and_an_old_models_is_guessed() -> None:
    kept = Preprocessing(1, (8, 8), (8, 8), (0.5,), (0.5,), Ranges(integers=(0, 4095)))
    assert Preprocessing.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    old = dataclasses.replace(kept, ranges=UNDECIDED)
    assert "ranges" not in old.to_json()  # byte for byte as before there were any
    assert Preprocessing.from_json(old.to_json()) == old
    dim = png16(np.full((8, 8), 1000))
    assert load(dim, ranges=kept.ranges).pixels.max() == 62
    guessed = load(dim, ranges=old.ranges)
    assert guessed.pixels.max() == 249
    assert "guessed from this picture alone" in guessed.notes[0]
    beyond = load(png16(np.full((8, 8), 9000)), ranges=kept.ranges)
    assert beyond.pixels.max() == 255
    assert "what is beyond is cut off" in beyond.notes[0]


@pytest.mark.parametrize(
    "ranges",
    [{"integers": [5, 5]}, {"integers": [0]}, {"floats": [0, float("nan")]}, {"x": [0, 1]}, [], {"floats": "ab"}],
)
def test_a_range_that_cannot_be_is_refused(ranges: object) -> None:
    fields = Preprocessing(1, (8, 8), (8, 8), (0.5,), (0.5,)).to_json() | {"ranges": ranges}
    with pytest.raises(ValueError, match="ranges: "):
        Preprocessing.from_json(fields)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(np.zeros((8, 8, 21), np.uint8), 1, packed=True), "a TIFF of 21 channels (gray) of 8-bit whole numbers"),
        (tiff(np.zeros((8, 8), np.complex64)), "of 64-bit complex"),
        (tiff(np.zeros((8, 8), np.float16), compression=5), "of 16-bit floats, packed by LZW"),
        (tiff(np.zeros((8, 8, 3), np.uint16), 8), "a TIFF of 3 channels (Lab) of 16-bit whole numbers"),
    ],
)
def test_what_is_not_supported_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as error:
        load(data)
    assert str(error.value).startswith("not supported: ")
    assert reason in str(error.value)


def test_two_channels_of_8_bits_are_gray_and_something_else() -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    got = load(tiff(np.dstack([gray, gray])))
    assert np.array_equal(got.pixels[..., 0], gray)
    assert got.notes == ("its extra channel is left out",)
    assert got.spread is None  # 8 bits have no say in the range of the others
    clear = load(tiff(np.dstack([gray, np.full_like(gray, 255)]), extra=(2,)))
    assert np.array_equal(clear.pixels[..., 0], gray)


def test_transparent_values_of_a_deep_png_are_ground() -> None:
    values = RGB.copy()
    values[0, 0] = (7, 8, 9)
    got = load(png16(values, key=(7, 8, 9)))
    assert got.pixels[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(got.pixels[1, :, 0], SHOWN[1])


def test_notes_say_the_true_numbers() -> None:
    notes = [
        "the highest 310: 0…4,095 becomes 0…255",
        "the highest 3,987: 0…4,095 becomes 0…255",
        "gray",
        "the highest 99: 0…4,095 becomes 0…255",
    ]
    assert counted(notes) == [("the highest 99 to 3,987: 0…4,095 becomes 0…255", 3), ("gray", 1)]
    assert counted(["version 1.2.3"]) == [("version 1.2.3", 1)]
