"""`predict --native` of images that are too large to enter the network whole: they are streamed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import gapstone as gs
from gapstone.explaining import streamed_answer
from gapstone.images.load import load
from gapstone.images.preprocessing import Preprocessing
from tests.command_line import gapstone

tifffile = pytest.importorskip("tifffile")
pytestmark = pytest.mark.xdist_group("command line")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    tifffile.imwrite(
        folder / "a.tif", random.integers(0, 256, (160, 130, 3), np.uint8), tile=(64, 64), photometric="rgb"
    )
    for name, side in (("b.png", 150), ("c.png", 50)):
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)
    return gs.Classifier("resnet18", "gap", ("cat", "dog"), preprocessing).eval()


def test_the_answers_are_those_of_the_whole_image(monkeypatch, pictures, model):
    names = ["a.tif", "b.png", "c.png"]
    pixels = [load(pictures / name).pixels for name in names]
    given = [*(pictures / name for name in names), *pixels]
    whole = gs.predict(model, given, native=True, progress=False)
    assert not any(note for one in whole for note in one.notes)
    monkeypatch.setattr(streamed_answer, "LARGEST", 64)
    found = gs.predict(model, given, native=True, progress=False)
    for one, other in zip(found, whole, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    streamed = ["more than 64² px: it went through the network in bands of rows" in one.notes for one in found]
    assert streamed == [True, True, False] * 2
    resized = gs.predict(model, given, progress=False)
    assert not any(note for one in resized for note in one.notes)


def test_what_cannot_be_streamed_is_an_error_of_that_image_alone(monkeypatch, pictures, model):
    monkeypatch.setattr(streamed_answer, "LARGEST", 64)
    found = gs.predict(model, [pictures / "a.tif", pictures / "c.png"], native=True, memory="1MB", progress=False)
    assert "1.0 MB are too little for an image of 160×130 px" in found[0].error
    assert found[1].error is None
    with pytest.raises(ValueError, match="memory='much': expected a number of bytes"):
        gs.predict(model, pictures / "a.tif", native=True, memory="much", progress=False)


def test_small_tiffs_are_pillows(monkeypatch, tmp_path, model):
    """Also of kinds that are read whole alone, and where tifffile is missing."""

    def missing(path):
        raise ImportError(f"{path} is a TIFF, which takes two more packages")

    monkeypatch.setattr(streamed_answer, "open_huge_image", missing)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (60, 60, 4), np.uint8), "CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(random.integers(0, 256, (60, 60, 3), np.uint8)).save(tmp_path / "rgb.tif")
    (tmp_path / "torn.tif").write_bytes((tmp_path / "rgb.tif").read_bytes()[:100])
    found = gs.predict(model, tmp_path, native=True, progress=False)
    assert [one.error is None for one in found] == [True, True, False]
    monkeypatch.setattr(streamed_answer, "LARGEST", 50)
    (large,) = gs.predict(model, tmp_path / "rgb.tif", native=True, progress=False)
    assert "which takes two more packages" in large.error


@pytest.mark.slow  # 20 s; quick: above
def test_the_command(tmp_path, model):
    """A file of more than 4096² px, which is mostly one color, and small on disk."""
    path = model.save(tmp_path / "m.safetensors")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4100, 4100, 3), np.uint8), tile=(256, 256), photometric="rgb", compression="zlib"
    )
    said = gapstone("predict", path, tmp_path / "a.tif", "--native", "--json", "--memory", "400MB")
    assert said.returncode == 0, said.stderr
    (row,) = json.loads(said.stdout)["images"]
    assert row["notes"] == ["more than 4,096² px: it went through the network in bands of rows"]
