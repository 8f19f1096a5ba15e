"""Classes as they are asked for, and notes of an earlier run of which a kill left anything."""

import json
from types import SimpleNamespace

import pytest

from gapstone.explaining.explain_folder import DRAWN, FILES, ExplainFolder, unique_name
from gapstone.explaining.explain_request import ExplainRequest, indexes

LABELS = ("cat", "dog", "tench, Tinca tinca", "1", "twin", "twin")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("dog", [1]),
        ("dog,0", [1, 0]),
        ("0,0,cat", [0]),
        ("1", [3]),  # called so
        ("2", [2]),
        ("5", [5]),
        (" tench, Tinca tinca ,cat", [2, 0]),
        ("4,5", [4, 5]),
    ],
)
def test_classes_that_are_meant(asked, found):
    assert indexes(asked, LABELS) == found


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("twin", r"2 classes are called so; give the index: \[4, 5\]"),
        ("6", "with the indexes 0 to 5"),
        ("", "an empty name"),
        ("cat,,dog", "an empty name"),
        ("dgo", "Close to it: dog"),
        ("TENCH", "Close to it: tench, Tinca tinca"),
        ("-1", "no such label"),
        ("zebra", "Among them: cat, dog"),
    ],
)
def test_classes_that_are_none(asked, words):
    with pytest.raises(ValueError, match=words):
        indexes(asked, LABELS)


def test_lines_that_are_no_notes_are_passed_over(tmp_path):
    """Cut short by a kill, or damaged: each costs a look at one file."""
    ExplainFolder(tmp_path)
    good = ["a.jpg", 3, 4, "abc"]
    junk = [
        "",
        "{",
        "[]",
        '"a"',
        "null",
        "3",
        '{"a": 1}',
        '["a.jpg", 3, 4]',
        '["a.jpg", "3", 4, "abc"]',
        json.dumps(good)[:-3],
    ]
    looked = ExplainFolder(tmp_path).records
    (looked / FILES).write_text("\n".join([*junk, json.dumps(good), *junk]))
    (looked / DRAWN).write_text("\n".join([*junk, json.dumps(["maps/a.png", "key", "sha"]), *junk]))
    found = ExplainFolder(tmp_path)
    assert found._files == {"a.jpg": (3, 4, "abc")}
    assert found._drawings == {"maps/a.png": ("key", "sha")}
    assert found.damaged == []


def test_what_was_read_is_known_until_it_changes(tmp_path):
    (tmp_path / "out").mkdir()
    out = ExplainFolder(tmp_path / "out")
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    status = path.stat()
    out.add_files([(path, (status.st_size, status.st_mtime_ns), "sha")])
    assert out.cached_sha256(path) == ExplainFolder(tmp_path / "out").cached_sha256(path) == "sha"
    size = (out.records / FILES).stat().st_size
    out.add_files([(path, (status.st_size, status.st_mtime_ns), "sha")])
    assert (out.records / FILES).stat().st_size == size  # nothing new, nothing written
    path.write_bytes(b"other")
    assert out.cached_sha256(path) is None
    assert out.cached_sha256(tmp_path / "gone.jpg") is None


def test_a_drawn_picture_is_believed_where_its_key_and_its_bytes_are_the_same(tmp_path):
    out = ExplainFolder(tmp_path)
    path = out.maps / "a.png"
    assert not out.has_drawn(path, "key")
    out.write_drawing(path, "key", b"picture")
    assert out.has_drawn(path, "key")
    assert not out.has_drawn(path, "other key")
    path.unlink()
    assert not out.has_drawn(path, "key")
    assert out.damaged == []
    path.write_bytes(b"another")
    assert not out.has_drawn(path, "key")
    assert len(out.damaged) == 1


def test_names_of_pictures(tmp_path):
    assert unique_name(tmp_path / "cat dog.jpg").startswith("cat_dog-")
    assert unique_name(tmp_path / "....jpg").startswith("picture-")
    assert unique_name(tmp_path / "a" / "x.jpg") != unique_name(tmp_path / "b" / "x.jpg")


@pytest.mark.parametrize(
    ("box", "threshold"), [("none", None), ("otsu", "otsu"), ("0", 0.0), ("0.2", 0.2), ("0.999", 0.999)]
)
def test_what_a_box_must_be_above(box, threshold):
    assert ExplainRequest.threshold.fget(SimpleNamespace(box=box)) == threshold  # type: ignore[attr-defined]


@pytest.mark.parametrize("box", ["1", "-0.1", "nan", "all", ""])
def test_boxes_that_make_no_sense(box):
    with pytest.raises(ValueError, match="--box"):
        ExplainRequest.threshold.fget(SimpleNamespace(box=box))  # type: ignore[attr-defined]
