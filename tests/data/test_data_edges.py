"""The edges of this room: from where on two pictures are one, limits of folds, and how large a file may be."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapstone.data import carve, memory_limits, near_duplicates, split
from gapstone.data.image_info import thumbnail
from gapstone.data.near_duplicates import NearDuplicates, check_threshold
from gapstone.data.sources import DataError
from gapstone.data.split import DataSplitError, folds
from gapstone.images import intensity_range, load
from gapstone.images.batches import batches
from gapstone.images.load import ImageError, read_bytes
from tests.data.test_split import LABELS, made

# ---- from where on two pictures are one


@pytest.mark.parametrize("threshold", [0.8, 0.97, 1.0, 1])
def test_thresholds_that_are_taken(threshold):
    check_threshold(threshold)


@pytest.mark.parametrize("threshold", [0.7999, 1.0001, -0.9, 0.0, math.inf, math.nan])
def test_thresholds_that_are_refused(threshold):
    with pytest.raises(ValueError, match=r"from 0\.8 to 1"):
        check_threshold(threshold)


def pixels(seed: int, side: int, gray: bool) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 8, 1 if gray else 3), dtype=np.uint8)
    return np.repeat(np.repeat(np.broadcast_to(coarse, (8, 8, 3)), side // 8, 0), side // 8, 1).copy()


def likeness(monkeypatch: pytest.MonkeyPatch, *pictures: np.ndarray, threshold: float | None = None) -> NearDuplicates:
    """Of pictures that are compared by what a test says."""
    monkeypatch.setattr(
        near_duplicates, "compare", lambda a, b, *_: (np.zeros(len(a), np.float32), np.zeros(len(a), np.float32))
    )
    thumbnails = np.stack([np.frombuffer(thumbnail(one), np.uint8) for one in pictures])
    return NearDuplicates(thumbnails, np.asarray([one.shape[1::-1] for one in pictures]), threshold)


def alike(
    monkeypatch: pytest.MonkeyPatch, found: NearDuplicates, correlation: float, colour: float, rows: Any = None
) -> bool:
    """`rows`: those where they are so much alike; elsewhere not at all."""

    def compared(a: np.ndarray, b: np.ndarray, align: bool, seen: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        value = correlation if rows is None or seen == rows else 0.0
        return np.full(len(a), value, np.float32), np.full(len(a), colour, np.float32)

    monkeypatch.setattr(near_duplicates, "compare", compared)
    return bool(found.are_duplicates(np.array([0]), np.array([1]))[0])


BARS = {
    "photos": ((128, False), (128, False), 0.97, 25.0, near_duplicates.ALL),
    "a caption below": ((128, False), (128, False), 0.985, 20.0, (0, 24)),
    "a caption above": ((128, False), (128, False), 0.985, 20.0, (8, 32)),
    "gray photos": ((128, True), (128, True), 0.985, 25.0, None),
    "small colour": ((64, False), (64, False), 0.98, 10.0, None),
    "small gray": ((64, True), (64, True), 0.997, 10.0, None),
    # a photo and its small or black-and-white copy: the most lenient of their two
    "a photo and a gray one": ((128, False), (128, True), 0.97, 25.0, near_duplicates.ALL),
    "a photo and a small one": ((128, False), (64, False), 0.97, 25.0, near_duplicates.ALL),
    "a gray photo and a small colour one": ((128, True), (64, False), 0.97, 25.0, near_duplicates.ALL),
}


@pytest.mark.parametrize("name", BARS)
def test_what_a_pair_must_reach(name, monkeypatch):
    (side, gray), (other, other_gray), correlation, colour, rows = BARS[name]
    third = pixels(3, 128, False)  # else there is no photo at all
    found = likeness(monkeypatch, pixels(1, side, gray), pixels(2, other, other_gray), third)
    assert alike(monkeypatch, found, correlation + 5e-4, colour, rows)
    assert not alike(monkeypatch, found, correlation - 5e-4, colour, rows)
    assert not alike(monkeypatch, found, correlation + 5e-4, colour + 0.01, rows)


def test_small_gray_pictures_are_like_no_photo(monkeypatch):
    for other in ((128, False), (128, True), (64, False)):
        found = likeness(monkeypatch, pixels(1, 64, True), pixels(2, *other), pixels(3, 128, False))
        assert not alike(monkeypatch, found, 1.0, 0.0)


@pytest.mark.parametrize(("more", "is_one"), [(16, True), (32, False)])
def test_pictures_of_another_shape_are_not_one(more, is_one, monkeypatch):
    """A light crop changes it little: a tenth, not a fifth."""
    one, other = pixels(1, 160, False), pixels(2, 160, False)
    found = likeness(monkeypatch, one, np.concatenate([other, other[:, :more]], 1))
    assert alike(monkeypatch, found, 1.0, 0.0) == is_one


def test_a_threshold_of_ones_own_is_for_whole_pictures_of_all_kinds(monkeypatch):
    for kind in ((128, False), (128, True), (64, False), (64, True)):
        found = likeness(monkeypatch, pixels(1, *kind), pixels(2, *kind), threshold=0.9)
        assert alike(monkeypatch, found, 0.901, 0.0, near_duplicates.ALL)
        assert not alike(monkeypatch, found, 0.899, 0.0, near_duplicates.ALL)
    # a part of a picture has to reach at least what it must without one
    lenient = likeness(monkeypatch, pixels(1, 128, False), pixels(2, 128, False), threshold=0.9)
    assert not alike(monkeypatch, lenient, 0.984, 0.0, (0, 24))
    assert alike(monkeypatch, lenient, 0.986, 0.0, (0, 24))
    strict = likeness(monkeypatch, pixels(1, 128, False), pixels(2, 128, False), threshold=0.995)
    assert not alike(monkeypatch, strict, 0.99, 0.0, (0, 24))


def test_a_threshold_of_one_finds_none(monkeypatch):
    one = pixels(1, 128, False)
    exact = likeness(monkeypatch, one, one.copy(), threshold=1)
    assert len(exact.pairs) == 0
    assert exact.groups().tolist() == [0, 1]


@pytest.mark.parametrize(("side", "small"), [(64, True), (72, False)])
def test_from_where_on_pictures_are_no_longer_small(side, small, monkeypatch):
    found = likeness(monkeypatch, pixels(1, side, False), pixels(2, side, False))
    assert found.small.tolist() == [small, small]


def test_equal_channels_are_gray_up_to_rounding(monkeypatch):
    gray = pixels(1, 128, True)
    tinted, coloured = gray.copy(), gray.copy()
    tinted[..., 0] = np.clip(gray[..., 0].astype(int) + 2, 0, 255)
    coloured[..., 0] = np.clip(gray[..., 0].astype(int) + 3, 0, 255)
    assert likeness(monkeypatch, gray, tinted, coloured).gray.tolist() == [True, True, False]


@pytest.mark.parametrize(("contrast", "compared"), [(3, False), (6, True)])
def test_plain_pictures_are_not_compared(contrast, compared):
    """A white page is like every other one."""
    page = np.full((128, 128, 3), 200, np.uint8)
    page[:64] += np.uint8(2 * contrast)
    page[:, :64, 0] += np.uint8(contrast)
    thumbnails = np.stack([np.frombuffer(thumbnail(one), np.uint8) for one in (page, page.copy())])
    found = NearDuplicates(thumbnails, np.full((2, 2), 128))
    assert (len(found.pairs) == 1) == compared


# ---- limits of folds, and ties


@pytest.mark.parametrize(("k", "limit"), [(2, 40), (4, 30), (5, 41), (3, 100)])
def test_folds_train_on_as_many_as_asked(k, limit):
    source, found = made(LABELS)
    parts = folds(source, found, k, limit=limit)
    trained = [len(one.train) + len(one.validation) for one in parts]
    assert max(trained) <= limit + 1  # of a number that does not divide, one fold tests one fewer
    assert min(trained) >= limit - k
    tested = np.concatenate([one.test for one in parts])
    assert len(tested) == len(set(tested.tolist())) == limit * k // (k - 1)
    for one in parts:
        assert not set(one.train.tolist()) & set(one.test.tolist())
        assert np.bincount(source.labels[one.test], minlength=3).min() >= 1


def test_a_limit_that_changes_nothing():
    source, found = made(LABELS)
    for free, limited in zip(folds(source, found, 4), folds(source, found, 4, limit=120), strict=True):
        assert np.array_equal(free.test, limited.test)
    assert sum(len(one.test) for one in folds(source, found, 4, limit=119)) == 158


def test_ties_go_to_the_first_fold_and_all_are_as_even_as_they_can_be():
    labels = np.zeros(7, np.int64)
    part = carve.fold_numbers(np.arange(7), labels, np.arange(7), 3)
    assert np.bincount(part).tolist() == [3, 2, 2]
    two = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    part = carve.fold_numbers(np.arange(8), two, np.arange(8), 4)
    assert all(np.bincount(part[two == k], minlength=4).tolist() == [1, 1, 1, 1] for k in (0, 1))


def test_between_folds_of_as_many_of_a_class_the_smaller_one_is_taken():
    labels = np.array([0, 0, 0, 1, 1, 1])
    part = carve.fold_numbers(np.arange(6), labels, np.arange(6), 2)
    assert np.bincount(part).tolist() == [3, 3]
    assert sorted(np.bincount(part[labels == 0]).tolist()) == sorted(np.bincount(part[labels == 1]).tolist()) == [1, 2]


def test_validation_of_which_all_are_copies_of_test_images():
    labels, splits = [0, 1] * 4, ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    source, found = made(labels, [0, 1, 2, 3, 6, 7, 6, 7], splits)
    copied = replace(found, exact_duplicates=[[4, 6], [5, 7]])
    with pytest.raises(DataSplitError, match="no usable validation images"):
        split.split(source, copied)


def test_large_groups_find_their_place_first():
    groups = np.array([0, 0, 0, 1, 2, 3])
    part = carve.fold_numbers(np.arange(6), np.zeros(6, np.int64), groups, 2)
    assert np.bincount(part).tolist() == [3, 3]
    assert len(set(part[:3].tolist())) == 1


def test_a_class_of_large_groups_gives_its_smallest_if_another_stays():
    labels = np.zeros(7, np.int64)
    rest, part = carve.carve(np.arange(7), labels, np.array([0, 0, 0, 1, 1, 1, 1]), 0.2, 0)
    assert (rest.tolist(), part.tolist()) == ([3, 4, 5, 6], [0, 1, 2])
    rest, part = carve.carve(np.arange(7), labels, np.zeros(7, np.int64), 0.2, 0)
    assert (len(rest), len(part)) == (7, 0)
    rest, part = carve.carve(np.arange(1), labels[:1], np.arange(1), 0.5, 0)
    assert (len(rest), len(part)) == (1, 0)
    rest, part = carve.carve(np.arange(2), labels[:2], np.arange(2), 0.01, 0)
    assert (len(rest), len(part)) == (1, 1)  # of two one is tested, however small the share


def test_folds_begin_at_two():
    source, found = made(LABELS)
    assert len(folds(source, found, 2)) == 2
    with pytest.raises(DataSplitError, match="at least 2"):
        folds(source, found, 1)


def test_the_parts_are_the_same_for_every_seed():
    source, found = made(LABELS)
    one, other = folds(source, found, 3, seed=0), folds(source, found, 3, seed=1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(one, other, strict=True))
    assert not all(np.array_equal(a.validation, b.validation) for a, b in zip(one, other, strict=True))


def test_limits_take_from_all_classes_alike():
    labels = np.asarray(LABELS)
    some = carve.limited(np.arange(160), labels, 32, 1)
    assert np.bincount(labels[some]).tolist() == [20, 10, 2]
    assert np.array_equal(carve.limited(np.arange(160), labels, 160, 1), np.arange(160))
    assert len(carve.limited(np.arange(160), labels, 159, 1)) == 159
    few = carve.limited(np.arange(160), labels, 9, 3)
    assert np.bincount(labels[few]).tolist() == [3, 3, 3]


@pytest.mark.parametrize(("limit", "fits"), [(6, True), (5, False)])
def test_a_limit_leaves_every_class_one_to_train_and_one_to_validate(limit, fits):
    source, found = made(LABELS)
    if fits:
        assert len(split.split(source, found, limit=limit).train) == 3
    else:
        with pytest.raises(DataSplitError, match=r"limit 5: each of the 3 classes needs at least 2"):
            split.split(source, found, limit=limit)


@pytest.mark.parametrize(("alike", "dropped"), [(2, 2), (3, 0)])
def test_near_copies_of_test_images_go_while_half_of_the_class_is_left(alike, dropped):
    labels, groups = np.zeros(8, np.int64), np.arange(8)
    groups[:alike] = 7  # like the image that is held out
    stays, gone, kept = split._without_copies(np.arange(4), np.array([7]), labels, groups, np.arange(8), 1)
    assert (len(gone), kept, len(stays)) == (dropped, alike - dropped, 4 - dropped)
    exact = np.arange(8)
    exact[:alike] = 7  # the very same: they go, whatever is left
    stays, gone, kept = split._without_copies(np.arange(4), np.array([7]), labels, groups, exact, 1)
    assert (len(gone), kept) == (alike, 0)


def test_shares_are_shares():
    source, found = made(LABELS)
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(DataSplitError, match="a share between 0 and 1"):
            split.split(source, found, test_share=wrong)


# ---- ranges of deep pixels


def spread(lowest: float, highest: float) -> intensity_range.ValueSpread:
    return intensity_range.ValueSpread("integers", lowest, highest, lowest, highest)


def test_notes_say_what_is_cut_off():
    for lowest, highest, cut in ((0, 100, False), (0, 101, True), (-1, 100, True), (0, 50, False)):
        said = intensity_range.note(spread(lowest, highest), (0, 100), guessed=False)
        assert ("what is beyond is cut off" in said) == cut
        assert ("the lowest" in said) == (lowest < 0)
        assert "guessed" not in said
    assert "guessed from this picture alone" in intensity_range.note(spread(0, 1), (0, 1), guessed=True)


def test_a_range_ends_at_the_last_value_that_is_not_far_beyond():
    assert intensity_range._between(0, 100, -25, 125) == (-25, 125)  # a quarter of the way is near
    assert intensity_range._between(0, 100, -26, 126) == (0, 100)
    assert intensity_range._between(5, 5, 5, 5) == (5, 6)


@pytest.mark.parametrize(
    ("kind", "low", "high", "lowest", "highest", "expected"),
    [
        ("integers", 0, 255, 0, 255, (0, 255)),
        ("integers", 0, 256, 0, 256, (0, 1023)),
        ("integers", 0, 250, 0, 1000, (0, 1023)),  # one step more
        ("integers", 0, 250, 0, 1024, (0, 255)),  # a stuck pixel
        ("integers", 0, 4000, 0, 65535, (0, 4095)),
        ("integers", 0, 4000, 0, 16383, (0, 16383)),
        ("integers", 5, 70000, 0, 70000, (0, 70000)),
        ("integers", -1000, 2000, -1024, 3071, (-1024, 2000)),
        ("floats", -0.05, 1.05, -9, 9, (0, 1)),
        ("floats", -0.06, 1.0, -0.06, 1.0, (-0.06, 1.0)),
        ("floats", 0.0, 1.06, 0.0, 1.06, (0.0, 1.06)),
        ("floats", 0.0, 250.0, 0.0, 255.0, (0, 255)),
        ("floats", 0.0, 16.0, 0.0, 16.0, (0.0, 16.0)),
        ("floats", 0.0, 16.1, 0.0, 16.1, (0, 255)),
        ("floats", 0.0, 268.0, 0.0, 268.0, (0.0, 268.0)),
    ],
)
def test_what_is_black_and_white(kind, low, high, lowest, highest, expected):
    found = intensity_range.decide([intensity_range.ValueSpread(kind, lowest, highest, low, high)])
    assert found.of(kind) == expected
    assert found.of("floats" if kind == "integers" else "integers") is None


def test_the_rarest_pixels_do_not_decide():
    assert [intensity_range._rare_count(count) for count in (63, 64, 999, 2000, 10_000)] == [0, 1, 1, 2, 10]


@pytest.mark.parametrize("value", [(0,), [0, 1], (1, 1), (1, 0), (0, math.inf), (True, 2), (0, "1"), (0, 1, 2)])
def test_ranges_that_are_none(value):
    with pytest.raises(ValueError, match="black, white"):
        intensity_range.Ranges(integers=value)
    assert intensity_range.Ranges(integers=(0, 1)).of("integers") == (0, 1)


# ---- pictures a few at a time


def test_batches_end_at_a_number_and_at_pixels():
    wide, small = np.zeros((2, 5, 3), np.uint8), np.zeros((1, 3, 1), np.uint8)
    assert [len(few) for few in batches([wide] * 5, 2)] == [2, 2, 1]
    assert [len(few) for few in batches([wide] * 5, 9, most=20)] == [2, 2, 1]
    assert [len(few) for few in batches([wide] * 3, 9, most=19)] == [1, 1, 1]
    assert [len(few) for few in batches([wide, small, small, wide], 9, most=13)] == [2, 2]
    assert [len(few) for few in batches([wide], 9, most=1)] == [1]  # one alone is never too many
    assert list(batches([], 3)) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_gray_and_colour(shape, channels):
    given = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = load.convert(given, channels)
    assert found.shape == (4, 5, channels)
    if shape[-1] != 3:
        assert all(np.array_equal(found[..., c], given.reshape(4, 5)) for c in range(channels))
    elif channels == 3:
        assert found is given
    else:
        luma = given @ np.array([0.299, 0.587, 0.114])
        assert np.abs(found[..., 0] - luma).max() <= 1


# ---- how large a file may be


def sparse(path: Path, size: int) -> Path:
    """A file of so many bytes that takes no place."""
    path.touch()
    os.truncate(path, size)
    return path


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    most = 8 * 1 + (64 << 20)
    assert len(read_bytes(sparse(tmp_path / "a.png", most), max_pixels=1)) == most
    with pytest.raises(ImageError, match="more than any image within the pixel limit"):
        read_bytes(sparse(tmp_path / "b.png", most + 1), max_pixels=1)
    # by default: 8 bytes for each of its pixels
    with pytest.raises(ImageError, match="more than any image within the pixel limit"):
        read_bytes(sparse(tmp_path / "c.png", 8 * load.MAX_PIXELS + most))


def test_the_guard_comes_before_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageError, match=r"the file is 0\.1 GB"):
        read_bytes(sparse(tmp_path / "a.png", 100_000_000), max_pixels=1)


@pytest.mark.parametrize(
    ("packed", "unpacked", "words"),
    [
        (1, memory_limits.FREE, None),
        (1, memory_limits.FREE + 1, "times its own size"),
        (20_000_000, 2_000_000_000, None),
        (20_000_000, 2_000_000_001, "100 times its own size"),
        (10**9, 8 * 10**9, None),
        (10**9, 8 * 10**9 + 1, "more than half of this machine's 16 GB"),
    ],
)
def test_what_a_file_may_unpack_to(packed, unpacked, words, monkeypatch):
    monkeypatch.setattr(memory_limits, "memory", lambda: 16 * 10**9)
    if words is None:
        memory_limits.check_unpacked("a.npz", packed, unpacked)
    else:
        with pytest.raises(DataError, match=words):
            memory_limits.check_unpacked("a.npz", packed, unpacked)


@pytest.mark.parametrize(
    ("memory", "size", "fits"),
    [(10**12, 1 << 30, True), (10**12, (1 << 30) + 1, False), (10**9, 5 * 10**7, True), (10**9, 5 * 10**7 + 1, False)],
)
def test_how_large_a_table_may_be(memory, size, fits, monkeypatch):
    monkeypatch.setattr(memory_limits, "memory", lambda: memory)
    if fits:
        memory_limits.check_table("a.csv", size)
    else:
        with pytest.raises(DataError, match="Split it"):
            memory_limits.check_table("a.csv", size)
