"""Images are prepared as published weights expect, to the last bit; where in the image the input lies is known."""

import numpy as np
import pytest
from PIL import Image

from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import Resizing, published
from gapstone.nets.zoo import stored_size

HALF = (0.5, 0.5, 0.5)
SIZES = [(300, 400), (401, 300), (299, 300), (300, 301), (256, 256), (64, 91), (333, 777), (1031, 640)]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(preprocessing, pixels):
    return preprocessing.centre(preprocessing.fit(pixels)[None])[0]


def ours(size, crop, resizing):
    return Preprocessing(3, size, stored_size(size, crop), HALF, HALF, resizing=resizing)


@pytest.mark.parametrize("share", [0.875, 0.95, 0.9, 1.0])  # of 224 px: 256, 235 (an odd margin), 248, 224
@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_as_the_evaluation_of_torchvision(share, filter):
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode(filter)
    preprocessing = ours((224, 224), share, published(filter, "center"))
    theirs = transforms.Compose([transforms.Resize(preprocessing.stored[0], mode), transforms.CenterCrop(224)])
    for height, width in SIZES:
        pixels = noise(height, width)
        assert np.array_equal(seen(preprocessing, pixels), np.asarray(theirs(Image.fromarray(pixels)))), (height, width)


@pytest.mark.parametrize(("size", "mode"), [((224, 224), "squash"), ((224, 224), "center"), ((192, 256), "center")])
def test_as_the_evaluation_of_timm(size, mode):
    data = pytest.importorskip("timm.data")
    if size[0] != size[1] and not pytest.importorskip("timm").is_model("test_vit_relpos"):  # as old as 1.0.31
        pytest.skip("timm before 1.0.31 resizes otherwise for a network whose sides differ")
    preprocessing = ours(size, 0.9, published("bicubic", mode))
    theirs = data.create_transform(
        (3, *size), interpolation="bicubic", crop_pct=0.9, crop_mode=mode, mean=HALF, std=HALF
    )
    for height, width in SIZES:
        pixels = noise(height, width)
        expected = theirs(Image.fromarray(pixels)).permute(1, 2, 0).numpy() * 127.5 + 127.5
        assert np.allclose(seen(preprocessing, pixels), expected, atol=1e-3), (height, width)


def test_a_long_image_is_cropped_before_it_is_enlarged():
    """To the same places: on a ramp the numbers are those of the resize of the whole."""
    ramp = np.repeat(np.linspace(0, 255, 6000)[None, :, None], 3, 2).astype(np.uint8).repeat(100, 0)
    preprocessing = ours((224, 224), 0.875, Resizing("bicubic", "whole pixels"))
    whole = np.asarray(Image.fromarray(ramp).resize((15360, 256), Image.Resampling.BICUBIC))
    left = (15360 - 224) // 2
    assert np.abs(seen(preprocessing, ramp).astype(int) - whole[16:240, left : left + 224]).max() <= 1
    stretched = preprocessing.fit(noise(2, 30_000))  # whole, it would be 256 × 3,840,000
    assert stretched.shape == (256, 256, 3)


@pytest.mark.parametrize("crop", ["exact", "whole pixels", "whole pixels down", "squash"])
@pytest.mark.parametrize(("height", "width"), [(401, 300), (300, 707)])
def test_where_in_the_image_the_input_lies(height, width, crop):
    """To a sixth of a pixel: around a place the image is a steep ramp, which is grey where `seen` says the place is."""
    preprocessing = ours((201, 160), 0.9, Resizing("bilinear", crop))
    scale, origin = preprocessing.seen(height, width)
    y, x = np.mgrid[:height, :width]
    for row, column in ((20, 30), (100, 80), (180, 140)):
        down, right = (o + (n + 0.5) * k - 0.5 for o, n, k in zip(origin, (row, column), scale, strict=True))
        ramps = np.stack([128 + 8 * (y - down), 128 + 8 * (x - right), 0 * x], 2)
        looked = seen(preprocessing, ramps.round().clip(0, 255).astype(np.uint8))[row, column]
        assert looked[:2].astype(float) == pytest.approx(128, abs=1.3)


def test_a_file_of_a_model_keeps_it_and_older_files_are_as_before():
    squash = ours((32, 32), 1.0, Resizing("bilinear", "squash"))
    assert Preprocessing.from_json(squash.to_json()) == squash
    assert "resizing" not in ours((32, 32), 1.0, Resizing()).to_json()
    for wrong in (
        "squash",
        {"filter": "bicubic"},
        {"filter": "nearest", "crop": "exact"},
        {"filter": "bicubic", "crop": 3},
        {"filter": ["bicubic"], "crop": "exact"},
    ):
        with pytest.raises(ValueError, match="resizing"):
            Preprocessing.from_json(squash.to_json() | {"resizing": wrong})
    with pytest.raises(ValueError, match="lanczos"):
        published("lanczos", "center")
    with pytest.raises(ValueError, match=r"crop mode 'border'.*gs\.explain"):  # a padded image is not a cropped one
        published("bicubic", "border")
