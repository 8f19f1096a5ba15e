"""Arrays of other channels than gray and RGB, and of more than 8 bits: their axis, their ranges, what is left out."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import gapstone as gs
from gapstone.converting.conversion import ConvertRequest
from gapstone.converting.convert import convert as convert_model
from gapstone.data.decoded_store import build
from gapstone.data.deep_images import DeepImages
from gapstone.data.open_source import open_source
from gapstone.data.scan import Scan, scan
from gapstone.data.sources import DataError, Source
from gapstone.export.int8 import choose_images
from gapstone.images.as_picture import as_picture, three_channels
from gapstone.images.intensity_range import Ranges, to_uint8
from gapstone.images.load import ImageError, convert
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.training_data import TrainOptions, plan_training

RANDOM = np.random.default_rng(0)
LABELS = np.array([0, 1] * 4)
BANDS = RANDOM.integers(100, 3000, (8, 20, 24, 5)).astype(np.uint16)
BANDS[..., 3] = RANDOM.integers(0, 40, BANDS.shape[:3])
EXACT = (np.arange(5) * 50).astype(np.uint8) + np.zeros((8, 20, 24, 5), np.uint8)


def scanned(images: object, **more: object) -> tuple[Source, Scan]:
    source = open_source({"images": images, "labels": LABELS, **more})
    return source, scan(source, cache=None)


@pytest.mark.parametrize(
    ("shape", "said", "channels"),
    [
        ((8, 20, 24, 5), None, 5),
        ((8, 5, 20, 24), None, 5),
        ((8, 12, 12, 6), "last", 6),
        ((8, 6, 12, 12), "first", 6),
        ((8, 5, 20, 3), None, 3),
        ((8, 3, 9, 9), None, 3),
        ((8, 4, 4, 3), None, 3),
        ((8, 12, 9, 3), "first", 12),
    ],
)
def test_which_axis_is_that_of_the_channels(shape: tuple[int, ...], said: str | None, channels: int) -> None:
    images = RANDOM.integers(0, 255, shape).astype(np.uint8)
    source = open_source({"images": images, "labels": LABELS} | ({"channels": said} if said else {}))
    last = images if shape[3] == channels and said != "first" else images.transpose(0, 2, 3, 1)
    assert np.array_equal(source.pixels(3), last[3])


def test_each_channel_has_a_range_that_a_stuck_pixel_does_not_decide() -> None:
    images = BANDS.copy()
    images[2, 5, 6, 0] = 65535
    source, found = scanned(images)
    assert found.channels == 5
    ranges = found.ranges.integers
    assert isinstance(ranges, tuple)
    assert isinstance(ranges[0], tuple)
    assert ranges[0][1] < 3000
    assert ranges[1] == (images[..., 1].min(), images[..., 1].max())
    assert ranges[3] == (0, 39)
    shown = source.pixels(2)
    assert shown[5, 6, 0] == 255
    assert shown[..., 3].max() == 255
    low, high = ranges[1]
    expected = np.floor((images[2, ..., 1].astype(float) - low) * 255 / (high - low) + 0.5)
    assert np.array_equal(shown[..., 1], expected)


def test_an_image_far_beyond_all_others_does_not_decide() -> None:
    images = RANDOM.normal(0, 1, (80, 20, 20, 2))
    images[7, ..., 1] += 1000
    ranges = DeepImages(images).ranges.floats
    assert ranges is not None
    assert ranges[1][1] < 10


def test_uint8_stays_as_it_is() -> None:
    source, found = scanned(EXACT)
    assert found.ranges == Ranges()
    assert np.array_equal(source.pixels(0), EXACT[0])


def test_the_same_values_in_other_forms(tmp_path: Path) -> None:
    first, found = scanned(BANDS)
    np.savez(tmp_path / "d.npz", images=BANDS.transpose(0, 3, 1, 2), labels=LABELS, channels="first")
    for source in (open_source(tmp_path / "d.npz"), scanned(BANDS.astype(np.int32))[0]):
        again = scan(source, cache=None)
        assert again.ranges == found.ranges
        assert [fact.pixels for fact in again.facts] == [fact.pixels for fact in found.facts]
        assert np.array_equal(source.pixels(5), first.pixels(5))


def test_gray_of_16_bits_is_on_the_range_that_files_have() -> None:
    images = RANDOM.integers(0, 4000, (8, 20, 24)).astype(np.uint16)
    source, found = scanned(images)
    assert (found.channels, found.ranges) == (1, Ranges(integers=(0, 4095)))
    assert np.array_equal(source.pixels(1)[..., 0], to_uint8(images[1], (0, 4095)))


def test_normalised_rgb_gets_one_range_and_a_note() -> None:
    images = torch.randn(8, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    source, found = scanned(images)
    assert found.ranges.floats == pytest.approx((float(images.min()), float(images.max())))
    assert any("leave that out" in note for note in source.notes)


def test_images_with_values_that_are_not_finite_are_left_out_and_counted() -> None:
    images = BANDS.astype(np.float32)
    images[4, 1, 2, 3] = np.nan
    images[4, 9, 2, 3] = np.inf
    source, found = scanned(images)
    ((name, reason),) = found.unreadable
    assert name == "image #4"
    assert "2 of 2,400 values, the first at row 1, column 2, channel 3; replace them" in reason
    assert found.ranges.floats == scanned(np.delete(images, 4, 0), labels=np.delete(LABELS, 4))[1].ranges.floats
    with pytest.raises(ImageError, match="not a number"):
        source.pixels(4)


def test_no_image_that_is_finite() -> None:
    with pytest.raises(DataError, match="no image can be used; the first: float pixels that are infinite"):
        scanned(np.full((8, 20, 24, 5), np.nan))


def test_copies_are_found_by_values_and_other_channels_tell_images_apart() -> None:
    images = BANDS.copy()
    images[5] = images[2]
    images[6] = images[1]
    images[6, ..., 4] = images[6, ::-1, :, 4]
    found = scanned(images)[1]
    assert [sorted(group) for group in found.exact_duplicates] == [[2, 5]]


def test_a_store_is_on_the_models_range_resized_by_channel(tmp_path: Path) -> None:
    source, _ = scanned(BANDS)
    ranges = Ranges(integers=((0, 5000),) * 5)
    half = Preprocessing(5, (10, 12), (10, 12), (0.5,) * 5, (0.25,) * 5, ranges)
    store = build(source, [3], half, tmp_path / "store")
    for k in range(5):
        alone = Preprocessing(1, (10, 12), (10, 12), (0.5,), (0.25,))
        assert np.array_equal(store.images[0][..., k : k + 1], alone.fit(to_uint8(BANDS[3, ..., k : k + 1], (0, 5000))))


def test_a_plan_and_a_model_of_the_channels(tmp_path: Path) -> None:
    said: list[str] = []
    options = TrainOptions(data=(np.tile(BANDS, (4, 1, 1, 1)) + np.arange(32)[:, None, None, None], np.tile(LABELS, 4)))
    plan = plan_training(options, [0], None, said.append, lambda text: lambda done, total: None)
    assert any("20×24 px, 5 channels" in line for line in said)
    assert any("false colours" in line for line in said)
    seen = Preprocessing(5, (20, 24), (20, 24), (0.5,) * 5, (0.25,) * 5, plan.preprocessing.ranges)
    torch.manual_seed(0)
    model = Classifier("nin", "gap", ("a", "b"), seen)
    opened = Classifier("nin", "gap", ("a", "b"), Preprocessing.from_json(seen.to_json()))
    opened.load_state_dict(model.state_dict())
    shown = to_uint8(BANDS[0], seen.ranges.integers)  # type: ignore[arg-type]
    assert torch.equal(opened.predict(BANDS[0]), model.predict(shown))
    with pytest.raises(ImageError, match="it has 3 channels, and the model takes images of 5"):
        model.predict(np.zeros((20, 24, 3), np.uint8))
    with pytest.raises(TypeError, match="by channel"):
        model.predict(BANDS[0].astype(np.float32))


def test_a_network_of_other_channels_is_refused() -> None:
    options = TrainOptions(data=(EXACT + np.arange(8, dtype=np.uint8)[:, None, None, None], LABELS))
    from gapstone.cutting.own_network import own_network

    own = own_network(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                                          torch.nn.Flatten(), torch.nn.Linear(8, 2)))  # fmt: skip
    with pytest.raises(ValueError, match="takes images of 3 channels, and these have 5: give one whose first layer"):
        plan_training(
            TrainOptions(data=options.data, backbone=own.name), [0], None, lambda line: None,
            lambda text: lambda done, total: None,
        )  # fmt: skip


def test_what_a_person_sees_has_all_channels() -> None:
    pixels = np.zeros((2, 2, 12), np.uint8)
    pixels[..., 6] = 120
    assert three_channels(pixels)[0, 0].tolist() == [0, 30, 0]
    assert [as_picture(np.zeros((4, 6, k), np.uint8)).mode for k in (1, 2, 3, 13)] == ["L", "RGB", "RGB", "RGB"]
    with pytest.raises(ImageError, match="it has 2 channels"):
        convert(pixels[..., :2], 3)


def refused_by(command: str, model: Path, data: str, folder: Path) -> None:
    if command == "evaluate":
        gs.evaluate(model, data, out=folder / "out", progress=False)
    elif command == "int8":
        choose_images(gs.open_model(str(model)), data)
    else:
        request = ConvertRequest(str(model), "gmp", data, folder / "new.safetensors", native=command == "native")
        convert_model(request, console=Console(file=io.StringIO()))


@pytest.mark.parametrize("command", ["evaluate", "int8", "convert", "native"])
def test_images_that_a_model_cannot_see_are_refused_in_one_sentence(command: str, tmp_path: Path) -> None:
    seen = Preprocessing(3, (20, 24), (20, 24), (0.5,) * 3, (0.25,) * 3)
    model = Classifier("nin", "gap", ("0", "1"), seen).save(tmp_path / "rgb.safetensors")
    images = np.random.default_rng(1).integers(0, 255, (40, 20, 24, 5), np.uint8)
    np.savez(tmp_path / "five.npz", images=images, labels=np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"has images of 5 channels, and the model takes images of 3: give it images"):
        refused_by(command, model, str(tmp_path / "five.npz"), tmp_path)
