"""Options that cannot be, and which classes are meant."""

import pytest

from gapstone.explaining.explain_request import ExplainRequest, indexes

LABELS = ("cat", "dog", "tench, Tinca tinca", "7", "crane", "crane")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("dog,cat", [1, 0]),
        ("cat, dog , cat", [0, 1]),
        ("tench, Tinca tinca", [2]),
        ("dog,tench, Tinca tinca,cat", [1, 2, 0]),
        ("0,1", [0, 1]),
        ("7", [3]),  # the label before the index
        ("4,5", [4, 5]),
    ],
)
def test_labels_and_indexes(asked, expected):
    assert indexes(asked, LABELS) == expected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("dgo", r"no such label; the model knows 6 classes. Close to it: dog\."),
        ("CAT", "Close to it: cat"),
        ("Tinca", "Close to it: tench, Tinca tinca"),
        ("zzzzzz", "Among them: cat, dog"),
        ("99", "with the indexes 0 to 5"),
        ("crane", r"2 classes are called so; give the index: \[4, 5\]"),
        ("cat,,dog", "an empty name"),
        ("", "an empty name"),
    ],
)
def test_what_is_no_class_is_told_with_what_comes_close(asked, says):
    with pytest.raises(ValueError, match=says):
        indexes(asked, LABELS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top": 0}, "--top 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"alpha": 0.0}, "--alpha 0"),
        ({"alpha": 1.5}, r"--alpha 1\.5"),
        ({"box": "1"}, "--box 1: a share of the map's maximum"),
        ({"box": "big"}, "--box big"),
        ({"box": "nan"}, "--box nan"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(ValueError, match=says):
        ExplainRequest("m.safetensors", ("a.png",), **options)


def test_boxes():
    assert [ExplainRequest("m", (), box=box).threshold for box in ("0.2", "otsu", "none")] == [0.2, "otsu", None]
