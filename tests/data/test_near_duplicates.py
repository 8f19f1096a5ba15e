"""Near duplicates: made copies are found, look-alikes are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.image_info import thumbnail
from gapstone.data.inspect_files import THUMBNAIL, _thumbnails
from gapstone.data.near_duplicates import NearDuplicates, check_threshold
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan

Picture = np.ndarray


def jpeg(pixels: Picture, quality: int = 50) -> Picture:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def crop(pixels: Picture, share: float) -> Picture:
    h, w = pixels.shape[:2]
    return pixels[int(h * share) :, : w - int(w * share)]


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "re-encoded": jpeg,
    "half size": lambda p: np.asarray(Image.fromarray(p).resize((p.shape[1] // 2, p.shape[0] // 2))),
    "brighter": lambda p: np.clip(p.astype(float) * 1.15, 0, 255).astype(np.uint8),
    "cropped": lambda p: crop(p, 0.03),
    "all of it": lambda p: jpeg(crop((p * 0.9).astype(np.uint8), 0.03), 70),
}


def pairs_of(pictures: list[Picture]) -> set[tuple[int, int]]:
    thumbnails = np.stack([np.frombuffer(thumbnail(np.ascontiguousarray(p)), np.uint8) for p in pictures])
    sizes = np.asarray([(p.shape[1], p.shape[0]) for p in pictures])
    return {(int(a), int(b)) for a, b in NearDuplicates(thumbnails, sizes).pairs}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(change: str, picture: Callable[..., Picture]) -> None:
    originals = [picture(seed, 120, 160) for seed in range(20)]
    copies = [CHANGES[change](p) for p in originals]
    assert pairs_of(originals + copies) == {(i, i + 20) for i in range(20)}


def test_mirrored_turned_and_plain_pictures_are_not(picture: Callable[..., Picture]) -> None:
    p = picture(1, 128, 128)
    plain = [np.full((128, 128, 3), level, np.uint8) for level in (0, 10, 250)]
    assert pairs_of([p, p[:, ::-1], p[::-1], np.rot90(p).copy(), *plain]) == set()
    assert pairs_of([p]) == set()


def test_the_two_ways_to_a_thumbnail_agree(picture: Callable[..., Picture]) -> None:
    for height, width, channels in ((64, 96, 3), (32, 32, 1), (16, 16, 3), (8, 24, 1)):
        p = picture(5, height, width, channels)
        one = np.frombuffer(thumbnail(p), np.uint8).astype(int)
        many = _thumbnails(p[None])[0].astype(int)
        assert len(one) == THUMBNAIL
        assert np.abs(one - many).max() <= 2


def test_real_photos(real_images: Callable[[str], Path]) -> None:
    folder = real_images("microcontrollers")
    source = open_source(folder)
    assert scan(source, workers=2).near_duplicates == []
    originals = [source.pixels(i) for i in range(0, 130, 13)]
    found = pairs_of(originals + [CHANGES["all of it"](p) for p in originals])
    assert found <= {(i, i + 10) for i in range(10)}
    assert len(found) >= 9


@pytest.mark.slow  # quick: test_pictures_that_are_alike_by_nature_are_not_one
def test_handwritten_ones_are_no_copies(real_images: Callable[[str], Path]) -> None:
    array = open_source(real_images("mnist")).array
    assert array is not None
    thumbnails = _thumbnails(array[:20_000])
    assert len(NearDuplicates(thumbnails, np.full((20_000, 2), 28)).pairs) == 0


def aligned(count: int, differ: float, seed: int = 0, noise: float = 2.0) -> list[Picture]:
    """Products on one ground, or X-rays: one picture, in each of them something else of its own, and sensor noise."""
    random = np.random.default_rng(seed)
    common = np.asarray(Image.fromarray(random.integers(60, 190, (9, 9), np.uint8)).resize((128, 128), 3), np.float32)
    made = []
    for _ in range(count):
        own = Image.fromarray(random.integers(0, 255, (12, 12), np.uint8)).resize((128, 128), 3)
        pixels = common + differ * (np.asarray(own, np.float32) - 128) + random.normal(0, noise, (128, 128))
        made.append(np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return made


def likeness_of(pictures: list[Picture], threshold: float | None = None) -> NearDuplicates:
    thumbnails = np.stack([np.frombuffer(thumbnail(np.ascontiguousarray(p)), np.uint8) for p in pictures])
    return NearDuplicates(thumbnails, np.asarray([(p.shape[1], p.shape[0]) for p in pictures]), threshold)


@pytest.mark.parametrize("differ", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("tint", [0, 30], ids=["gray", "colour"])
def test_pictures_that_are_alike_by_nature_are_not_one(differ: float, tint: int) -> None:
    """60 of them, 5 copied: the copies are found where they can be told, and nothing else is."""
    pictures = aligned(60, differ)
    for p in pictures:
        p[..., 0] = np.clip(p[..., 0].astype(int) + tint, 0, 255)
    pictures += [jpeg(p, 80) for p in pictures[:5]]
    likeness = likeness_of(pictures)
    found = {(int(a), int(b)) for a, b in likeness.pairs}
    assert found <= {(i, i + 60) for i in range(5)}
    assert differ < 0.05 or len(found) == 5
    assert np.bincount(likeness.groups()).max() <= 2


def test_a_chain_is_no_group() -> None:
    """Each picture is like the next; the first is not like the last."""
    a, b = aligned(1, 0.5, seed=1)[0].astype(float), aligned(1, 0.5, seed=2)[0].astype(float)
    chain = [np.clip(a + (b - a) * t, 0, 255).astype(np.uint8) for t in np.linspace(0, 1, 12)]
    likeness = likeness_of(chain, 0.97)
    assert len(likeness.pairs) >= 11
    groups = likeness.groups()
    assert 3 <= len(np.unique(groups)) < 12
    for leader in np.unique(groups):
        others = np.flatnonzero((groups == leader) & (np.arange(12) != leader))
        assert likeness.are_duplicates(np.full(len(others), leader), others).all()


def test_a_hundred_copies_are_one_group(picture: Callable[..., Picture]) -> None:
    """Each is compared with its nearest neighbours only; the group is whole all the same."""
    others = [picture(seed, 120, 160) for seed in range(1, 81)]
    copies = [jpeg(picture(0, 120, 160), quality) for quality in range(35, 95)]
    groups = likeness_of(copies + others).groups()
    assert len(set(groups[:60].tolist())) == 1
    assert len(set(groups[60:].tolist())) == 80


def test_a_captioned_and_resized_copy_is_found(picture: Callable[..., Picture]) -> None:
    originals = [picture(seed, 240, 320) for seed in range(12)]
    captioned = []
    for i, p in enumerate(originals):
        small = np.asarray(Image.fromarray(p).resize((160, 120))).copy()
        small[(slice(98, 120), slice(0, 22))[i % 2]] = 255 if i % 3 else 0
        captioned.append(small)
    assert pairs_of(originals + captioned) == {(i, i + 12) for i in range(12)}


@pytest.mark.parametrize(("threshold", "found"), [(0.999, 0), (0.9, 1)])
def test_a_threshold_of_ones_own(threshold: float, found: int) -> None:
    a, b = aligned(2, 0.15)
    assert len(likeness_of([a, b], threshold).pairs) == found


def test_thresholds_that_make_no_sense() -> None:
    for wrong in (0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"--duplicate-threshold .* from 0\.8 to 1"):
            check_threshold(wrong)
    check_threshold(None)
    check_threshold(1.0)
