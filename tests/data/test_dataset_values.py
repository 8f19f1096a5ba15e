"""Datasets of other channels than gray and RGB, and of more than 8 bits: as arrays of the same values are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gapstone as gs
from gapstone.data.dataset_items import item_pixels
from gapstone.data.decoded_store import build
from gapstone.data.drawn_images import DrawnImages
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import DataError, Source
from gapstone.images.intensity_range import Ranges, to_uint8
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.drawn_rows import DrawnRows

from .test_python_objects import Images

RANDOM = np.random.default_rng(0)
LABELS = [0, 1] * 4
BANDS = RANDOM.integers(100, 3000, (8, 20, 24, 5)).astype(np.uint16)
GRAY = RANDOM.integers(0, 4000, (8, 20, 24)).astype(np.uint16)
UNIT = RANDOM.random((8, 20, 24, 3), np.float32)


def dataset(images: Any = BANDS, change: Callable[[Any], Any] = lambda image: image) -> Images:
    return Images(list(zip(images, LABELS, strict=True)), change)


def first(image: Any) -> Any:
    return torch.from_numpy(image.astype(np.int32)).permute(2, 0, 1)


def opened(images: Any = BANDS, change: Callable[[Any], Any] = lambda image: image, **more: Any) -> Source:
    return open_source(dataset(images, change), **more)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
@pytest.mark.parametrize(
    ("images", "change"),
    [
        (BANDS, lambda image: image),
        (BANDS, first),
        (BANDS, lambda image: image.transpose(2, 0, 1)),
        (BANDS.astype(np.float32) - 1000, lambda image: image),
        (BANDS.astype(">u2"), lambda image: image),
        (GRAY, lambda image: image),
        (GRAY, Image.fromarray),
        (GRAY, lambda image: Image.fromarray(image.astype(np.int32))),
        (GRAY.astype(np.float32) - 900, lambda image: torch.from_numpy(image)),
        ((BANDS // 20).astype(np.uint8), lambda image: image),
    ],
)
def test_it_is_read_as_an_array_of_the_same_values(
    images: Any, change: Callable[[Any], Any], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr("gapstone.data.dataset_values._KEPT", 0)
    source, array = opened(images, change), open_source((images, LABELS))
    found, expected = scan(source, cache=None), scan(array, cache=None)
    assert (found.channels, found.ranges) == (expected.channels, expected.ranges)
    assert [fact.pixels for fact in found.facts] == [fact.pixels for fact in expected.facts]
    assert all(np.array_equal(source.pixels(k), array.pixels(k)) for k in range(8))
    assert (found.exact_duplicates, found.near_duplicates) == (expected.exact_duplicates, expected.near_duplicates)


def test_one_image_beyond_8_bits_changes_how_all_are_read() -> None:
    inside = opened(UNIT)
    assert np.array_equal(inside.pixels(2), np.rint(UNIT[2] * 255))
    assert inside.notes == ("8 images: floats of more than 256 levels, rounded to 0…255",)
    images = UNIT.copy()
    images[5] *= 100
    source, array = opened(images), open_source((images, LABELS))
    assert [np.array_equal(source.pixels(k), array.pixels(k)) for k in range(8)] == [True] * 8
    assert source.pixels(2).max() < 4
    assert any("leave that out" in note for note in source.notes)


def test_kinds_of_values_are_counted() -> None:
    mixed = [*(GRAY[k] for k in range(4)), *((GRAY[k] // 16).astype(np.uint8) for k in range(4, 8))]
    assert open_source(list(zip(mixed, LABELS, strict=True))).notes[0] == (
        "4 images of whole numbers, 4 images of uint8: each kind has a range of its own, and uint8 stays as it is"
    )


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    images = BANDS.astype(np.float64)
    images[4, 1, 2, 3] = np.nan
    ((name, reason),) = scan(opened(images), cache=None).unreadable
    assert name == "image #4"
    assert "1 of 2,400 values, the first at row 1, column 2, channel 3" in reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: image[:10, :10, :5].repeat(2, 2), "shape .10, 10, 10.: 10 channels that come first, or 10"),
        (lambda image: image.repeat(4, 2), r"uint16 of shape \(20, 24, 20\); .* of up to 16 channels"),
        (lambda image: np.full((20, 24, 4), 255, np.uint8), "the last is 255 everywhere, as alpha is"),
        (lambda image: image > 500, "is bool"),
        (lambda image: (image[..., :3] / 1500.0) - 1, r"image #0 is floats from .*, normalised; .* Leave out Normal"),
    ],
)
def test_what_is_refused(change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        opened(change=change)


def test_a_tensor_has_its_channels_first() -> None:
    images = BANDS[:, :12, :12].repeat(2, 3)  # (12, 12, 10)
    source = opened(images, first)
    assert np.array_equal(
        source.pixels(3), open_source({"images": images, "labels": LABELS, "channels": "last"}).pixels(3)
    )


def test_images_that_change_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapstone.data.dataset_values._KEPT", 0)
    data = dataset()
    source = open_source(data)
    data.change = lambda image: image + np.uint16(1)
    with pytest.raises(DataError, match="no image can be used; the first: is another image when it is read again"):
        scan(source, cache=None)


def test_what_is_drawn_is_on_the_models_range(tmp_path: Path) -> None:
    source = opened(augmented=dataset(change=lambda image: image[:, ::-1]))
    assert isinstance(source.drawn, DrawnImages)
    ranges = scan(source, cache=None).ranges
    seen = Preprocessing(5, (20, 24), (20, 24), (0.5,) * 5, (0.25,) * 5, ranges)
    drawn = next(iter(DrawnRows(source.drawn, np.arange(8)).batches([np.array([6, 1])], 0, 1, seen)))
    store = build(source, [6, 1], seen, tmp_path / "store")
    assert np.array_equal(drawn, np.asarray(store.images)[:, :, ::-1])


@pytest.mark.parametrize(
    ("images", "change", "says"),
    [
        (
            BANDS,
            lambda image: image / 65535,
            "item 0 is of floats, and that of data of whole numbers; .* without ToDtype",
        ),
        (BANDS, lambda image: (image // 12).astype(np.uint8), "item 0 is of uint8, and that of data of whole numbers"),
        (BANDS.astype(np.float32), lambda image: image / 65535, "go up to 0.04\\d+, and those of data to 2\\d{3}; "),
        (GRAY.astype(np.float32), lambda image: image / 1e3 - 2, "go up to 1.9\\d*, and those of data to 3\\d{3}; "),
    ],
)
def test_what_is_drawn_has_to_be_of_the_same_values(images: Any, change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(DataError, match=f"augmented=: .*{says}"):
        opened(images, augmented=dataset(images, change))


def test_a_model_takes_the_items(tmp_path: Path) -> None:
    seen = Preprocessing(5, (20, 24), (20, 24), (0.5,) * 5, (0.25,) * 5, Ranges(integers=((0, 3000),) * 5))
    torch.manual_seed(0)
    model = Classifier("nin", "gap", ("a", "b"), seen)
    by_item = gs.predict(model, [first(BANDS[0]), BANDS[0], BANDS[0].transpose(2, 0, 1)], progress=False)
    shown = gs.predict(model, to_uint8(BANDS[0], ((0, 3000),) * 5), progress=False)
    assert [one.probabilities for one in by_item] == [shown[0].probabilities] * 3
    with pytest.raises(
        ValueError, match=r"images: image 0 is float32 of 5 channels, .* expected those of integers by ch"
    ):
        gs.predict(model, [BANDS[0].astype(np.float32)], progress=False)
    with pytest.raises(ValueError, match=r"images: image 0 is uint8 of shape .20, 24, 2.; expected a PIL"):
        gs.predict(model, [np.zeros((20, 24, 2), np.uint8)], progress=False)
    with pytest.raises(ValueError, match="images: image 0: it has 1 channel, and the model takes images of 5: give"):
        gs.predict(model, [np.zeros((20, 24), np.uint8)], progress=False)


def test_deep_pictures_need_a_range() -> None:
    picture = Image.fromarray(GRAY[0])
    assert np.array_equal(
        item_pixels("x", "y", picture, Ranges(integers=(0, 4095)))[..., 0], to_uint8(GRAY[0], (0, 4095))
    )
    with pytest.raises(DataError, match=r"x: y is uint16 of 1 channel, from .* expected 8 bits"):
        item_pixels("x", "y", picture)
    with pytest.raises(DataError, match="x: y has float pixels that are infinite"):
        item_pixels("x", "y", np.full((4, 4), np.inf), Ranges(floats=(0, 1)))


@pytest.mark.slow
def test_compared_as_arrays_of_the_same_values(tmp_path: Path) -> None:
    options: dict[str, Any] = {"heads": ["gap"], "backbone": "nin", "seeds": 1, "epochs": 1, "quick": True}
    options |= {"keep": "none", "progress": False, "from_scratch": True, "workers": 1}
    images, labels = np.concatenate([BANDS, BANDS[:, ::-1] + 7, BANDS[:, :, ::-1] + 3]), LABELS * 3
    pairs = [(first(image), label) for image, label in zip(images, labels, strict=True)]
    array = gs.compare((images, labels), **options, augment="none", out=tmp_path / "a").results
    plain = gs.compare(pairs, **options, augment="none", out=tmp_path / "b").results
    drawn = gs.compare(pairs, **options, augmented=pairs, out=tmp_path / "c").results
    metrics = [results["heads"][0]["metrics"] for results in (array, plain, drawn)]
    assert metrics[1:] == metrics[:1] * 2
