"""`gapstone inspect` of images: what they hold, and that models are models."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gapstone.inspecting import inspect_image as looking
from gapstone.inspecting.inspect_image import inspect_image, is_image
from tests.command_line import gapstone


def as_json(path, capsys):
    inspect_image(str(path), as_json=True)
    return json.loads(capsys.readouterr().out)


def shown(path, width=100):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    inspect_image(str(path), console=console)
    return console.file.getvalue()


@pytest.fixture
def pyramid(tmp_path):
    """Two levels, 2 µm per px; of the smaller one two of eight tiles were never written, and one is damaged."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    image, path = np.random.default_rng(0).integers(0, 255, (512, 1024, 3), np.uint8), tmp_path / "slide.tif"
    how = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "resolutionunit": "CENTIMETER"}
    small = image[::4, ::4]
    tiles = [small[y : y + 64, x : x + 64] for y in range(0, 128, 64) for x in range(0, 256, 64)]
    with tifffile.TiffWriter(path) as file:
        file.write(image, subifds=1, resolution=(5000, 5000), **how)
        file.write(
            iter([*tiles[:6], None, None]), shape=small.shape, dtype=small.dtype, subfiletype=1, **how
        )  # fmt: skip
    with tifffile.TiffFile(path) as file:
        page = file.pages[0].pages[0]
        offset = page.dataoffsets[3]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 20)
    return path


def test_a_pyramid(pyramid, capsys):
    found = as_json(pyramid, capsys)
    assert (found["height"], found["width"], found["channels"], found["dtype"]) == (512, 1024, 3, "uint8")
    assert (found["packed_by"], found["um_per_px"], found["streamed"]) == ("zlib", 2.0, False)
    assert found["file_bytes"] == pyramid.stat().st_size
    fine, small = found["levels"]
    assert (fine["downsample"], fine["decoded_bytes"]) == (1.0, 512 * 1024 * 3)
    assert (small["height"], small["width"], small["downsample"], small["um_per_px"]) == (128, 256, 4.0, 8.0)
    assert small["tile"] == [64, 64]
    assert (found["looked_at_level"], found["no_data"], found["damaged_parts"]) == (1, 3 / 8, 1)


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_shown(pyramid, width, monkeypatch):
    text = shown(pyramid, width)
    assert all(len(line) <= width for line in text.splitlines()[1:])  # the first has the file's name
    words = " ".join(text.split())
    assert "512×1,024 px (height × width)" in text
    for part in ("packed by zlib", "2 µm per px", "37.5 % in level 1; 1 part cannot be decoded", "128×256", "64×64"):
        assert part in words
    assert "whole, as any image" in words
    monkeypatch.setattr(looking, "LARGEST", 512)
    assert "in bands of rows by `gapstone predict --native`" in " ".join(shown(pyramid, width).split())


def test_no_more_than_a_small_level_is_read(pyramid, capsys, monkeypatch):
    monkeypatch.setattr(looking, "MOST_LOOKED_AT", 128 * 256 - 1)
    assert as_json(pyramid, capsys)["no_data"] is None
    assert "not looked for" in shown(pyramid)


def test_ordinary_images_and_arrays(tmp_path, capsys):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "gray.png")
    found = as_json(tmp_path / "gray.png", capsys)
    assert (found["height"], found["width"], found["channels"], found["no_data"]) == (30, 40, 1, 0.0)
    assert len(found["levels"]) == 1
    assert "without data nowhere" in " ".join(shown(tmp_path / "gray.png").split())
    np.save(tmp_path / "bands.npy", np.zeros((32, 40, 7), np.float32))
    assert as_json(tmp_path / "bands.npy", capsys)["channels"] == 7


def test_what_is_an_image(tmp_path):
    heads = {"a.jpg": b"\xff\xd8\xff\xe0", "b.data": b"MM\x00+", "c.webp": b"RIFF\0\0\0\0WEBP"}
    for name, head in (heads | {"d.avif": b"\0\0\0\x20ftypavif"}).items():
        (tmp_path / name).write_bytes(head + bytes(40))
        assert is_image(str(tmp_path / name))
    for name, head in {"m.safetensors": b"\x40\0\0\0\0\0\0\0{", "n.pth": b"PK\x03\x04", "e.tif": b""}.items():
        (tmp_path / name).write_bytes(head)
        assert not is_image(str(tmp_path / name))
    assert not is_image("vgg16")
    assert not is_image(str(tmp_path))


def test_the_command(tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.jpg")
    found = gapstone("inspect", "a.jpg", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["width"] == 40
    wrong = gapstone("inspect", "a.jpg", "--depth", "0", "--size", "9", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "--size, --depth: of networks only; a.jpg is an image" in wrong.stderr
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 3)
    wrong = gapstone("inspect", "half.png", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "half.png: starts like a PNG image, but its header is damaged" in wrong.stderr
