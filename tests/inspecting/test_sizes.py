"""Sizes are found by asking, and what is said of them is true of sizes that were not asked."""

import pytest

from gapstone.inspecting.input_sizes import InputSizes, legal_sizes, sides_with_equal_maps


@pytest.mark.parametrize(
    ("takes", "size", "says"),
    [
        (lambda h, w: True, (224, 224), "any side ≥ 1 px"),
        (lambda h, w: min(h, w) >= 33, (224, 224), "any side ≥ 33 px"),
        (lambda h, w: min(h, w) >= 33, (33, 33), "any side ≥ 33 px"),
        (lambda h, w: min(h, w) >= 33, (160, 90), "any side ≥ 33 px"),
        (lambda h, w: h == w == 224, (224, 224), "224×224 px only"),
        (lambda h, w: (h, w) == (224, 160), (224, 160), "224×160 px only"),
        (lambda h, w: h % 32 == w % 32 == 0, (224, 224), "multiples of 32 px only"),
        (lambda h, w: h % 32 == w % 32 == 0 and min(h, w) >= 96, (224, 224), "multiples of 32 px from 96×96 px on"),
        (lambda h, w: h % 8 == w % 8 == 5 and h > 20, (29, 29), "21×21 px and 8 px steps"),
        (lambda h, w: h % 32 in (0, 31) and w % 32 in (0, 31), (224, 224), "multiples of 32 px, up to 1 px less"),
        (lambda h, w: h % 32 < 3 and w % 32 < 3, (224, 224), "multiples of 32 px, up to 2 px more"),
        (lambda h, w: 193 <= h <= 224 and 193 <= w <= 224, (224, 224), "sides 193–224 px"),
        (lambda h, w: 224 <= h <= 255 and 224 <= w <= 255, (224, 224), "sides 224–255 px"),
        (lambda h, w: h == w >= 7, (28, 28), "any side ≥ 7 px, squares only"),
        (lambda h, w: h == w and h % 56 == 0, (224, 224), "multiples of 56 px only, squares only"),
    ],
)
def test_what_is_said_of_sizes(takes, size, says):
    assert str(legal_sizes(takes, size)) == says


def test_a_gap_near_the_smallest_is_found():
    """1 px works, 2 and 3 do not: halving alone would have said 1."""
    assert legal_sizes(lambda h, w: min(h, w) == 1 or min(h, w) > 3, (64, 64)).smallest == (4, 4)


def test_few_sizes_are_asked():
    asked = []
    legal_sizes(lambda h, w: asked.append((h, w)) or min(h, w) >= 33, (224, 224))
    assert len(asked) == len(set(asked)) < 30


@pytest.mark.parametrize("stride", [1, 2, 8, 32])
@pytest.mark.parametrize("side", [31, 64, 224])
def test_sides_that_give_as_many_cells(stride, side):
    for cells in (lambda n: (-(-n // stride),), lambda n: (n // stride,) if n >= stride else None):
        if cells(side) is None:
            continue
        low, high = sides_with_equal_maps(cells, side, stride)
        assert low <= side <= high
        assert {cells(n) for n in range(low, high + 1)} == {cells(side)}
        assert cells(low - 1) != cells(side) != cells(high + 1) or low == 1


def test_only_what_has_no_end_takes_everything():
    assert InputSizes("sides", (1, 1)).everything
    assert not InputSizes("sides", (1, 1), 30).everything
    assert not InputSizes("sides", (1, 1), squares=True).everything
    assert not InputSizes("only", (1, 1)).everything
