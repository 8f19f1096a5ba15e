"""Boxes: scipy's components at one threshold, and one pass that must agree with them at every threshold."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from gapstone.localisation.cam_boxes import Box, box, otsu, scaled, sweep
from gapstone.localisation.iou import boxes_of, iou

SIZES = array_shapes(min_dims=2, max_dims=2, max_side=9)
TIED = arrays(np.float64, SIZES, elements=st.integers(-3, 4).map(float))
FREE = arrays(np.float32, SIZES, elements=st.floats(-8, 8, width=32))
EVERY_TENTH = np.arange(10) / 10


def by_hand(map, threshold, connectivity):
    """Components by walking from pixel to pixel: (x0, y0, x1, y1), area, peak, evidence."""
    fractions = np.maximum(map.astype(np.float64), 0)
    fractions /= fractions.max() or 1
    left = set(zip(*(axis.tolist() for axis in np.nonzero(fractions > threshold)), strict=True))
    found = []
    while left:
        edge, members = [left.pop()], []
        while edge:
            y, x = edge.pop()
            members.append((y, x))
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if connectivity == 8 or not a or not b}
            edge += near & left
            left -= near
        rows, columns = [y for y, _ in members], [x for _, x in members]
        edges = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        values = [fractions[m] for m in members]
        found.append((edges, len(members), max(values), sum(values) / fractions.sum()))
    return sorted(found, key=lambda f: (-f[1], -f[2], f[0][1], f[0][0], f[0][3], f[0][2]))


def test_one_pixel():
    map = np.full((7, 9), -2.0)
    map[2, 5] = 0.5
    assert box(map) == [Box(5, 2, 6, 3, 1, 0.5, 1.0)]
    assert box(map)[0].edges == (5, 2, 6, 3)


def test_the_docstring():
    (found,) = box([[0.0, 0.1, 0.0], [0.0, 0.9, 1.0], [-3.0, 0.0, 0.0]])
    assert found == Box(1.0, 1.0, 3.0, 2.0, 2, 1.0, pytest.approx(0.95))


def test_above_means_above():
    map = np.array([[1.0, 0.2, 0.0, 0.5]])
    assert [b.edges for b in box(map, 0.2, "all")] == [(0, 0, 1, 1), (3, 0, 4, 1)]
    assert [b.edges for b in box(map, 0.19, "all")] == [(0, 0, 2, 1), (3, 0, 4, 1)]
    assert box(map, 0.0)[0].edges == (0, 0, 2, 1)  # 0 keeps all evidence, and only evidence


def test_evidence_against_changes_nothing():
    map = np.array([[0.0, 1.0, 2.0, 4.0, 0.5, 0.0]])
    against = map.copy()
    against[0, 0] = -50
    assert box(map) == box(against)  # stretched from minimum to maximum, everything but the first pixel would be kept
    assert box(map)[0].edges == (1, 0, 4, 1)


def test_corners_join_or_not():
    map = np.eye(3)
    assert [b.edges for b in box(map, which="all")] == [(0, 0, 3, 3)]
    assert [b.edges for b in box(map, which="all", connectivity=4)] == [(0, 0, 1, 1), (1, 1, 2, 2), (2, 2, 3, 3)]


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ([5, 5, 0, 9, 5, 5], 3),  # the larger one
        ([5, 5, 0, 9, 5, 0], 3),  # of two that are equally large, the one with the higher peak
        ([5, 9, 0, 9, 5, 0], 0),  # … or the first
    ],
)
def test_ties(row, first):
    map = np.array([row], float)
    assert box(map)[0].x0 == first == sweep(map, [0.2]).boxes[0, 0]
    above = np.array(row, float)[:, None]  # and the same from above to below
    assert box(above)[0].y0 == first == sweep(above, [0.2]).boxes[0, 1]


@pytest.mark.parametrize("map", [np.zeros((3, 4)), np.full((3, 4), -1.0)])
@pytest.mark.parametrize("threshold", [0.2, "otsu"])
def test_no_evidence_has_no_box(map, threshold):
    assert box(map, threshold, "all") == []
    swept = sweep(map, [0.0, 0.5], against=[(0, 0, 4, 3)])
    assert not swept.boxes.any()
    assert not swept.areas.any()
    assert not swept.components.any()
    assert not swept.best.any()


@settings(max_examples=300, deadline=None)
@given(st.one_of(TIED, FREE), st.sampled_from([0.0, 0.2, 0.5, 0.99]), st.sampled_from([4, 8]))
def test_box_is_what_walking_finds(map, threshold, connectivity):
    expected = by_hand(map, threshold, connectivity)
    found = box(map, threshold, "all", connectivity)
    assert [(b.edges, b.area) for b in found] == [(edges, area) for edges, area, _, _ in expected]
    np.testing.assert_allclose([b.peak for b in found], [peak * map.max() for _, _, peak, _ in expected], rtol=1e-12)
    np.testing.assert_allclose([b.share for b in found], [share for _, _, _, share in expected], rtol=1e-12)
    assert box(map, threshold, connectivity=connectivity) == found[:1]


@settings(max_examples=300, deadline=None)
@given(st.one_of(TIED, FREE), st.sampled_from([4, 8]))
@example(np.array([[5e-324, 5e-324]]), 8)  # half of the smallest number rounds up to itself
def test_one_pass_is_scipy_at_every_threshold(map, connectivity):
    truths = [(0, 0, 3, 2), (1.5, 0.5, 4, 8)]
    swept = sweep(map, EVERY_TENTH, truths, connectivity)
    fractions, _ = scaled(map)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for t, threshold in enumerate(EVERY_TENTH):
        assert swept.components[t] == ndimage.label(fractions > threshold, structure)[1]
        expected = box(map, threshold, "all", connectivity)
        assert tuple(swept.boxes[t]) == (expected[0].edges if expected else (0, 0, 0, 0))
        assert swept.areas[t] == (expected[0].area if expected else 0)
        assert swept.best[t] == max((iou(b, truth) for b in expected for truth in truths), default=0.0)


@pytest.mark.parametrize("size", [(224, 224), (61, 340), (1, 500), (500, 1)])
def test_one_pass_on_large_maps(size):
    rng = np.random.default_rng(0)
    for map in (rng.normal(size=size), ndimage.gaussian_filter(rng.normal(size=size), 9)):
        swept = sweep(map, EVERY_TENTH)
        for t, threshold in enumerate(EVERY_TENTH):
            every = box(map, threshold, "all")
            assert tuple(swept.boxes[t]) == every[0].edges
            assert (swept.areas[t], swept.components[t]) == (every[0].area, len(every))


def test_thresholds_in_any_order():
    map = np.random.default_rng(1).normal(size=(20, 30))
    up, down = sweep(map, EVERY_TENTH), sweep(map, EVERY_TENTH[::-1])
    assert (up.boxes == down.boxes[::-1]).all()
    assert (up.areas == down.areas[::-1]).all()
    assert (sweep(map, [0.3, 0.3]).boxes == up.boxes[[3, 3]]).all()


@settings(max_examples=300, deadline=None)
@given(st.one_of(TIED, FREE))
def test_otsu_is_the_best_of_all_cuts(map):
    fractions, peak = scaled(map)
    positive = fractions[fractions > 0]
    cut = otsu(fractions)

    def apart(t):
        low, high = positive[positive <= t], positive[positive > t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max([0.0, *(apart(t) for t in positive)])
    assert apart(cut) == pytest.approx(best, rel=1e-9, abs=1e-12)
    if peak:
        assert box(map, "otsu")[0].area >= 1


def test_otsu_finds_the_object():
    map = np.full((40, 60), 0.3)
    map[10:20, 30:50] = 2.0
    map += np.random.default_rng(0).normal(scale=0.05, size=map.shape)
    map[:, :3] = -9
    assert box(map, "otsu")[0].edges == (30, 10, 50, 20)
    assert box(np.full((4, 5), 3.0), "otsu")[0].edges == (0, 0, 5, 4)  # nothing to separate


def test_the_map_is_left_alone():
    map = np.random.default_rng(0).normal(size=(6, 8))
    before = map.copy()
    map.setflags(write=False)
    box(map, "otsu", "all")
    sweep(map, EVERY_TENTH)
    assert (map == before).all()
    turned = np.asfortranarray(before)
    assert box(turned) == box(before)
    assert (sweep(before.T, EVERY_TENTH).boxes == sweep(np.ascontiguousarray(before.T), EVERY_TENTH).boxes).all()


@pytest.mark.parametrize("call", [box, lambda map: sweep(map, [0.2])])
@pytest.mark.parametrize(
    ("map", "words"),
    [
        (np.array([[1.0, np.nan]]), "1 of the map's 2 values"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.ones((1, 3, 4)), r"\(1, 3, 4\)"),
        (np.ones((0, 4)), r"\(0, 4\)"),
        (np.ones((2, 2), complex), "complex"),
        ([["a"]], "real"),
    ],
)
def test_what_is_no_map(call, map, words):
    with pytest.raises(ValueError, match=words):
        call(map)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 20, np.nan])
def test_thresholds_are_fractions(threshold):
    with pytest.raises(ValueError, match="fraction"):
        box(np.ones((2, 2)), threshold)
    with pytest.raises(ValueError, match="fraction"):
        sweep(np.ones((2, 2)), [0.5, threshold])


def test_other_mistakes():
    with pytest.raises(ValueError, match="connectivity"):
        box(np.ones((2, 2)), connectivity=6)
    with pytest.raises(ValueError, match="connectivity"):
        sweep(np.ones((2, 2)), [0.2], connectivity=6)
    with pytest.raises(ValueError, match="which"):
        box(np.ones((2, 2)), which="best")
    with pytest.raises(ValueError, match="fraction"):
        sweep(np.ones((2, 2)), [])
    with pytest.raises(ValueError, match="exclusive"):
        sweep(np.ones((2, 2)), [0.2], against=[(0, 0, 1, 1), (1, 1, 1, 2)])


def test_boxes_of():
    found = box(np.eye(3), which="all", connectivity=4)
    assert boxes_of(found).tolist() == [list(b.edges) for b in found]
    for wrong in ([], (1, 2, 3, 4), [(1, 2, 3)], np.zeros((0, 4))):
        with pytest.raises(ValueError, match="at least one"):
            boxes_of(wrong)
    for wrong in ([(3, 0, 1, 2)], [(0, 0, np.nan, 1)], [(0, 0, np.inf, 1)]):
        with pytest.raises(ValueError, match="exclusive"):
            boxes_of(wrong)


def test_iou():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0  # they touch
    assert iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0  # apart in both directions: two negative sides
    assert iou((0, 0, 4, 1), (0.5, 0, 2.5, 1)) == 0.5
    assert iou(Box(0, 0, 2, 2, 3, 1.0, 1.0), np.array([0, 0, 2, 2])) == 1
