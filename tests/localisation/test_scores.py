"""Localisation scores against definitions written out pixel by pixel; parts add up; mistakes are told."""

import csv
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from gapstone.localisation.cam_boxes import box
from gapstone.localisation.iou import iou
from gapstone.localisation.scores import Localisation, centre_box, pxap, whole_image

TENTHS = [i / 10 for i in range(10)]
OVERLAPS = (0.3, 0.5, 0.7)


def random_set(seed, pictures=12):
    """Maps of all shapes, some without evidence, with boxes, masks, pixels to ignore and ranks."""
    rng = np.random.default_rng(seed)
    for k in range(pictures):
        height, width = rng.integers(2, 12, 2)
        map = rng.integers(-2, 4, (height, width)).astype(float) if k % 3 else rng.normal(size=(height, width))
        if k == 5:
            map = -abs(map)
        boxes = []
        for _ in range(rng.integers(1, 3)):
            (x0, x1), (y0, y1) = (sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in (width, height))
            boxes.append((x0, y0, x1, y1))
        mask, ignore = rng.random((height, width)) < 0.4, rng.random((height, width)) < 0.2
        yield {"map": map, "boxes": boxes, "mask": mask, "ignore": ignore, "rank": int(rng.integers(1, 8))}


def gathered(pictures, **asked):
    scores = Localisation(**asked)
    for picture in pictures:
        scores.add(**picture)
    return scores


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_scores_are_their_definitions(seed):
    pictures = list(random_set(seed))
    result = gathered(pictures, thresholds=TENTHS).result()
    n = len(pictures)

    def reached(picture, threshold, overlap, which):
        found = box(picture["map"], threshold, which)
        return any(iou(b, truth) >= overlap for b in found for truth in picture["boxes"])

    curve = [sum(reached(p, t, 0.5, "largest") for p in pictures) / n for t in TENTHS]
    assert result.max_box_acc.curve.tolist() == curve
    assert (result.max_box_acc.accuracy, result.max_box_acc.threshold) == (max(curve), TENTHS[curve.index(max(curve))])
    best = {v: max(sum(reached(p, t, v, "all") for p in pictures) / n for t in TENTHS) for v in OVERLAPS}
    assert {v: b.accuracy for v, b in result.by_iou.items()} == best
    assert result.max_box_acc_v2 == pytest.approx(sum(best.values()) / 3)
    for v in OVERLAPS:
        assert result.paper.known[v] == sum(reached(p, 0.2, v, "largest") for p in pictures) / n
    right = [reached(p, 0.2, 0.5, "largest") for p in pictures]
    assert result.paper.top1 == sum(r and p["rank"] == 1 for r, p in zip(right, pictures, strict=True)) / n
    assert result.paper.top5 == sum(r and p["rank"] <= 5 for r, p in zip(right, pictures, strict=True)) / n
    assert result.without_evidence == sum(bool((p["map"] <= 0).all()) for p in pictures)

    energies, hits = [], {0.0: [], 15.0: [], 2.0: []}
    for p in pictures:
        height, width = p["map"].shape
        pixels = [(y, x) for y in range(height) for x in range(width)]
        in_box = {(y, x) for y, x in pixels for x0, y0, x1, y1 in p["boxes"] if x0 <= x < x1 and y0 <= y < y1}
        total = sum(max(p["map"][at], 0) for at in pixels)
        energies.append(sum(max(p["map"][at], 0) for at in in_box) / total if total else 0)
        top = [at for at in pixels if p["map"][at] == p["map"].max() > 0]
        for tolerance, values in hits.items():
            near = [any(np.hypot(y - v, x - u) <= tolerance for v, u in in_box) for y, x in top]
            values.append(np.mean(near) if top else 0)
    assert result.energy == pytest.approx(np.mean(energies))
    tried = gathered(pictures, tolerances=hits).result().pointing
    assert tried == {t: pytest.approx(np.mean(values)) for t, values in hits.items()}
    assert set(result.pointing) == {0.0, 15.0}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_pxap_is_average_precision(seed, with_ignored):
    """Where maps have few values, thresholds lose nothing: scikit-learn's own average precision must come out."""
    rng = np.random.default_rng(seed)
    maps, masks, ignores = [], [], []
    for height, width in rng.integers(2, 9, (5, 2)):
        map = rng.integers(-20, 21, (height, width)) / 20.0
        map[0, 0] = 1.0
        maps.append(map)
        masks.append(rng.random(map.shape) < 0.4)
        ignores.append(rng.random(map.shape) < 0.3)
    masks[0][1, 1] = True
    counted = [m | ~i if with_ignored else np.ones_like(m) for m, i in zip(masks, ignores, strict=True)]
    truth = np.concatenate([m[c] for m, c in zip(masks, counted, strict=True)])
    scores = np.concatenate([m[c].clip(0) for m, c in zip(maps, counted, strict=True)])
    found = pxap(maps, masks, ignores if with_ignored else None)
    assert found == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


def test_pxap_of_extremes():
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:5] = True
    assert pxap([mask * 5.0], [mask]) == 1
    assert pxap([np.full((6, 9), 3.0)], [mask]) == pytest.approx(4 / 54)  # all pixels alike: the object's share of them
    assert pxap([np.full((6, 9), -3.0)], [mask]) == pytest.approx(4 / 54)
    around = np.ones((6, 9), bool)
    assert pxap([np.ones((6, 9))], [mask], [around]) == 1  # the mask wins, and nothing else is counted
    assert pxap([~mask * 1.0, mask * 1.0], [mask, mask]) < 0.6


@pytest.mark.parametrize("cut", [0, 1, 25, 60])
def test_parts_add_up_to_the_whole(cut):
    pictures = list(random_set(3, 60))
    whole = gathered(pictures).result()
    parts = gathered(pictures[:cut]) + gathered(pictures[cut:])
    backwards = gathered(pictures[cut:]) + gathered(pictures[:cut])
    for other in (parts.result(), backwards.result()):
        np.testing.assert_equal(asdict(other), asdict(whole))  # exactly, also the sums
    assert parts.pictures == 60


def test_parts_stay_as_they_were():
    a, b = (gathered(random_set(seed)) for seed in (0, 1))
    before = asdict(a.result())
    both = a + b
    a.add(**next(random_set(2)))
    assert both.pictures == 24
    fresh = gathered(random_set(0)) + gathered(random_set(1))
    np.testing.assert_equal(asdict(both.result()), asdict(fresh.result()))
    np.testing.assert_equal(before, asdict(gathered(random_set(0)).result()))


def test_a_threshold_from_other_pictures():
    validation, test = gathered(random_set(1)), gathered(random_set(2))
    chosen = validation.result().max_box_acc
    fixed = test.fixed(chosen.threshold)
    place = test.thresholds.tolist().index(chosen.threshold)
    assert fixed.threshold == chosen.threshold
    assert fixed.known[0.5] == test.result().max_box_acc.curve[place] <= test.result().max_box_acc.accuracy
    assert test.fixed(0.2) == test.result().paper
    with pytest.raises(ValueError, match=r"0\.123"):
        test.fixed(0.123)


def test_a_small_object_in_a_wide_picture():
    """By hand: 40 × 200, an object of 10 × 20 found but for a fifth, and a fainter, larger second place."""
    map = np.full((40, 200), -1.0)
    map[20:28, 150:170] = 4.0
    map[0:20, 0:40] = 1.0
    scores = Localisation()
    scores.add(map, [(150, 20, 170, 30)], rank=3)
    result = scores.result()
    curve = result.max_box_acc.curve
    assert curve[24] == 0  # below a quarter the faint one is the larger
    assert curve[25] == 1
    assert result.max_box_acc.threshold == 0.25
    assert {v: b.accuracy for v, b in result.by_iou.items()} == {0.3: 1, 0.5: 1, 0.7: 1}
    assert result.by_iou[0.7].threshold == 0  # any component will do
    assert result.paper.known == {0.3: 0, 0.5: 0, 0.7: 0}
    assert scores.fixed(0.25).known == {0.3: 1, 0.5: 1, 0.7: 1}  # 160 of 200 pixels
    assert (scores.fixed(0.25).top1, scores.fixed(0.25).top5) == (0, 1)
    assert result.energy == pytest.approx(640 / 1440)
    assert result.pointing == {0: 1, 15: 1}
    assert result.pxap is None


def test_pointing_is_tolerant_in_pixels_and_fair_in_ties():
    map = np.zeros((50, 80))
    map[10, 40] = 1

    def pointing(boxes, map=map):
        scores = Localisation(tolerances=(0, 3, 15))
        scores.add(map, boxes)
        return scores.result().pointing

    assert pointing([(40, 10, 41, 11)]) == {0: 1, 3: 1, 15: 1}
    assert pointing([(43, 10, 60, 20)]) == {0: 0, 3: 1, 15: 1}  # three pixels from the nearest
    assert pointing([(43, 11, 60, 20)]) == {0: 0, 3: 0, 15: 1}  # … and one further down
    assert pointing([(55, 10, 60, 20)]) == {0: 0, 3: 0, 15: 1}
    assert pointing([(56, 10, 60, 20)]) == {0: 0, 3: 0, 15: 0}
    assert pointing([(0, 0, 1, 1), (40, 10, 41, 11)])[0] == 1
    assert pointing([(0, 0, 40, 25)], np.ones((50, 80)))[0] == 0.25  # a flat map points everywhere
    assert pointing([(0, 0, 40, 25)], np.zeros((50, 80)))[15] == 0
    assert pointing([(40.6, 10, 41.2, 11)])[0] == 0  # the pixel's centre is at 40.5
    assert pointing([(40.4, 10, 40.6, 11)])[0] == 1
    assert pointing([(-40, -30, 200, 100)])[0] == 1  # a box may reach beyond its picture
    assert pointing([(300, 300, 400, 400)])[15] == 0


def test_boxes_from_box_and_overlapping_ones_count_once():
    map = np.ones((4, 10))
    scores = Localisation()
    scores.add(map, box(map))
    assert scores.result().energy == 1
    twice = Localisation()
    twice.add(map, [(0, 0, 4, 4), (2, 0, 6, 4)])
    assert twice.result().energy == pytest.approx(0.6)


def test_nothing_added():
    with pytest.raises(ValueError, match="no picture was added"):
        Localisation().result()
    with pytest.raises(ValueError, match="no picture was added"):
        Localisation().fixed(0.2)
    with pytest.raises(ValueError, match="no object pixel"):
        pxap([], [])
    with pytest.raises(ValueError, match="no object pixel"):
        pxap([np.ones((2, 2))], [np.zeros((2, 2), bool)])
    with pytest.raises(ValueError, match="no pictures"):
        whole_image([], [])


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ({"boxes": []}, "at least one"),
        ({"boxes": [(2, 2, 2, 3)]}, "exclusive"),
        ({"map": np.full((3, 4), np.nan)}, "NaN"),
        ({"mask": np.ones((4, 3), bool)}, r"mask is \(4, 3\)"),
        ({"mask": np.full((3, 4), 255)}, "> 127"),
        ({"mask": np.ones((3, 4)), "ignore": np.ones((3, 5))}, "ignore is"),
        ({"ignore": np.ones((3, 4), bool)}, "there is none"),
        ({"rank": 0}, "rank=0"),
        ({"rank": None}, "every one"),
    ],
)
def test_a_mistake_counts_nothing(picture, words):
    good = {"map": np.ones((3, 4)), "boxes": [(0, 0, 2, 2)], "mask": np.ones((3, 4), bool), "rank": 1}
    scores = gathered([good])
    before = asdict(scores.result())
    with pytest.raises(ValueError, match=words):
        scores.add(**{**good, **({"mask": None} if "ignore" in picture else {}), **picture})
    np.testing.assert_equal(asdict(scores.result()), before)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"thresholds": [0.5, 1.0]}, "0 ≤ t < 1"),
        ({"thresholds": [np.nan]}, "0 ≤ t < 1"),
        ({"overlaps": (0.3, 0.7)}, r"0\.5 is one"),
        ({"overlaps": (0.5, 50)}, r"\(0, 1\]"),
        ({"tolerances": (-1,)}, "number of pixels"),
        ({"connectivity": 6}, "4 or 8"),
    ],
)
def test_what_cannot_be_asked(asked, words):
    with pytest.raises(ValueError, match=words):
        Localisation(**asked)


def test_parts_that_do_not_fit():
    ranked, unranked = gathered(random_set(0)), gathered([{"map": np.ones((3, 4)), "boxes": [(0, 0, 2, 2)]}])
    with pytest.raises(ValueError, match="ranks"):
        _ = ranked + unranked
    for other in ({"overlaps": (0.5,)}, {"thresholds": TENTHS}, {"tolerances": (1,)}, {"connectivity": 4}):
        with pytest.raises(ValueError, match="different things"):
            _ = ranked + Localisation(**other)
    assert (unranked + Localisation()).result().paper.top1 is None


def test_the_papers_threshold_is_always_there():
    assert Localisation(thresholds=[0.5]).thresholds.tolist() == [0.2, 0.5]
    assert len(Localisation().thresholds) == 100
    assert all(a < b for a, b in pairwise(Localisation().thresholds))


def test_boxes_that_look_at_nothing():
    boxes, sizes = [[(0, 0, 80, 100)], [(0, 0, 10, 10), (10, 20, 90, 80)]], [(100, 100), (100, 200)]
    assert whole_image(boxes, sizes) == 0.5
    assert whole_image(boxes, sizes, overlap=0.2) == 1
    assert centre_box([[(25, 25, 75, 75)]], [(100, 100)], 0.5, overlap=1.0) == 1
    assert centre_box([[(50, 25, 150, 75)]], [(100, 200)], 0.5, overlap=1.0) == 1  # (H, W): the picture is wide
    for fraction in (0, 1.1):
        with pytest.raises(ValueError, match="fraction"):
            centre_box(boxes, sizes, fraction)


def test_boxes_that_look_at_nothing_on_photos(real_images):
    """Of 40 validation photos of one board each: one fills its photo by half, five are near enough to the middle."""
    with open(real_images("microcontrollers") / "boxes_single.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("val/")]
    boxes = [[tuple(float(row[k]) for k in ("x0", "y0", "x1", "y1"))] for row in rows]
    sizes = [(int(row["height"]), int(row["width"])) for row in rows]
    assert len(rows) == 40
    assert whole_image(boxes, sizes) == 0.025
    assert centre_box(boxes, sizes, 0.7) == 0.125
