"""A map lands where its cells look: values at true centres, nothing where the network did not look."""

import numpy as np
import pytest

from gapstone.drawing.upsample import upsample
from gapstone.tracing.placement import Placement

RESNET = Placement((32.0, 32.0), (0.0, 0.0), ((0, 224), (0, 224)), exact=True)
CROP = Placement((10.0, 8.0), (12.0, 25.5), ((8, 40), (20, 60)), exact=True)


@pytest.mark.parametrize("how", ["smooth", "cells"])
def test_a_hot_cell_is_at_its_centre(how):
    map = np.zeros((7, 7), np.float32)
    map[2, 5] = 3
    placed = upsample(map, RESNET, (224, 224), how)
    assert placed.shape == (224, 224)
    assert placed.dtype == np.float32
    rows, columns = np.nonzero(placed == 3)
    assert (rows.mean(), columns.mean()) == ((64, 160) if how == "smooth" else (63.5, 159.5))
    assert placed[64, 160] == 3
    assert placed.sum() == pytest.approx(3 * 32 * 32)


def test_smooth_is_exact_at_the_centres_and_linear_between():
    map = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    placed = upsample(map, RESNET, (224, 224))
    np.testing.assert_array_equal(placed[::32, ::32], map)
    np.testing.assert_allclose(placed[32:64, 96], np.linspace(map[1, 3], map[2, 3], 32, endpoint=False), rtol=1e-5)
    middle = map[3:5, 1:3].mean()
    assert placed[112, 48] == pytest.approx(middle, rel=1e-5)
    np.testing.assert_array_equal(placed[192:, 0], map[6, 0])  # constant beyond the last centre


def test_smooth_agrees_with_a_pixel_by_pixel_sum():
    rng = np.random.default_rng(1)
    map = rng.normal(size=(3, 4)).astype(np.float32)
    placed = upsample(map, CROP, (50, 70))
    expected = np.zeros((50, 70))
    for y in range(8, 40):
        for x in range(20, 60):
            i, j = np.clip((y - 12) / 10, 0, 2), np.clip((x - 25.5) / 8, 0, 3)
            for r in range(3):
                for c in range(4):
                    expected[y, x] += map[r, c] * max(0, 1 - abs(i - r)) * max(0, 1 - abs(j - c))
    np.testing.assert_allclose(placed, expected, atol=1e-5)


def test_cells_are_their_rectangles():
    map = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    placed = upsample(map, CROP, (50, 70), "cells")
    assert set(np.unique(placed)) == {*range(13)}
    down, across = CROP.edges(3, 0), CROP.edges(4, 1)  # 8 17.5 27.5 40; 20 30 38 46 60
    for y in range(8, 40):
        for x in range(20, 60):
            row, column = (down <= y + 0.5).sum() - 1, (across <= x + 0.5).sum() - 1
            assert placed[y, x] == map[row, column], (y, x)


@pytest.mark.parametrize("how", ["smooth", "cells"])
@pytest.mark.parametrize("cells", [(1, 1), (3, 4)])
def test_nothing_outside_what_was_seen(how, cells):
    placed = upsample(np.ones(cells), CROP, (50, 70), how)
    inside = np.zeros((50, 70), bool)
    inside[8:40, 20:60] = True
    np.testing.assert_array_equal(placed, inside.astype(np.float32))


def test_what_was_seen_may_end_within_a_pixel_or_beyond_the_picture():
    """A pixel belongs to what was seen if its centre does."""
    placement = Placement((2.0, 2.0), (0.0, 0.0), ((0.6, 3.4), (-5.0, 9.0)), exact=True)
    placed = upsample(np.ones((2, 2)), placement, (4, 4))
    np.testing.assert_array_equal(placed, [[0] * 4, [1] * 4, [1] * 4, [0] * 4])


@pytest.mark.parametrize("how", ["smooth", "cells"])
def test_many_maps_at_once(how):
    maps = np.random.default_rng(2).normal(size=(2, 5, 3, 4)).astype(np.float32)
    together = upsample(maps, CROP, (50, 70), how)
    assert together.shape == (2, 5, 50, 70)
    for i in range(2):
        for k in range(5):
            np.testing.assert_allclose(together[i, k], upsample(maps[i, k], CROP, (50, 70), how), atol=1e-6)


def test_the_argument_stays_as_it_was():
    map = np.ones((3, 4))
    map.flags.writeable = False
    upsample(map, CROP, (50, 70))
    upsample(map, CROP, (50, 70), "cells")[:] = 0
    assert map.all()


@pytest.mark.parametrize(
    ("map", "placement", "size", "how", "words"),
    [
        (np.ones(3), CROP, (9, 9), "smooth", "a map is"),
        (np.ones((0, 3)), CROP, (9, 9), "smooth", "at least 1×1"),
        (np.ones((2, 3), bool), CROP, (9, 9), "smooth", "numbers"),
        (np.ones((2, 3), complex), CROP, (9, 9), "smooth", "numbers"),
        (np.array([[np.nan]]), CROP, (9, 9), "smooth", "NaN"),
        (np.array([[-np.inf]]), CROP, (9, 9), "cells", "infinity"),
        (np.ones((2, 3)), CROP, (9,), "smooth", "size"),
        (np.ones((2, 3)), CROP, (9, 0), "smooth", "size"),
        (np.ones((2, 3)), CROP, (9, 9), "bicubic", "one of smooth, cells"),
        (
            np.ones((2, 3)),
            Placement((0.0, 8.0), (0.0, 0.0), ((0, 9), (0, 9)), True),
            (9, 9),
            "smooth",
            "strides above 0",
        ),
        (np.ones((2, 3)), Placement((8.0,), (0.0,), ((0, 9),), True), (9, 9), "smooth", "two axes"),
    ],
)
def test_bad_input(map, placement, size, how, words):
    with pytest.raises(ValueError, match=words):
        upsample(map, placement, size, how)
