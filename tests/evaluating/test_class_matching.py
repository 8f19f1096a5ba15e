"""Classes of DATA and of a model, by name: exact, spelled otherwise, several names of one class, none."""

import pytest

from gapstone.evaluating.class_matching import ClassesError, match_classes
from gapstone.evaluating.measured import short_names

IMAGENET = ("tench, Tinca tinca", "golden retriever", "crane (134)", "crane (517)", "daisy")


def test_by_name_in_any_order():
    found, note = match_classes(("a", "b"), ("b", "c", "a"), "m")
    assert found.tolist() == [2, 0]
    assert note is None


def test_spelled_otherwise():
    found, note = match_classes(("Golden_Retriever", "tinca-tinca", "daisy"), IMAGENET, "timm:x")
    assert found.tolist() == [1, 0, 4]
    assert note == (
        "timm:x spells 2 of the classes otherwise: 'Golden_Retriever' is its 'golden retriever', 'tinca-tinca' is its "
        "'tench, Tinca tinca'."
    )


def test_the_exact_name_goes_before_a_like_one():
    found, _ = match_classes(("a b", "A B"), ("A B", "a b"), "m")
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        (("a", "x", "y"), ("a", "b"), r"m does not know 2 classes of DATA: 'x', 'y'\. It has 2 classes: 'a', 'b'"),
        (("A_b", "c"), ("a b", "a-b", "c"), r"'A_b' could be 'a b', 'a-b' of m"),
        (("Daisy", "DAISY"), IMAGENET, r"classes 'Daisy', 'DAISY' are one class of m, 'daisy'"),
    ],
)
def test_what_cannot_be_matched_is_refused(classes, labels, words):
    with pytest.raises(ClassesError, match=words):
        match_classes(classes, labels, "m")


def test_short_names():
    assert short_names(["x/a.safetensors"]) == ["a.safetensors"]
    assert short_names(["x/m", "y/m", "timm:a/b"]) == ["x/m", "y/m", "timm:a/b"]
    assert short_names(["m", "./m"]) == ["m", "./m"]
