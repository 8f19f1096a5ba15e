"""Splits: stratified, groups together, the test set locked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gapstone.data.carve import by_content
from gapstone.data.image_info import ImageInfo
from gapstone.data.scan import Scan
from gapstone.data.sources import Item, Source
from gapstone.data.split import DataSplit, DataSplitError, carve_validation, folds, split


def made(
    labels: Sequence[int],
    groups: Sequence[int] | None = None,
    splits: Sequence[str | None] | None = None,
    bad: Sequence[int] = (),
) -> tuple[Source, Scan]:
    n = len(labels)
    splits = splits or [None] * n
    classes = tuple(f"c{k}" for k in range(max(labels) + 1))
    items = [Item(f"{i}.png", (labels[i],), splits[i], Path(f"{i}.png"), i) for i in range(n)]  # type: ignore[arg-type]
    source = Source("made", "split folder" if splits[0] else "folder", classes, items)
    facts = tuple(ImageInfo("broken" if i in bad else None, str(i), (8, 8), "L") for i in range(n))
    found = Scan(
        "made",
        source.kind,
        classes,
        tuple(i.name for i in items),
        source.labels,
        tuple(splits),
        facts,
        [],
        [],
        np.asarray(groups if groups is not None else range(n), np.int64),
    )
    return source, found


def whole(s: DataSplit) -> np.ndarray:
    return np.sort(np.concatenate([s.train, s.validation, s.test]))


LABELS = [0] * 100 + [1] * 50 + [2] * 10


def test_shares_hold_in_every_class() -> None:
    source, found = made(LABELS)
    s = split(source, found)
    assert np.array_equal(whole(s), np.arange(160))
    tested, left = np.bincount(source.labels[s.test]), np.bincount(source.labels) - np.bincount(source.labels[s.test])
    assert (abs(tested - [20, 10, 2]) <= [12, 9, 4]).all()  # three standard deviations of a binomial number
    assert min(tested) > 0
    assert np.bincount(source.labels[s.validation]).tolist() == np.round(0.1 * left).astype(int).tolist()


def test_test_images_are_a_fifth_on_average() -> None:
    source, found = made([0] * 20_000 + [1] * 20_000)
    tested = np.bincount(source.labels[split(source, found).test])
    assert abs(tested - 4000).max() < 4 * np.sqrt(20_000 * 0.16)
    half = np.bincount(source.labels[split(source, found, test_share=0.5).test])
    assert abs(half - 10_000).max() < 4 * np.sqrt(20_000 * 0.25)


def test_more_images_leave_the_test_images_where_they_are() -> None:
    """New ones between the old ones, in new classes, as copies of old ones; and images that go."""
    labels = [i % 3 for i in range(300)]
    before, scanned = made(labels)
    first = {scanned.facts[i].sha256 for i in split(before, scanned).test.tolist()}
    more, found = made([0] * 200 + labels + [3] * 50)
    names = [f"new {i}" for i in range(200)] + [str(i) for i in range(300)] + [f"later {i}" for i in range(50)]
    found = replace(found, facts=tuple(replace(f, sha256=s) for f, s in zip(found.facts, names, strict=True)))
    tested = {names[i] for i in split(more, found).test.tolist()}
    assert {name for name in tested if name.isdigit()} == first
    fewer, part = made(labels[:150])
    assert {part.facts[i].sha256 for i in split(fewer, part).test.tolist()} == {s for s in first if int(s) < 150}
    # a copy of a test image, to the byte, joins it
    image = int(min(first, key=int))
    copied, both = made([*labels, labels[image]], [*range(300), image])
    both = replace(both, facts=(*both.facts[:-1], both.facts[image]))
    assert [both.facts[i].sha256 for i in split(copied, both).test.tolist()] == [*sorted(first, key=int), str(image)]


def test_a_small_class_is_tested_and_trained_on() -> None:
    for shift in range(40):
        labels = [0] * 50 + [1] * 2 + [2] * 3
        source, found = made(labels)
        found = replace(found, facts=tuple(replace(f, sha256=f"{shift} {f.sha256}") for f in found.facts))
        keys = [f.sha256 for f in found.facts]
        for share in (0.2, 0.9):
            rest, part = by_content(np.arange(55), source.labels, found.group, keys, share)
            for indices in (rest, part):
                assert np.bincount(source.labels[indices], minlength=3).min() > 0
            assert sorted([*rest, *part]) == list(range(55))


def test_the_test_set_is_locked_and_validation_follows_the_seed() -> None:
    source, found = made(LABELS)
    a, b, again = split(source, found, seed=0), split(source, found, seed=1), split(source, found, seed=0)
    assert np.array_equal(a.test, b.test)
    assert not np.array_equal(a.validation, b.validation)
    assert np.array_equal(a.validation, again.validation)


def test_groups_stay_together() -> None:
    groups = [i // 3 for i in range(160)]  # some of them hold two classes
    source, found = made(LABELS, groups)
    for s in [split(source, found, seed=3), *folds(source, found, 4)]:
        parts = [set(found.group[p].tolist()) for p in (s.train, s.validation, s.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert np.array_equal(whole(s), np.arange(160))
    assert abs(len(split(source, found).test) - 32) <= 6


def test_a_class_of_large_groups_is_tested_too() -> None:
    source, found = made([0] * 30 + [1] * 30, [0] * 15 + [1] * 15 + list(range(2, 32)))
    s = split(source, found, validation_share=0.1)
    assert np.bincount(source.labels[s.test]).tolist()[0] == 15
    assert len(s.train) > 0


def test_given_splits_are_used_as_they_are() -> None:
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    labels = [i % 2 for i in range(60)]
    source, found = made(labels, None, splits)
    s = split(source, found, seed=5)
    assert (s.train.tolist(), s.validation.tolist(), s.test.tolist()) == (
        list(range(40)),
        list(range(40, 50)),
        list(range(50, 60)),
    )
    source, found = made(labels, None, ["train"] * 40 + ["val"] * 20)
    s = split(source, found)
    assert s.test.tolist() == list(range(40, 60))
    assert len(s.validation) == 4
    assert "val is the locked test set" in s.described


def test_copies_of_held_out_images_leave_train() -> None:
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    groups = list(range(60))
    groups[50] = groups[0]  # in train and in test
    groups[41] = groups[1]  # in train and in val
    groups[51] = groups[42]  # in val and in test
    source, found = made([i % 2 for i in range(60)], groups, splits)
    s = split(source, found)
    assert s.dropped.tolist() == [0, 1, 42]
    assert len(s.test) == 10
    assert not {0, 1, 42} & set(whole(s).tolist())
    assert "3 images" in s.described


def test_only_train_is_given() -> None:
    source, found = made(LABELS, None, ["train"] * 160)
    s = split(source, found)
    assert np.array_equal(s.test, split(*made(LABELS)).test)
    tested, checked = len(s.test), len(s.validation)
    assert s.described == (
        f"all images are given as train: {tested} of 160 images ({100 * tested / 160:.0f} %) chosen by their content "
        f"as the locked test set; {checked} of the other {160 - tested} images (10 %) for validation, chosen anew for "
        f"each seed"
    )


@pytest.mark.parametrize("gone", ["val", "test"])
def test_a_given_split_of_unusable_images_is_refused(gone: str) -> None:
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    source, found = made([i % 2 for i in range(60)], None, splits, bad=[i for i in range(60) if splits[i] == gone])
    with pytest.raises(DataSplitError, match=f"no usable {gone} images"):
        split(source, found)


def test_near_copies_never_empty_a_given_split() -> None:
    """60 X-rays that look alike to a machine: what is given stays; a few real copies go."""
    splits = ["train"] * 40 + ["test"] * 20
    labels = [i % 2 for i in range(60)]
    groups = [1 if i % 2 else i for i in range(60)]  # all of class 1 in one group
    groups[40] = groups[2]  # and one copy in class 0
    source, found = made(labels, groups, splits)
    s = split(source, found)
    assert s.dropped.tolist() == [2]
    assert len(s.train) + len(s.validation) == 39
    assert "20 images kept though a held-out image is nearly the same" in s.described


def test_exact_copies_are_dropped_whatever_is_left() -> None:
    source, found = made([0, 1] * 20, [i % 20 for i in range(40)], ["train"] * 20 + ["test"] * 20)
    found = replace(found, exact_duplicates=[[i, i + 20] for i in range(20)])
    with pytest.raises(DataSplitError, match=r"0 to train, 10 to test.*20 images dropped from train"):
        split(source, found)
    assert len(split(source, found, duplicates="keep").train) == 18


def test_what_is_said_is_what_happened() -> None:
    groups = [0] * 50 + list(range(50, 160))  # half a class is one group
    source, found = made(LABELS, groups)
    s = split(source, found)
    test, held = len(s.test), len(s.train) + len(s.validation)
    assert f"{test} of 160 images ({round(100 * test / 160)} %)" in s.described
    assert f"{len(s.validation)} of the other {held} images" in s.described
    source, found = made([0] * 60 + [1] * 60, [0] * 50 + list(range(50, 120)))
    s = split(source, found)
    assert len(s.test) < 24 or "was meant, but up to 50 duplicates stay together" in s.described


def test_duplicates_kept_or_dropped() -> None:
    groups = [i // 2 for i in range(160)]
    source, found = made(LABELS, groups)
    kept = split(source, found, duplicates="keep")
    assert np.array_equal(kept.test, split(*made(LABELS)).test)
    assert "count as any other image, as asked" in kept.described
    dropped = split(source, found, duplicates="drop")
    assert whole(dropped).tolist() == list(range(0, 160, 2))
    assert "80 images left out as duplicates" in dropped.described
    assert len(np.unique(np.concatenate([f.test for f in folds(source, found, 5, duplicates="drop")]))) == 80
    source, found = made([0, 1] * 20, [i % 20 for i in range(40)], ["train"] * 20 + ["test"] * 20)
    with pytest.raises(DataSplitError, match="no usable train images"):
        split(source, found, duplicates="drop")


def test_what_the_scan_excludes_is_nowhere() -> None:
    source, found = made(LABELS, bad=[0, 1, 159])
    found = replace(found, exact_duplicates=[[99, 100]])  # one picture, two labels
    for s in [split(source, found), *folds(source, found, 3)]:
        assert not {0, 1, 159, 99, 100} & set(whole(s).tolist())
    assert "5 unusable" in split(source, found).described


def test_limit() -> None:
    source, found = made(LABELS)
    s = split(source, found, limit=20)
    assert len(s.train) + len(s.validation) == 20
    assert len(s.test) == 20
    counts = np.bincount(source.labels[np.concatenate([s.train, s.validation])])
    assert counts[0] > counts[1] > counts[2] >= 1
    assert np.array_equal(s.test, split(source, found, limit=20, seed=9).test)
    assert np.array_equal(whole(s), whole(split(source, found, limit=20, seed=9)))
    with pytest.raises(DataSplitError, match="--limit 2"):
        split(source, found, limit=2)


def test_folds_test_every_image_once() -> None:
    source, found = made(LABELS)
    parts = folds(source, found, 5, seed=2)
    assert np.array_equal(np.sort(np.concatenate([p.test for p in parts])), np.arange(160))
    assert all(np.bincount(source.labels[p.test]).tolist() == [20, 10, 2] for p in parts)
    other = folds(source, found, 5, seed=3)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(parts, other, strict=True))


def test_carve_validation_leaves_something_to_learn() -> None:
    labels = np.asarray([0] * 10 + [1] * 2)
    groups = np.asarray([*range(10), 10, 10])
    train, validation = carve_validation(np.arange(12), labels, groups, 0, 0.5)
    assert np.bincount(labels[train]).tolist() == [5, 2]
    assert np.bincount(labels[validation], minlength=2).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("labels", "groups"),
    [([0] * 20 + [1], None), ([0] * 20 + [1] * 2, None), ([0] * 20 + [1] * 8, [*range(20)] + [20] * 8)],
)
def test_too_few_images(labels: list[int], groups: list[int] | None) -> None:
    source, found = made(labels, groups)
    with pytest.raises(DataSplitError, match=r"too few different images.*'c1'"):
        split(source, found)


def test_shares_that_make_no_sense() -> None:
    with pytest.raises(DataSplitError, match=r"test_share=1\.5"):
        split(*made(LABELS), test_share=1.5)
    with pytest.raises(DataSplitError, match="folds=1"):
        folds(*made(LABELS), 1)
