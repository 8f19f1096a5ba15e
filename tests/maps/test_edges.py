"""The guards and edges of this room: classes that are asked for, boxes, thresholds, and where cells end."""

import numpy as np
import pytest
import torch

from gapstone.localisation.cam_boxes import box, otsu, scaled, sweep
from gapstone.localisation.iou import Box, boxes_of, iou, ious
from gapstone.localisation.scores import Localisation
from gapstone.maps.targets import class_number, select_classes
from gapstone.tracing.placement import Placement

LOGITS = torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.1, 0.2, 0.3]])
LABELS = ("cat", "dog", "2", "owl")


# ---- classes


@pytest.mark.parametrize(
    ("classes", "labels", "rows"),
    [
        (1, None, [[1], [1]]),
        ([3, 0], None, [[3, 0], [3, 0]]),
        ([[3], [0]], None, [[3], [0]]),
        ("dog", LABELS, [[1], [1]]),
        ("1", None, [[1], [1]]),
        (["owl", 0], LABELS, [[3, 0], [3, 0]]),
        ("2", LABELS, [[2], [2]]),  # called so
        ("3", LABELS, [[3], [3]]),  # none is called so: the number
        (torch.tensor(2), None, [[2], [2]]),
        (torch.tensor([2, 1]), None, [[2], [1]]),  # one of each image, as labels come
        (torch.tensor([[2], [1]], dtype=torch.uint8), None, [[2], [1]]),
        (np.array([0, 3]), None, [[0], [3]]),
        (np.int64(3), None, [[3], [3]]),
    ],
)
def test_classes_that_are_meant(classes, labels, rows):
    found = select_classes(classes, None, LOGITS, labels)
    assert found is not None
    assert found.tolist() == rows


def test_a_label_that_looks_like_another_number():
    labels = ("1", "0", "2", "3")
    assert class_number("1", 4, labels) == 0
    assert class_number("0", 4, labels) == 1
    assert class_number(1, 4, labels) == 1


@pytest.mark.parametrize(
    ("classes", "top_k", "labels", "words"),
    [
        (1, 2, None, "not both"),
        (None, 0, None, "at least 1"),
        (None, -1, None, "at least 1"),
        (None, True, None, "at least 1"),
        (None, 1.0, None, "at least 1"),
        (None, None, ("a", "b"), "2 labels for 4 logits"),
        ([], None, None, "classes is empty"),
        (torch.tensor([2]), None, None, "has 1 for 2 images"),
        ([[0], 1], None, None, "not a mixture"),
        ([[0]], None, None, "1 rows for 2 images"),
        ([[0], [1], [2]], None, None, "3 rows for 2 images"),
        ([[0], [1, 2]], None, None, r"rows of \[1, 2\] classes"),
        ([[], []], None, None, r"rows of \[0\] classes"),
        (torch.tensor([0.0]), None, None, "whole numbers, and this tensor is torch.float32"),
        (torch.tensor([True]), None, None, "whole numbers, and this tensor is torch.bool"),
        (4, None, None, "no class 4: they go from 0 to 3"),
        (-1, None, None, "no class -1"),
        ("-1", None, None, "no class -1"),
        ("dog", None, None, "this model has no labels"),
        ("dgo", None, LABELS, "did you mean dog"),
        ("zebra", None, LABELS, "there are cat, dog, 2, owl$"),
        ([True], None, None, "True is no class"),
        ([1.0], None, None, r"1\.0 is no class"),
    ],
)
def test_classes_that_are_none(classes, top_k, labels, words):
    with pytest.raises(ValueError, match=words):
        select_classes(classes, top_k, LOGITS, labels)


def test_the_most_likely():
    assert select_classes(None, 2, LOGITS, None).tolist() == [[1, 2], [0, 3]]
    assert select_classes(None, 9, LOGITS, None).shape == (2, 4)
    assert select_classes(None, None, LOGITS, LABELS) is None


# ---- boxes


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [(0, 0, 1)],
        [0, 0, 1, 1],
        [(0, 0, 0, 1)],  # no width
        [(0, 0, 1, 0)],
        [(1, 0, 0, 1)],
        [(0, 0, 1, np.inf)],
        [(np.nan, 0, 1, 1)],
        [(0, 0, 1, 1), (0, 0, 1, 0)],
        np.zeros((0, 4)),
        np.zeros((1, 1, 4)),
    ],
)
def test_boxes_that_are_none(boxes):
    with pytest.raises(ValueError, match="box"):
        boxes_of(boxes)


def test_boxes_in_whatever_form():
    one = Box(0.0, 1.0, 2.0, 3.0, 4, 1.0, 1.0)
    expected = [[0.0, 1.0, 2.0, 3.0]]
    for given in ([one], (one,), [(0, 1, 2, 3)], np.array(expected)):
        assert boxes_of(given).tolist() == expected
    assert boxes_of([one, (5, 5, 6, 7)]).tolist() == [*expected, [5.0, 5.0, 6.0, 7.0]]


def test_boxes_that_only_touch_share_nothing():
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert iou((0, 0, 2, 2), (2, 2, 4, 4)) == 0
    assert iou((0, 0, 2, 2), (3, 3, 4, 4)) == 0  # apart on both axes: no product of two negatives
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 4, 1), (3, 0, 7, 1)) == pytest.approx(1 / 7)
    assert ious(np.array([[0.0, 0, 0, 0]]), np.array([[0.0, 0, 1, 1]])).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("map", "words"),
    [
        (np.zeros((0, 3)), "at least one pixel"),
        (np.zeros(3), r"\(H, W\)"),
        (np.zeros((1, 2, 2)), r"\(H, W\)"),
        ([["a"]], "real numbers"),
        ([[1j]], "real numbers"),
        ([[np.nan, 1.0]], "NaN or infinite"),
        ([[-np.inf, 1.0]], "NaN or infinite"),
    ],
)
def test_maps_that_are_none(map, words):
    for asking in (scaled, box, lambda map: sweep(map, [0.2])):
        with pytest.raises(ValueError, match=words):
            asking(map)


def test_maps_without_evidence():
    for map in (np.zeros((2, 3)), -np.ones((2, 3))):
        values, peak = scaled(map)
        assert peak == 0
        assert values.tolist() == [[0.0] * 3] * 2
        assert box(map) == box(map, "otsu") == []
        found = sweep(map, [0.0, 0.5], against=[(0, 0, 1, 1)])
        assert not found.boxes.any()
        assert not found.areas.any()
        assert not found.best.any()


@pytest.mark.parametrize("threshold", [-0.01, 1.0, np.nan, 1.5])
def test_thresholds_of_boxes_that_are_refused(threshold):
    with pytest.raises(ValueError, match="fraction of the map's maximum"):
        box(np.eye(2), threshold)
    with pytest.raises(ValueError, match="fraction of the map's maximum"):
        sweep(np.eye(2), [0.5, threshold])
    with pytest.raises(ValueError, match="fractions of the map's maximum"):
        Localisation(thresholds=[threshold])


@pytest.mark.parametrize("thresholds", [[], [[0.1]]])
def test_thresholds_are_a_row(thresholds):
    with pytest.raises(ValueError, match="fraction of the map's maximum"):
        sweep(np.eye(2), thresholds)


def test_what_is_above_a_threshold_is_kept_and_what_is_on_it_is_not():
    map = [[0.0, 0.25, 0.5, 1.0]]
    assert [box(map, t)[0].area for t in (0.0, 0.2, 0.25, 0.5, 0.75)] == [3, 3, 2, 1, 1]
    assert sweep(map, [0.0, 0.2, 0.25, 0.5, 0.75]).areas.tolist() == [3, 3, 2, 1, 1]


def test_corners_join_eight_neighbours_and_not_four():
    map = np.eye(3)
    assert [(b.area, b.edges) for b in box(map)] == [(3, (0, 0, 3, 3))]
    assert len(box(map, which="all", connectivity=4)) == 3
    assert sweep(map, [0.5]).components.tolist() == [1]
    assert sweep(map, [0.5], connectivity=4).components.tolist() == [3]
    cross = np.array([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert sweep(cross, [0.5], connectivity=4).areas.tolist() == [5]
    for wrong in (6, 0):
        for asking in (box, lambda map, connectivity: sweep(map, [0.5], connectivity=connectivity)):
            with pytest.raises(ValueError, match="4 or 8 neighbours"):
                asking(map, connectivity=wrong)
        with pytest.raises(ValueError, match="4 or 8 neighbours"):
            Localisation(connectivity=wrong)
    with pytest.raises(ValueError, match='"largest" or "all"'):
        box(map, which="smallest")


def test_ties_between_components_are_decided_alike_by_box_and_sweep():
    """As many pixels: the higher peak; then higher up, further left."""
    maps = [
        [[1.0, 0, 0.9], [0, 0, 0], [0.9, 0, 1.0]],
        [[0.9, 0, 1.0], [0, 0, 0], [1.0, 0, 0.9]],
        [[1.0, 0, 1.0, 1.0], [0, 0, 0, 0], [1.0, 0, 0, 1.0]],
        [[0, 0, 1.0], [0, 0, 1.0], [0, 0, 0], [1.0, 1.0, 0]],
    ]
    for map in maps:
        assert sweep(map, [0.2], connectivity=4).boxes[0].tolist() == list(box(map, connectivity=4)[0].edges)
    assert box(maps[0], which="largest")[0].edges == (0, 0, 1, 1)
    assert box(maps[1])[0].edges == (2, 0, 3, 1)
    assert box(maps[2])[0].area == 2


def test_otsu_cuts_between_values():
    assert otsu(np.array([[0.0, 0.5, 0.5]])) == 0.0  # all positive ones are the same
    assert otsu(np.array([0.1, 0.2, 0.9, 1.0])) == 0.2
    assert otsu(np.array([0.0, 0.0, 0.1, 1.0])) == pytest.approx(0.1)  # zeros do not count
    assert otsu(np.array([0.2, 0.4, 0.6])) == 0.2  # equally good: the lowest


# ---- scores


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlaps": (0.3, 0.7)}, "0.5 is one of them"),
        ({"overlaps": (0.0, 0.5)}, r"lie in \(0, 1\]"),
        ({"overlaps": (0.5, 1.01)}, r"lie in \(0, 1\]"),
        ({"tolerances": (-1.0,)}, "0 or more"),
        ({"tolerances": (np.inf,)}, "0 or more"),
        ({"tolerances": (np.nan,)}, "0 or more"),
    ],
)
def test_questions_that_make_no_sense(given, words):
    with pytest.raises(ValueError, match=words):
        Localisation(**given)


def test_questions_at_their_limits():
    asked = Localisation(thresholds=[0.0, 0.99], overlaps=(0.5, 1.0), tolerances=(0.0,))
    assert asked.thresholds.tolist() == [0.0, 0.2, 0.99]  # the paper's is among them
    asked.add(np.eye(4), [(0, 0, 4, 4)])
    assert asked.result().by_iou[1.0].accuracy == 1.0  # the very box is found at every IoU
    assert asked.fixed(0.0).known == {0.5: 1.0, 1.0: 1.0}
    with pytest.raises(ValueError, match="was not counted"):
        asked.fixed(0.5)


def test_ranks_are_for_all_or_for_none():
    ranked, plain = Localisation(), Localisation()
    ranked.add(np.eye(4), [(0, 0, 4, 4)], rank=5)
    ranked.add(np.eye(4), [(0, 0, 4, 4)], rank=6)
    plain.add(np.eye(4), [(0, 0, 4, 4)])
    assert (ranked.fixed(0.2).top1, ranked.fixed(0.2).top5) == (0.0, 0.5)
    assert plain.fixed(0.2).top1 is None
    for scores, rank in ((ranked, None), (plain, 1)):
        with pytest.raises(ValueError, match="a rank for some pictures"):
            scores.add(np.eye(4), [(0, 0, 4, 4)], rank=rank)
    with pytest.raises(ValueError, match="the place of the true class"):
        ranked.add(np.eye(4), [(0, 0, 4, 4)], rank=0)
    with pytest.raises(ValueError, match="one part has ranks"):
        _ = ranked + plain
    assert (ranked + ranked).pictures == 4
    assert (ranked + Localisation()).pictures == (Localisation() + ranked).pictures == 2
    with pytest.raises(ValueError, match="do not add up"):
        _ = plain + Localisation(overlaps=(0.5,))
    with pytest.raises(ValueError, match="belong to a mask"):
        plain.add(np.eye(4), [(0, 0, 4, 4)], ignore=np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="no picture was added"):
        Localisation().result()


# ---- where cells end


def test_a_picture_is_covered_to_half_a_pixel():
    def covers(low: float, high: float) -> bool:
        return Placement((32.0,), (0.0,), ((low, high),), exact=True).covers((100,))

    assert covers(0, 100)
    assert covers(0.49, 99.51)
    assert not covers(0.5, 100)
    assert not covers(0, 99.5)
    assert not Placement((1.0, 1.0), (0.0, 0.0), ((0, 10), (0, 9)), exact=True).covers((10, 10))


@pytest.mark.parametrize(
    ("start", "high", "cells", "wider", "reach"),
    [
        (15.5, 96, 3, 3, (0.0, 96.0)),  # fits
        (0.0, 96, 3, 4, (-15.5, 112.5)),
        (31.5, 96, 3, 4, (-16.0, 112.0)),  # one more before
        (15.5, 96.3, 3, 3, (0.0, 96.0)),  # a hundredth of a cell is rounding
        (15.5, 97, 3, 4, (0.0, 128.0)),
        (15.8, 96, 3, 3, (0.3, 96.3)),
        (79.5, 96, 1, 3, (0.0, 96.0)),
    ],
)
def test_cells_repeated_until_they_cover_what_was_seen(start, high, cells, wider, reach):
    placement = Placement((32.0,), (start,), ((0, high),), exact=True)
    found, ends = placement.covering(np.arange(1.0, cells + 1))
    assert len(found) == wider
    assert ends[0] == pytest.approx(reach)
    assert sorted(set(found.tolist())) == np.arange(1.0, cells + 1).tolist()


def test_edges_stay_within_what_was_seen():
    placement = Placement((32.0,), (0.0,), ((0, 70),), exact=True)
    assert placement.edges(4, 0).tolist() == [0, 16.5, 48.5, 70, 70]
    assert placement.centres(3, 0).tolist() == [0, 32, 64]
    inside = placement.within((10.0,), (2.0,))
    assert inside.centres(3, 0).tolist() == [10.5, 74.5, 138.5]
    assert inside.seen == ((10.0, 150.0),)
