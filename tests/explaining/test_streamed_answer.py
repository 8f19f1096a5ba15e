"""`predict --native` of images that are too large to enter the network whole: they are streamed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import gapstone as gs
from gapstone.any_size import plan_bands, stream_checkpoint
from gapstone.explaining import map_pass, streamed_answer
from gapstone.explaining.draw_maps import row_boxes
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.images.load import load
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.map_files import load_npz
from tests.any_size.test_stream_checkpoint import Stopped, stopped_after
from tests.command_line import gapstone
from tests.schemas import check

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
    model = gs.Classifier("resnet18", "gap", ("cat", "dog"), preprocessing).eval()
    with torch.no_grad():
        model.head.classifier[-1].bias[1] += 3  # the second class is the more probable one
    return model


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


def explained(model, pictures, out, **options):
    request = ExplainRequest(str(model), tuple(map(str, pictures)), native=True, **options)
    fine = explain_files(request, out, Console(stderr=True))
    return fine, json.loads((out / "explained.json").read_text("utf-8"))


def test_explain_streams_and_draws_them_small(monkeypatch, pictures, model, tmp_path):
    path = model.save(tmp_path / "m.safetensors")
    given = [pictures / name for name in ("a.tif", "b.png", "c.png")]
    _, whole = explained(path, given, tmp_path / "whole", box="0.2")
    for module in (streamed_answer, map_pass):
        monkeypatch.setattr(module, "LARGEST", 64)
    for options in ({}, {"all_classes": True}, {"classes": "dog"}, {"plain": True}):
        out = tmp_path / "-".join(options) if options else tmp_path / "out"
        fine, found = explained(path, given, out, html=True, **options)
        assert fine
        check("explained", found)
        if "classes" not in options:
            assert [entry["label"] for entry in found["pictures"][0]["classes"]] == ["dog", "cat"]
        if options:
            continue
        for number, (one, other) in enumerate(zip(found["pictures"], whole["pictures"], strict=True)):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
            assert one["placement"] == other["placement"]
            assert [entry["label"] for entry in one["classes"]] == [entry["label"] for entry in other["classes"]]
            assert [entry["boxes"] for entry in one["classes"]] == [entry["boxes"] for entry in other["classes"]]
            for mine, theirs in zip(
                load_npz(out / one["npz"]), load_npz(tmp_path / "whole" / other["npz"]), strict=True
            ):
                assert mine.map == pytest.approx(theirs.map, abs=1e-5)
            assert (out / one["drawing"]).stat().st_size > 1000
            assert ("small" in one) == (number < 2)
        with Image.open(out / found["pictures"][0]["small"]) as small:
            assert small.size == (130, 160)
        # again: nothing is looked at
        monkeypatch.setattr(map_pass, "stream_picture", None)
        assert explained(path, given, out, html=True)[1] == found
        monkeypatch.undo()
        for module in (streamed_answer, map_pass):
            monkeypatch.setattr(module, "LARGEST", 64)


def test_explain_goes_on_within_a_picture_that_it_was_stopped_in(monkeypatch, pictures, model, tmp_path):
    path = model.save(tmp_path / "m.safetensors")
    for module in (streamed_answer, map_pass):
        monkeypatch.setattr(module, "LARGEST", 64)
    monkeypatch.setattr(plan_bands, "PIXELS", 1024)
    monkeypatch.setattr(stream_checkpoint, "EVERY", 0)
    monkeypatch.setattr(stream_checkpoint, "SHARE", 1e9)
    with monkeypatch.context() as context:
        every = stopped_after(None, context)
        _, expected = explained(path, [pictures / "a.tif"], tmp_path / "whole")
    with monkeypatch.context() as context:
        stopped_after(len(every) - 2, context)
        with pytest.raises(Stopped):
            explained(path, [pictures / "a.tif"], tmp_path / "out")
    (left,) = (tmp_path / "out" / ".looked").glob("a-*.checkpoint")
    with monkeypatch.context() as context:
        again = stopped_after(None, context)
        _, found = explained(path, [pictures / "a.tif"], tmp_path / "out")
    assert len(again) < len(every) - 3
    one, other = found["pictures"][0], expected["pictures"][0]
    assert one["probability"] == other["probability"]
    assert one["classes"] == other["classes"]
    assert not left.exists()
    left.write_bytes(b"of something else")
    found["pictures"].clear()
    (tmp_path / "out" / "explained.json").unlink()
    for record in (tmp_path / "out" / ".looked").glob("*.json"):
        record.unlink()
    _, found = explained(path, [pictures / "a.tif"], tmp_path / "out")
    assert found["pictures"][0]["probability"] == other["probability"]


def test_boxes_of_the_image_are_drawn_on_it_small():
    (box,) = row_boxes({"boxes": [{"x0": 10, "y0": 20, "x1": 30, "y1": 40}]}, 0.5, 0.1)
    assert (box.x0, box.y0, box.x1, box.y1) == (1, 10, 3, 20)


def test_what_cannot_be_explained_so_is_an_error_of_that_picture(monkeypatch, pictures, model, tmp_path):
    path = model.save(tmp_path / "m.safetensors")
    for module in (streamed_answer, map_pass):
        monkeypatch.setattr(module, "LARGEST", 64)
    fine, found = explained(path, [pictures / "a.tif", pictures / "c.png"], tmp_path / "out", memory="1MB")
    assert not fine
    assert "1.0 MB are too little" in found["pictures"][0]["error"]
    assert "drawing" in found["pictures"][1]
