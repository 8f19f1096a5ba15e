"""The public evaluator's own 26 test cases, and borders against slow geometry.

Inputs and expected numbers of the cases: evaluation_test.py of github.com/clovaai/wsolevaluation, © 2020-present NAVER
Corp., MIT licence. Its masks are pictures; here they are made with the same numbers of pixels, all that the expected
values depend on.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from gapstone.localisation.scores import Localisation
from tests.localisation import wsol_evaluator as reference
from tests.localisation.contours import borders

FIFTHS, HUNDREDTHS = np.arange(0, 1, 0.2), np.arange(0, 1, 0.01)
UNIMODAL = [[0, 0, 0, 0, 0], [0, 4, 4, 4, 6], [0, 4, 10, 8, 6], [0, 4, 4, 4, 6]]  # tenths
MULTIMODAL = [[4, 0, 2, 2, 2], [4, 4, 0, 4, 0], [0, 0, 0, 4, 0], [10, 6, 8, 2, 2]]
PIXELS = {0: (43031, 7145), 1: (833, 49342), 2: (347, 13909)}  # of the object and of the rest; all others are ignored


# 1–4: IoU


def test_iou_of_boxes_of_one_pixel():
    found = reference.iou(np.zeros((3, 4), int), np.zeros((5, 4), int))
    assert found.dtype == np.float64
    assert (found == np.ones((3, 5))).all()


def test_iou_of_no_boxes():  # a RuntimeError there
    with pytest.raises(ValueError, match="x0 ≤ x1"):
        reference.iou([[1, 1, 0, 0]], [[1, 1, 2, 2]])


def test_iou_of_boxes_with_themselves():
    boxes = [[1, 1, 3, 3], [4, 4, 5, 5]]
    assert (reference.iou(boxes, boxes) == np.eye(2)).all()


def test_iou_by_hand():
    assert reference.iou([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0] == pytest.approx(8 / 27)


# 5–6: boxes in other sizes; (H, W) here, (W, H) there


@pytest.mark.parametrize(
    ("box", "size", "to", "expected"),
    [((1, 2, 4, 3), (20, 10), (10, 35), (3, 1, 14, 1)), ((1, 2, 1, 2), (3, 3), (3, 3), (1, 2, 1, 2))],
)
def test_resized_box(box, size, to, expected):
    assert reference.resized_box(box, size, to) == expected


# 7–10: boxes of score maps


@pytest.mark.parametrize(
    ("tenths", "expected"),
    [
        ([[0] * 3] * 3, [[0, 0, 0, 0]] * 5),
        (UNIMODAL, [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]]),
        (MULTIMODAL, [[0, 0, 4, 3], [0, 0, 2, 2], [0, 3, 3, 3], [2, 3, 3, 3], [0, 3, 1, 3]]),
    ],
)
def test_boxes_at(tenths, expected):
    found = reference.boxes_at(np.array(tenths) / 10, FIFTHS)
    assert [boxes.tolist() for boxes in found] == [[box] for box in expected]


def test_boxes_of_nan():
    with pytest.raises(ValueError, match="NaN"):
        reference.boxes_at(np.full((3, 3), np.nan), FIFTHS)


# 11: the first three pictures of each set, their sizes (W, H) and boxes

PICTURES = {
    "CUB val 1": ((560, 419), [(176, 136, 459, 291)]),
    "CUB val 2": ((576, 432), [(44, 183, 426, 254)]),
    "CUB val 3": ((999, 587), [(437, 42, 834, 422)]),
    "CUB test 1": ((500, 335), [(60, 27, 385, 331)]),
    "CUB test 2": ((500, 347), [(14, 112, 402, 298)]),
    "CUB test 3": ((500, 470), [(33, 53, 284, 448)]),
    "ILSVRC val 1": ((500, 375), [(156, 163, 318, 230)]),
    "ILSVRC val 2": ((500, 375), [(143, 142, 394, 248)]),
    "ILSVRC val 3": ((500, 375), [(28, 94, 485, 303)]),
    "ILSVRC test 1": ((500, 375), [(111, 108, 441, 193)]),
    "ILSVRC test 2": ((500, 375), [(45, 49, 499, 162), (2, 69, 437, 207)]),
    "ILSVRC test 3": ((500, 375), [(38, 19, 385, 373)]),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_boxes_of_the_data_sets(picture):
    """Inclusive edges within the picture, as there; and a map that fills one of the resized boxes finds it."""
    (width, height), boxes = picture
    evaluator = reference.Boxes(HUNDREDTHS)
    for box in boxes:
        x0, y0, x1, y1 = box
        assert 0 <= x0 <= x1 <= width - 1
        assert 0 <= y0 <= y1 <= height - 1
        a, b, c, d = reference.resized_box(box, (height, width), (224, 224))
        assert (a, b, c, d) == (x0 * 224 // width, y0 * 224 // height, x1 * 224 // width, y1 * 224 // height)
        map = np.zeros((224, 224))
        map[b : d + 1, a : c + 1] = 1
        evaluator.add(map, boxes, (height, width))
    assert evaluator.result() == {30: 100, 50: 100, 70: 100}


# 12–26: masks


def made_mask(objects, others):
    """224 × 224 pixels, the object's first, then those that are ignored, then the rest."""
    place = np.arange(224 * 224).reshape(224, 224)
    ignore = place < 224 * 224 - others
    return reference.mask_of([place < objects // 2, (place >= objects // 2) & (place < objects)], ignore)


@pytest.mark.parametrize("k", PIXELS)
@pytest.mark.parametrize("ignored", [0.0, 1.0])
def test_a_perfect_map(k, ignored):
    mask = made_mask(*PIXELS[k])
    assert [(mask == v).sum() for v in (1, 0)] == [*PIXELS[k]]
    evaluator = reference.Masks(HUNDREDTHS)
    evaluator.add(np.where(mask == 255, ignored, mask == 1), mask)
    assert evaluator.result() == 100


@pytest.mark.parametrize("k", PIXELS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_map(k, value):
    evaluator = reference.Masks(HUNDREDTHS)
    evaluator.add(np.full((224, 224), value), made_mask(*PIXELS[k]))
    objects, others = PIXELS[k]
    assert evaluator.result() == pytest.approx(100 * objects / (objects + others))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_of_nothing_and_of_everything(value):
    nothing, everything = reference.Masks(HUNDREDTHS), reference.Masks(HUNDREDTHS)
    nothing.add(np.full((224, 224), value), made_mask(0, 224 * 224))
    everything.add(np.full((224, 224), value), made_mask(224 * 224, 0))
    with pytest.raises(ValueError, match="no object pixel"):  # a RuntimeError there
        nothing.result()
    assert everything.result() == 100


def test_a_map_of_nan():
    with pytest.raises(ValueError, match="NaN"):
        reference.Masks(HUNDREDTHS).add(np.full((224, 224), np.nan), made_mask(224 * 224, 0))


# beyond the cases: borders, quirks


def polygon_area(component):
    """Of the polygon through the pixels' centres: each 2 × 2 block with four pixels gives 1, with three 0.5."""
    filled = np.pad(ndimage.binary_fill_holes(component), 1).astype(int)
    blocks = filled[1:, 1:] + filled[1:, :-1] + filled[:-1, 1:] + filled[:-1, :-1]
    return (blocks == 4).sum() + 0.5 * (blocks == 3).sum()


@settings(max_examples=300, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3).map(bool)))
def test_borders_are_those_of_components_and_holes(binary):
    boxes, areas, _, order = borders(binary)
    labels, count = ndimage.label(binary, np.ones((3, 3)))
    expected = []
    for k, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        edges = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
        expected.append((edges, polygon_area(labels == k)))
    holes, many = ndimage.label(np.pad(~binary, 1, constant_values=True))  # 1 is what surrounds everything
    around = [(c.start - 2, r.start - 2, c.stop - 1, r.stop - 1) for r, c in ndimage.find_objects(holes)[1:]]
    found = [tuple(box) for box in boxes.tolist()]
    assert sorted(found) == sorted([*(edges for edges, _ in expected), *around])
    assert len(found) == count + many - 1
    for edges, area in expected:
        assert (edges, area) in zip(found, areas.tolist(), strict=True)
    assert sorted(order.tolist()) == list(range(len(found)))


def test_the_order_is_opencvs():
    """Children after their parents, of siblings the last first; as cv2.findContours lists them (4.5.5 and 5.0.0)."""
    picture = """
        #####...#
        #...#....
        #.#.#.###
        #...#.#.#
        #####.###
    """
    binary = np.array([[c == "#" for c in row] for row in picture.split()])
    (found,) = reference.boxes_at(binary.astype(float), [0.5], every=True)
    # the far edges are one further than they should be, but for those at the picture's rim
    assert found.tolist() == [
        [6, 2, 8, 4],
        [6, 2, 8, 4],
        [8, 0, 8, 1],
        [0, 0, 5, 4],
        [0, 0, 5, 4],
        [2, 2, 3, 3],
    ]
    (outermost,) = reference.boxes_at(binary.astype(float), [0.5], every=True, contours="external")
    assert outermost.tolist() == [[6, 2, 8, 4], [8, 0, 8, 1], [0, 0, 5, 4]]


def test_a_line_is_smaller_than_a_triangle_there():
    map = np.zeros((20, 40))
    map[2, 1:39] = 1
    map[10, 10] = map[10, 11] = map[11, 10] = 1
    assert reference.boxes_at(map, [0.5])[0].tolist() == [[10, 10, 12, 12]]
    scores = Localisation()
    scores.add(map, [(1, 2, 39, 3)])
    assert scores.result().max_box_acc.accuracy == 1  # 38 pixels are more than 3


def test_values_and_thresholds_are_cut_to_256_numbers():
    """0.5 is 127 of 255, as is the threshold at 0.5, and 127 is not above 127; 0.502 is 128."""
    assert reference.boxes_at([[1, 0.502, 0.5, 0]], [0.5])[0].tolist() == [[0, 0, 2, 0]]


def test_a_thousand_thresholds_are_256_there():
    ramp = np.linspace(0, 1, 1000)[None]
    found = reference.boxes_at(ramp, np.arange(0, 1, 0.001))
    assert len({tuple(boxes[0]) for boxes in found}) == 255


def test_max_box_acc_v2_counts_every_component():
    map = np.zeros((224, 224))
    map[10:100, 10:100] = 1
    map[150:170, 150:180] = 0.9
    truth = [(300, 300, 359, 339)]  # of a picture twice as large
    largest, every = reference.Boxes(HUNDREDTHS), reference.Boxes(HUNDREDTHS, every=True)
    for evaluator in (largest, every):
        evaluator.add(map, truth, (448, 448))
        evaluator.add(np.zeros((224, 224)), truth, (448, 448))
    assert largest.result() == {30: 0, 50: 0, 70: 0}
    assert every.result() == {30: 50, 50: 50, 70: 50}
    with pytest.raises(ValueError, match="no picture"):
        reference.Boxes().result()


def test_normalised():
    map = np.array([[-2.0, 0.0, 2.0]])
    assert reference.normalised(map).tolist() == [[0, 0.5, 1]]
    assert reference.normalised(map, "max").tolist() == [[0, 0, 1]]
    assert map.tolist() == [[-2, 0, 2]]
    for flat in (np.full((2, 2), 3.0), np.array([[1, np.nan]]), np.zeros((2, 2))):
        assert not reference.normalised(flat).any()
    assert reference.normalised([[-3.0, -1.0]], "max").tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="minmax"):
        reference.normalised(map, "pas")


def test_masks_are_resized_to_the_nearest_pixel():
    mask = reference.mask_of([[[0.0, 1.0, 0.4]]], [[1.0, 1.0, 0.0]], to=(2, 6))
    assert mask.tolist() == [[255, 255, 1, 1, 0, 0]] * 2
