"""Near duplicates: made copies are found, look-alikes are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.images.facts import thumbnail
from gapstone.images.near import near_pairs
from gapstone.images.scan import scan
from gapstone.images.sources import open_source
from gapstone.images.survey import THUMBNAIL, _thumbnails

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
    return {(int(a), int(b)) for a, b in near_pairs(thumbnails, sizes)}


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


def test_handwritten_ones_are_no_copies(real_images: Callable[[str], Path]) -> None:
    array = open_source(real_images("mnist")).array
    assert array is not None
    thumbnails = _thumbnails(array[:20_000])
    assert len(near_pairs(thumbnails, np.full((20_000, 2), 28))) == 0
