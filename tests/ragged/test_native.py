"""`predict` with native=True: pictures as they are, in Python and on the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import gapstone as gs
from gapstone.explaining.predict_files import predict_files
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing
from tests.marks import of_timm

SIZES = [(40, 56), (33, 90), (40, 56), (9, 7), (64, 64)]


def make(backbone: str = "nin", head: str = "gap", side: int = 32, channels: int = 3) -> gs.Classifier:
    torch.manual_seed(0)
    about = Preprocessing(channels, (side, side), (side + 4, side + 4), (0.5,) * channels, (0.25,) * channels)
    return gs.Classifier(backbone, head, ("cat", "dog", "owl"), about).eval()


def pictures(sizes=SIZES) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("head", ["gap", "gmp", "nin", "fc:grid=3", "catavgmax"])
def test_nothing_is_cut_or_resized_and_neighbours_change_nothing(head):
    model, seen = make(head=head), pictures()
    found = model.predict(seen, native=True)
    with torch.no_grad():
        for row, pixels in zip(found, seen, strict=True):
            x = model.preprocessing.normalise(torch.from_numpy(pixels[None]))
            assert x.shape[2:] == pixels.shape[:2]
            torch.testing.assert_close(row, model(x).softmax(1)[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(row, model.predict(pixels, native=True)[0], rtol=0, atol=1e-5)
    assert float((found - model.predict(seen)).abs().max()) > 1e-4
    assert torch.equal(found, model.predict(seen, batch_size=64, native=True))
    torch.testing.assert_close(found, model.predict(seen, batch_size=2, native=True), rtol=0, atol=1e-5)


def test_few_pixels_at_a_time(monkeypatch):
    from gapstone.models import classifier

    model, seen, counts = make(), pictures(), []
    expected = model.predict(seen, native=True)
    real = classifier.mixed_sizes
    monkeypatch.setattr(classifier, "AT_ONCE", 6000)
    monkeypatch.setattr(classifier, "mixed_sizes", lambda m, images: counts.append(len(images)) or real(m, images))
    torch.testing.assert_close(model.predict(seen, native=True), expected, rtol=0, atol=1e-5)
    assert counts == [2, 2, 1]  # 2240 + 2970, 2240 + 63, 4096 pixels
    assert model.predict([], native=True).shape == (0, 3)


def test_channels_are_converted():
    grey = make(channels=1)
    assert grey.predict([np.zeros((30, 20, 3), np.uint8), np.zeros((9, 9), np.uint8)], native=True).shape == (2, 3)


def test_what_takes_one_size_only_says_which_and_what_else():
    with pytest.raises(ValueError, match=r"head 'fc' was trained on images of 32×32 px.*native=False.*fc:grid=7"):
        make(head="fc").predict(pictures(), native=True)
    of_timm("test_vit_relpos")
    with pytest.raises(ValueError, match=r"'timm:test_vit_relpos' takes only 160×160 px.*convolutional"):
        make("timm:test_vit_relpos", side=160).predict(pictures(), native=True)


def test_too_small_and_too_large_name_the_picture(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"small\.png: 40×20 px, and the network needs at least 32 a side"):
        make("vgg11").predict(tmp_path / "small.png", native=True)
    wide = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (4096, 4097, 3))
    with pytest.raises(ImageError, match="4097×4096 px are more than the 16,777,216 pixels"):
        make().predict([wide], native=True)


def test_on_the_command_line(tmp_path, capsys):
    model, seen = make("vgg11_bn"), pictures()
    model.save(tmp_path / "m.safetensors")
    for number, pixels in enumerate(seen):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    found = {}
    for native in (True, False):
        fine = predict_files(
            str(tmp_path / "m.safetensors"), [str(tmp_path)], True, 3, "cpu", Console(stderr=True), native=native
        )
        document = json.loads(capsys.readouterr().out)
        assert document["native"] is native
        assert fine is not native  # 9×7 is too small to be seen as it is
        found[native] = document["images"]
    assert "needs at least 32 a side" in found[True][3]["error"]
    for number in (0, 1, 2, 4):
        expected = model.predict(seen[number], native=True)[0]
        assert list(found[True][number]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert found[True][number]["probabilities"] != found[False][number]["probabilities"]
    make(head="fc").save(tmp_path / "flat.safetensors")
    with pytest.raises(ValueError, match="takes no others"):
        predict_files(str(tmp_path / "flat.safetensors"), [str(tmp_path)], True, 3, "cpu", native=True)


def test_look_groups_pictures_of_one_size(tmp_path):
    from gapstone.maps.open_model import open_model

    opened = open_model(str(make().save(tmp_path / "m.safetensors")))
    found = opened.look(pictures(), native=True)
    expected = gs.load(tmp_path / "m.safetensors").predict(pictures(), native=True)
    for evidence, row, size in zip(found, expected, SIZES, strict=True):
        assert evidence[0].probability >= evidence[1].probability
        for one in evidence:
            assert one.size == size
            assert one.placement.seen == ((0, size[0]), (0, size[1]))
            assert one.probability == pytest.approx(float(row[one.index]), abs=1e-6)
            assert float(one.map.sum()) + one.bias == pytest.approx(one.logit, abs=1e-5)
