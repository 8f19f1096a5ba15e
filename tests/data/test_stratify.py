"""Splits of multi-label images: each class has its share, also "no class at all"; groups whole; one label as before."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gapstone.data.carve import by_content, carve, fold_numbers, limited, limited_groups
from gapstone.data.image_info import ImageInfo
from gapstone.data.scan import Scan
from gapstone.data.seen_images import check_left
from gapstone.data.sources import Grouping, Item, Source
from gapstone.data.split import DataSplitError, folds, split
from gapstone.data.stratify import Members, repair

Bools = NDArray[np.bool_]


def made(labels: Bools, exact: list[list[int]] | None = None, patients: list[str] | None = None) -> tuple[Source, Scan]:
    names = tuple(f"{i}.png" for i in range(len(labels)))
    items = [
        Item(name, tuple(np.flatnonzero(row).tolist()), None, Path(name), i)
        for i, (name, row) in enumerate(zip(names, labels, strict=True))
    ]
    grouping = None if patients is None else Grouping("--group patient", tuple(patients))
    classes = tuple("abcdefgh"[: labels.shape[1]])
    source = Source("made", "csv", classes, items, grouping=grouping, multi_label=True)
    facts = tuple(ImageInfo(None, str(i), (8, 8), "L") for i in range(len(labels)))
    group = np.arange(len(labels))
    for copies in exact or []:
        group[copies] = copies[0]
    found = Scan(
        "made", "csv", classes, names, source.labels, (None,) * len(items), facts, exact or [], [], group,
        grouping=grouping,
    )  # fmt: skip
    return source, found


def skewed(seed: int, images: int, shares: list[float]) -> Bools:
    """Labels that occur together: an image has more or fewer of all of them."""
    random = np.random.default_rng(seed)
    odds = np.log(np.divide(shares, 1 - np.array(shares))) + 0.8 * random.normal(size=(images, 1))
    return np.asarray(1 / (1 + np.exp(-odds)) > random.random((images, len(shares))))


LABELS = skewed(1, 800, [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])


def off(labels: Bools, part: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """By how many images each class, "no class" and all images miss their share of a part."""
    every = np.column_stack([labels, ~labels.any(axis=1), np.ones(len(labels), bool)])
    return np.asarray(np.abs(every[part].sum(axis=0) - share * every.sum(axis=0)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_validation_has_its_share_of_every_class(seed: int) -> None:
    rest, part = carve(np.arange(800), LABELS, np.arange(800), 0.1, seed)
    assert np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(800))
    assert off(LABELS, part, 0.1).max() <= 2
    random = np.random.default_rng(seed).permutation(800)[:80]
    assert off(LABELS, random, 0.1).max() > 4
    again = carve(np.arange(800), LABELS, np.arange(800), 0.1, seed)[1]
    assert np.array_equal(part, again)
    assert not np.array_equal(part, carve(np.arange(800), LABELS, np.arange(800), 0.1, seed + 10)[1])


def test_folds_and_limits_have_their_share_of_every_class() -> None:
    number = fold_numbers(np.arange(800), LABELS, np.arange(800), 5)
    for fold in range(5):
        assert off(LABELS, np.flatnonzero(number == fold), 0.2).max() <= 2
    kept = limited(np.arange(800), LABELS, 100, 2)
    assert len(kept) == 100
    assert off(LABELS, kept, 1 / 8).max() <= 2
    assert LABELS[kept].sum(axis=0).min() >= 2


@pytest.mark.parametrize("seed", range(40))
def test_small_sets_keep_positives_and_negatives_on_both_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    images, classes = int(random.integers(12, 60)), int(random.integers(2, 7))
    labels = random.random((images, classes)) < random.uniform(0.05, 0.9, classes)
    rows, groups = np.arange(images), random.integers(0, images // 2, images) if seed % 2 else np.arange(images)
    keys = [f"{seed} {g}" for g in groups]
    for rest, part in (carve(rows, labels, groups, 0.1, seed), by_content(rows, labels, groups, keys, 0.2)):
        assert np.array_equal(np.sort(np.concatenate([rest, part])), rows)
        assert not np.isin(groups[rest], groups[part]).any()
        for has in (*labels.T, *~labels.T):
            if len(np.unique(groups[has])) > 2:  # of two groups, both may serve other classes
                assert has[rest].any()
                assert has[part].any()
    number = fold_numbers(rows, labels, groups, 3)
    assert all(len(np.unique(number[groups == g])) == 1 for g in np.unique(groups))
    assert all(set(number[has]) == {0, 1, 2} for has in labels.T if len(np.unique(groups[has])) > 3)
    least = 2 * classes + images // 4
    assert len(limited(rows, labels, least, 2)) <= least
    whole = limited_groups(rows, labels, groups, images // 2, 1)
    assert np.array_equal(whole, np.flatnonzero(np.isin(groups, groups[whole])))


def test_what_is_trained_on_has_every_class_whatever_that_takes() -> None:
    # both images with the first class are tested, and each is the only one there of another class
    labels = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]], bool)
    members, part = Members.of([np.array([i]) for i in range(4)], labels), np.array([1, 1, 0, 0])
    assert repair(members, part, 2).tolist() == [1, 1, 0, 0]
    assert repair(members, part, 2, must=lambda s: s == 0).tolist() == [0, 1, 1, 0]


def test_test_images_stay_when_others_come() -> None:
    keys = [f"image {i}" for i in range(800)]
    _, before = by_content(np.arange(600), LABELS[:600], np.arange(600), keys[:600], 0.2)
    _, after = by_content(np.arange(800), LABELS, np.arange(800), keys, 0.2)
    assert len(np.setxor1d(before, after[after < 600])) <= 1  # a class of which nothing was tested
    assert abs(len(after) - 160) < 35


def test_splits_of_several_labels() -> None:
    patients = [f"p{i // 4}" for i in range(800)]
    labels = LABELS.copy()
    labels[[9, 700]] = labels[[0, 5]]
    source, found = made(labels, exact=[[0, 9], [5, 700]], patients=patients)
    parts = split(source, found, seed=2)
    assert np.array_equal(np.sort(np.concatenate([parts.train, parts.validation, parts.test])), np.arange(800))
    sides = [{i // 4 for i in rows.tolist()} for rows in (parts.train, parts.validation, parts.test)]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert all(source.labels[rows].any(axis=0).all() for rows in (parts.train, parts.validation, parts.test))
    few = split(source, found, seed=2, limit=100)
    assert len(few.train) + len(few.validation) <= 100
    for parts in folds(source, found, 4):
        assert source.labels[parts.test].any(axis=0).all()
        assert len(parts.validation) > 0
    left = parts.test[~source.labels[parts.test, 5]]
    with pytest.raises(DataSplitError, match="none is left of 'f'"):
        check_left(source, parts.test, left, "--weights m.safetensors")


def test_what_cannot_be_split_is_said() -> None:
    labels = np.zeros((40, 3), bool)
    labels[:, 0] = True
    labels[:20, 1] = True
    labels[3:9, 2] = True
    source, found = made(labels)
    with pytest.raises(DataSplitError, match=r"every image to train on has 'a'.*leave the class out"):
        split(source, found)
    labels[:, 0] = False
    labels[7, 0] = True
    source, found = made(labels)
    with pytest.raises(DataSplitError, match=r"too few different images for .* 'a' \(0 to train, 1 to test\)"):
        split(source, found)


def test_copies_of_test_images_are_dropped_from_train() -> None:
    labels = skewed(3, 60, [0.5, 0.4])
    labels[41] = labels[2]
    source, found = made(labels, exact=[[2, 41]])
    items = [
        Item(item.name, item.labels, "test" if i >= 40 else "train", item.path, item.row)
        for i, item in enumerate(source.items)
    ]
    given = Source("made", "csv", source.classes, items, multi_label=True)
    parts = split(given, found)
    assert parts.dropped.tolist() == [2]
    assert 2 not in np.concatenate([parts.train, parts.validation])


def test_one_label_each_is_split_as_before() -> None:
    def digest(*parts: NDArray[np.integer]) -> str:
        data = b"|".join(np.ascontiguousarray(part, np.int64).tobytes() for part in parts)
        return hashlib.sha256(data).hexdigest()[:12]

    random = np.random.default_rng(5)
    labels, groups = random.choice(6, 400, p=[0.5, 0.25, 0.1, 0.08, 0.05, 0.02]), random.integers(0, 150, 400)
    rows, single, keys = np.sort(random.permutation(400)[:360]), np.arange(400), [f"k{i}" for i in range(400)]
    assert digest(*carve(rows, labels, groups, 0.1, 3), *carve(rows, labels, single, 0.2, 4)) == "d03355cba44f"
    content = (*by_content(rows, labels, groups, keys, 0.2, 5), *by_content(rows, labels, single, keys, 0.2))
    assert digest(*content) == "20f87a16287b"
    assert digest(fold_numbers(rows, labels, groups, 5), fold_numbers(rows, labels, single, 3)) == "9f465031bac9"
    assert digest(limited(rows, labels, 100, 2), limited_groups(rows, labels, groups, 100, 2)) == "97266b4b739f"
