"""Groups, such as patients: how they are named, and that they stay whole in every split and fold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gapstone.data.check_data import check
from gapstone.data.groups import suggestion, suggests_groups
from gapstone.data.open_source import open_source
from gapstone.data.scan import Scan
from gapstone.data.sources import DataError, Grouping, Source
from gapstone.data.split import DataSplit, DataSplitError, folds, split, together
from tests.data.test_split import made

Make = Callable[..., Path]


def table(folder: Path, rows: Sequence[str], header: str = "path,label,Patient ID", name: str = "a.csv") -> str:
    (folder / "1.png").write_bytes(b"")
    (folder / name).write_text("\n".join([header, *rows]), "utf-8")
    return str(folder / name)


def grouped(
    labels: Sequence[int], names: Sequence[str | None], splits: Sequence[str] | None = None
) -> tuple[Source, Scan]:
    source, found = made(labels, splits=splits)
    return replace(source, grouping=Grouping("--group patient", tuple(names))), found


def whole(parts: DataSplit, numbers: np.ndarray) -> bool:
    """No group is in two of the parts."""
    seen = [set(numbers[rows].tolist()) for rows in (parts.train, parts.validation, parts.test)]
    return not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


# --- naming them


def test_a_column_names_groups(tmp_path: Path) -> None:
    rows = ["1.png,a,P1", "2.png,a, P2 ", "3.png,b,P1", "4.png,b,", "5.png,b,"]
    source = open_source(table(tmp_path, rows), group="patient id")
    assert source.grouping is not None
    assert source.grouping.names == ("P1", "P2", "P1", None, None)
    assert source.grouping.numbers.tolist() == [0, 1, 0, 2, 3]  # an empty cell is a group of its own
    assert source.grouping.described == (
        "4 groups by --group patient id, of 1 to 2 images (2 images without a group, each counted as one)"
    )
    assert not any("not read" in note for note in source.notes)


def test_a_pattern_names_groups_across_classes(class_folder: Make) -> None:
    root = class_folder({"a/patient_1": 2, "a/patient_2": 1, "b/patient_1": 1})
    for pattern in (r"patient_(\d+)", r"patient_\d+"):
        grouping = open_source(root, group_pattern=pattern).grouping
        assert grouping is not None
        assert grouping.numbers.tolist() == [0, 0, 1, 0]
        assert grouping.shared_by([0, 0, 0, 1]) == [grouping.names[0]]


def test_an_array_names_groups(tmp_path: Path) -> None:
    images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels, patient=np.arange(6) // 2, weight=np.ones(6))
    source = open_source(tmp_path / "a.npz", group="patient")
    assert source.grouping is not None
    assert source.grouping.names == ("0", "0", "1", "1", "2", "2")
    assert "add --group patient: " in open_source(tmp_path / "a.npz").hints[0]
    with pytest.raises(DataError, match=r"float64 of shape \(6,\) there; expected a whole number"):
        open_source(tmp_path / "a.npz", group="weight")
    with pytest.raises(DataError, match="no column 'who'; it has images, labels, patient, weight"):
        open_source(tmp_path / "a.npz", group="who")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": "pateint"}, "no column 'pateint'; it has path, label, patient id"),
        ({"group_pattern": r"x_(\d)"}, "finds no group in 2 of 3 paths, such as '2.png', '3.png'"),
        ({"group_pattern": "png"}, "all 3 images .* have the same group, 'png'"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": "(a)(b)"}, "2 parts in brackets"),
        ({"group_pattern": "a", "group": "patient id"}, "give one of them"),
    ],
)
def test_what_names_no_groups_is_said(tmp_path: Path, options: dict[str, str], said: str) -> None:
    data = table(tmp_path, ["x_1.png,a,1", "2.png,b,1", "3.png,b,2"])
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=said):
        open_source(data, **options)


def test_folders_have_no_columns_and_arrays_no_paths(class_folder: Make) -> None:
    with pytest.raises(DataError, match="is no table and has no columns"):
        open_source(class_folder({"a": 1, "b": 1}), group="patient")
    with pytest.raises(DataError, match="have no paths"):
        open_source("digits", group_pattern=r"\d")


def test_groups_of_one_image_are_said(class_folder: Make) -> None:
    source = open_source(class_folder({"a": 2, "b": 1}), group_pattern=".*")
    assert source.notes == ("--group-pattern '.*': every image is a group of its own, so it changes nothing",)


# --- a hint where nobody named them


def test_columns_that_suggest_groups() -> None:
    assert all(map(suggests_groups, ("group", "Patient", "patient_id", "subject", "Case No", "session", "pid")))
    assert not any(map(suggests_groups, ("age", "path", "label", "id", "patient_age", "grouped", "split", "caseload")))


def hint(names: Sequence[str], labels: Sequence[int]) -> str | None:
    source, _ = made(labels)
    items = [replace(item, name=name) for item, name in zip(source.items, names, strict=True)]
    return suggestion(replace(source, items=items))[1]


def test_paths_that_suggest_groups() -> None:
    labels = [0, 0, 0, 1, 1, 1]
    several = [f"{'ab'[k]}/patient_{i // 2:03d}_{i}.png" for i, k in enumerate(labels)]
    assert "add --group-pattern 'patient_(\\d+)'" in (hint(several, labels) or "")
    assert hint([f"a/patient_{i}.png" for i in range(6)], labels) is None  # one image each
    assert hint([*several[:5], "b/other.png"], labels) is None  # does not fit all
    assert hint([f"impatient_{i // 2}_{i}.png" for i in range(6)], labels) is None
    assert hint([f"case_{i}/{j}.png" for i in range(3) for j in range(2)], [0, 0, 1, 1, 2, 2]) is None  # the classes


def test_a_column_is_suggested_where_it_fits(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{i // 3}" for i in range(12)]
    source = open_source(table(tmp_path, rows))
    assert source.hints == (
        "Do images belong together (column 'patient id', 4 of them)? Then add --group 'patient id': they stay on one "
        "side of the split, and verdicts count them instead of images.",
    )
    assert source.notes == ()
    alone = open_source(table(tmp_path, [f"{i}.png,{'ab'[i % 2]},{i}" for i in range(12)]))
    assert alone.hints == ()
    assert alone.notes == ("column 'patient id' is not read (path, label and split are)",)


# --- whole in every part

LABELS = [0] * 120 + [1] * 80
PATIENTS = [f"p{i // 5}" for i in range(200)]


def test_groups_are_whole_in_splits_folds_and_limits() -> None:
    source, found = grouped(LABELS, PATIENTS)
    numbers = together(source, found)
    for parts in (
        *(split(source, found, seed=seed) for seed in range(3)),
        split(source, found, limit=70),
        *folds(source, found, 4),
        *folds(source, found, 4, limit=60),
    ):
        assert whole(parts, numbers)
        assert len(parts.validation) > 0
        for rows in (parts.train, parts.validation, parts.test):
            assert np.unique(source.labels[rows]).tolist() == [0, 1]
    limited = split(source, found, limit=70)
    assert 55 <= len(limited.train) + len(limited.validation) <= 70
    sizes = np.unique(numbers[limited.test], return_counts=True)[1]
    assert (sizes == 5).all()
    tested = np.concatenate([parts.test for parts in folds(source, found, 4)])
    assert sorted(tested) == list(range(200))
    assert "chosen by the names of their groups" in split(source, found).described


def test_todays_test_groups_stay_tomorrow() -> None:
    """Images that are added, to old groups and to new ones, move no group; nor do other pixels."""
    labels, names = [i % 2 for i in range(400)], [f"p{i // 4}" for i in range(400)]
    source, found = grouped(labels, names)
    before = {names[i] for i in split(source, found).test}
    more_labels, more_names = [*labels, *[0, 1] * 50], [*names, *["p3"] * 7, *[f"q{i // 4}" for i in range(93)]]
    more, more_found = grouped(more_labels, more_names)
    more_found = replace(
        more_found, facts=tuple(replace(f, sha256=f"other {i}") for i, f in enumerate(more_found.facts))
    )
    after = {more_names[i] for i in split(more, more_found).test}
    assert 10 <= len(before) <= 35
    assert {name for name in after if name.startswith("p")} == before


def test_five_groups_of_a_class_are_tested_where_there_are_ten() -> None:
    for shift in range(30):
        source, found = grouped(LABELS, [f"{shift} {i // 8}" for i in range(200)])  # 15 and 10 groups
        parts, numbers = split(source, found), together(source, found)
        for k in (0, 1):
            tested = parts.test[source.labels[parts.test] == k]
            trained = np.setdiff1d(np.flatnonzero(source.labels == k), tested)
            assert len(np.unique(numbers[tested])) >= 5
            assert len(np.unique(numbers[trained])) >= 5
    source, found = grouped([0] * 40 + [1] * 24, [f"p{i // 4}" for i in range(64)])  # 10 and 6
    tested = split(source, found).test
    assert len({i // 4 for i in tested if i >= 40}) in (3, 4)


def test_duplicates_join_groups() -> None:
    """A picture of patient 0 that is a copy of one of patient 9: both are on the same side."""
    source, found = grouped(LABELS, PATIENTS)
    copies = np.arange(200)
    copies[47] = 2
    found = replace(found, group=copies)
    numbers = together(source, found)
    assert numbers[0] == numbers[47] == numbers[49] != numbers[5]
    assert len(np.unique(numbers)) == 39
    assert all(whole(split(source, found, seed=seed), numbers) for seed in range(3))
    assert len(np.unique(together(source, found, "keep"))) == 40


def test_images_of_held_out_groups_are_dropped_from_train() -> None:
    splits = ["train"] * 60 + ["test"] * 40
    names = [f"p{i // 5}" for i in range(55)] + ["p20"] * 5 + [f"p{i // 5}" for i in range(60, 100)]
    source, found = grouped([i % 2 for i in range(100)], names, splits)
    parts = split(source, found)
    assert "5 images of held-out groups dropped from train" not in parts.described
    names[56:60] = ["p13"] * 4
    source, found = grouped([i % 2 for i in range(100)], names, splits)
    parts = split(source, found)
    assert "; 4 images of held-out groups dropped from train" in parts.described
    assert parts.dropped.tolist() == [56, 57, 58, 59]
    assert whole(parts, source.grouping.numbers if source.grouping else np.empty(0))
    assert parts.test.tolist() == list(range(60, 100))


def test_a_class_of_one_group_cannot_be_split() -> None:
    source, found = grouped([0] * 10 + [1] * 10, ["a"] * 10 + ["b"] * 10)
    with pytest.raises(DataSplitError, match="With --group patient each of them is one group, and a group stays on"):
        split(source, found)
    source, found = grouped([0] * 10 + [1] * 10, ["a"] * 10 + [f"b{i // 2}" for i in range(10)])
    with pytest.raises(DataSplitError, match=r"stays on one side.* Name smaller groups"):
        split(source, found)


def test_a_giant_group_is_trained_on() -> None:
    names = ["giant"] * 150 + [f"p{i // 2}" for i in range(150, 200)]
    source, found = grouped([i % 2 for i in range(200)], names)
    parts = split(source, found)
    assert {names[i] for i in parts.train} >= {"giant"}
    assert "but up to 150 images of a group stay together" in parts.described


def test_a_limit_below_whole_groups_is_refused() -> None:
    source, found = grouped(LABELS, PATIENTS)
    with pytest.raises(DataSplitError, match="--limit 12: groups stay whole, and 2 groups of each class are 20 images"):
        split(source, found, limit=12)


def test_check_says_what_groups_there_are(
    class_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folder({"train/a/p1": 3, "train/a/p2": 1, "train/b/p1": 2, "test/a/p2": 1, "test/b/p3": 2})
    found = check(str(root), tmp_path / "out", group_pattern=r"/(p\d)/")
    assert found.to_json()["groups"] == {
        "by": r"--group-pattern '/(p\d)/'",
        "groups": 3,
        "images": [2, 2.0, 5],
        "ungrouped": 0,
        "of_class": [2, 2],
        "several_classes": ["p1"],
        "across_splits": ["p2"],
    }
    said = capsys.readouterr().out
    assert "3 groups by --group-pattern '/(p\\d)/', of 2 to 5 images" in said
    assert "of one class: 2; of several: 1" in said
    assert "groups in more than one of train and test: 1" in said
