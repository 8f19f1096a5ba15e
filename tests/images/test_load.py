"""One image, loaded right or refused with its reason."""

import csv
import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from gapstone.console.formatting import display
from gapstone.images.load import ImageError, load

Find = Callable[[str], Path]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "TABLE.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


# initial.fli and zero_bb.eps open in Pillow; here FLI is no accepted format and EPS is never handed to Ghostscript


def test_the_whole_table_of_awkward_files(real_images: Find) -> None:
    folder = real_images("awkward")
    wrong = []
    for row in rows_of(folder):
        try:
            got = load(folder / row["file"])
        except ImageError as e:
            if row["load"] == "ok" or row["file"].endswith("truncated_jpeg.jpg") or not str(e) or "\n" in str(e):
                wrong.append((row["file"], str(e)))
            continue
        size = (int(row["width"]), int(row["height"])) if row["width"] else None
        if size and row["orientation"] in ("5", "6", "7", "8"):
            size = size[::-1]
        height, width, channels = got.pixels.shape
        fits = (width, height) == got.size == size and channels in (1, 3) and got.pixels.dtype == np.uint8
        if row["file"] == "broken/truncated_jpeg.jpg":  # which lacks the second byte of its end marker, and no pixel
            assert got.notes == ("its end marker is missing; all of its pixels are there",)
        elif row["load"] != "ok" or got.mode != row["mode"] or not fits:
            wrong.append((row["file"], f"{got.mode} {got.size}"))
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("made/page.png", "HTML page"),
        ("made/text.jpg", "text file"),
        ("made/empty.jpg", "empty (0 bytes)"),
        ("made/zip.jpeg", "empty zip"),
        ("made/dir.jpg", "a folder"),
        ("made/._hopper.jpg", "AppleDouble"),
        ("unsupported/hopper.heif", "HEIC"),
        ("unsupported/zero_bb.eps", "PostScript"),
        ("unsupported/sample.exr", "OpenEXR"),
        ("broken/truncated.jpg", "truncated"),
        ("broken/truncated_image.png", "truncated"),
        ("bomb/reallybig.bmp", "more pixels than the limit of 178,956,970"),
        ("bomb/decompression_bomb.ico", "more pixels than the limit"),
        ("made/valid_20000x20000_1bit.png", "more pixels than the limit"),
    ],
)
def test_reasons_are_in_words(real_images: Find, name: str, reason: str) -> None:
    with pytest.raises(ImageError) as e:
        load(real_images("awkward") / name)
    assert reason in str(e.value)


@pytest.mark.parametrize("form", ["Landscape", "Portrait"])
def test_eight_orientations_are_one_picture(real_images: Find, form: str) -> None:
    folder = real_images("awkward") / "exif"
    pictures = []
    for i in range(1, 9):
        upright = Image.fromarray(load(folder / f"{form}_{i}.jpg", channels=1).pixels[..., 0])
        pictures.append(np.asarray(upright.resize((40, 40), Image.Resampling.BOX)).astype(float))
    for other in pictures[1:]:
        # the digit drawn into each differs, the picture does not
        assert np.corrcoef(pictures[0].ravel(), other.ravel())[0, 1] > 0.99


def test_xyb_colours_need_their_profile(real_images: Find) -> None:
    folder = real_images("awkward")
    xyb = load(folder / "color/sample-xyb.jpg")
    control = load(folder / "16bit/sample.png").pixels.astype(int)
    with Image.open(folder / "color/sample-xyb.jpg") as raw:
        assert np.abs(np.asarray(raw).astype(int) - control).mean() > 20
    assert np.abs(xyb.pixels.astype(int) - control).mean() < 6  # it is a lossy file
    assert any("XYB" in note for note in xyb.notes)


def test_lab_is_the_photo_it_was(real_images: Find) -> None:
    folder = real_images("awkward") / "color"
    lab = load(folder / "hopper.Lab.tif").pixels.astype(int)
    assert np.abs(lab - load(folder / "hopper.jpg").pixels).mean() < 8


def test_cmyk_is_not_inverted(real_images: Find) -> None:
    folder = real_images("awkward") / "cmyk"
    for name in ("pil_sample_cmyk.jpg", "tiff_strip_cmyk_jpeg.tif"):
        assert load(folder / name).pixels.mean() < 40  # red letters on black; inverted they would be on white


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_in_every_format(form: str, orientation: int) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # one bright corner tells all eight apart by place and shape
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(turns[orientation](upright))), form, exif=exif)
    got = load(data, channels=1)
    assert got.size == (32, 16)
    assert np.abs(got.pixels[..., 0].astype(int) - upright).mean() < 12


@pytest.mark.parametrize(("top", "shown"), [(30, 30), (1000, 249), (4095, 255), (16383, 255), (65535, 255)])
def test_sixteen_bits_are_scaled_by_the_range_they_use(top: int, shown: int) -> None:
    values = np.linspace(0, top, 64, dtype=np.uint16).reshape(8, 8)
    got = load(encoded(Image.fromarray(values), "TIFF"))
    assert got.mode == "I;16"
    assert got.pixels.max() == shown
    assert got.pixels.min() == 0
    assert "becomes 0…255" in got.notes[0]


def test_floats_that_are_no_numbers_are_refused() -> None:
    values = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(ImageError, match="not a number"):
        load(encoded(Image.fromarray(values), "TIFF"))


def test_alpha_lies_on_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (255, 0, 0, 0)
    pixels[1, 0] = (0, 0, 0, 128)
    got = load(encoded(Image.fromarray(pixels), "PNG"))
    assert got.pixels[0, 0].tolist() == [255, 0, 0]
    assert got.pixels[0, 1].tolist() == [255, 255, 255]
    assert got.pixels[1, 0].tolist() == [127, 127, 127]
    assert got.notes == ("transparent parts are shown on white",)


def test_gray_stays_gray_unless_asked() -> None:
    data = encoded(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)), "PNG")
    assert load(data).pixels.shape == (8, 8, 1)
    assert load(data, channels=3).pixels.shape == (8, 8, 3)
    colour = encoded(Image.new("RGB", (8, 8), (10, 20, 30)), "PNG")
    assert load(colour, channels=1).pixels[0, 0, 0] == 18  # .299·10 + .587·20 + .114·30


def test_the_limit_counts_before_decoding(tmp_path: Path) -> None:
    data = encoded(Image.new("1", (3000, 3000)), "PNG")
    assert load(data, max_pixels=9_000_000).size == (3000, 3000)
    with pytest.raises(ImageError, match="3000×3000 is 9,000,000 pixels, more than the limit of 8,999,999"):
        load(data, max_pixels=8_999_999)
    # a header alone is enough to be refused: nothing of the missing rest was looked for
    with pytest.raises(ImageError, match="more than the limit"):
        load(data[:60], max_pixels=1000)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_cut_files_are_refused_at_any_length(form: str, picture: Callable[..., Any]) -> None:
    data = encoded(Image.fromarray(picture(1, 60, 60)), form)
    whole = load(data).pixels
    for share in (0.3, 0.6, 0.9):
        try:
            got = load(data[: int(len(data) * share)])
        except ImageError:
            continue
        assert np.array_equal(got.pixels, whole), f"{form} cut at {share} came back as another picture"


def test_others_leniency_does_not_leak_in(monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Any]) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(Image.fromarray(picture(1)), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        load(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES  # theirs is put back


def test_random_damage_never_escapes(picture: Callable[..., Any]) -> None:
    random = np.random.default_rng(0)
    reasons = set()
    for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA", "ICO", "JPEG2000"):
        data = encoded(Image.fromarray(picture(2, 24, 24)), form)
        for _ in range(40):
            broken = bytearray(data)
            for at in random.integers(0, min(len(data), 200), 4):
                broken[at] = random.integers(256)
            try:
                assert load(bytes(broken), max_pixels=1_000_000).pixels.ndim == 3
            except ImageError as e:
                reasons.add(str(e))
    assert reasons
    assert not any("\n" in reason for reason in reasons)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    for name, reason in {
        "pipe.jpg": "not a regular file",
        "gone.jpg": "a link to a file that does not exist",
        "self.jpg": "cannot be read",
        "none.jpg": "no such file",
    }.items():
        with pytest.raises(ImageError, match=reason):
            load(tmp_path / name)
    with pytest.raises(ImageError, match="no possible file name"):
        load("a\0b.jpg")


def test_threads_share_pillow_without_harm(picture: Callable[..., Any]) -> None:
    good = encoded(Image.fromarray(picture(3)), "PNG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0"  # promises entries it does not have: Pillow warns
    noisy = encoded(Image.fromarray(picture(3)), "JPEG", exif=exif)
    before = (warnings.filters[:], warnings.showwarning, Image.MAX_IMAGE_PIXELS)
    notes: list[tuple[str, ...]] = []

    def work() -> None:
        for _ in range(30):
            assert load(good).notes == ()  # never another thread's warning
            notes.append(load(noisy).notes)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(notes) == 120
    assert all(any("EXIF" in n for n in note) for note in notes)
    assert (warnings.filters[:], warnings.showwarning, Image.MAX_IMAGE_PIXELS) == before


def test_importing_the_loader_imports_no_torch() -> None:
    code = "import gapstone.images.load, gapstone.data.scan, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["ünï 猫.jpg", "caf\udce9.jpg", "a\nb\x1b[31m.jpg", "\u202egpj.exe", "\ud800"])
def test_display_can_always_be_printed(name: str) -> None:
    shown = display(name)
    assert shown.isprintable()
    shown.encode("utf-8")
