"""What regions take and what they refuse: of each field values that are right and values that are refused by name."""

import numpy as np
import pytest
import torch

import gapstone as gs
from gapstone.regions import region
from gapstone.regions.places import Rectangles, Windows

BOX = torch.tensor([[0.0, 0, 0, 3, 3]])

RIGHT = {
    "Window": [
        lambda: gs.Window(1),
        lambda: gs.Window((3, 2), (1, 2), (1, 0), (1, 2)),
        lambda: gs.Window([3, 2], [1, 2]),
        lambda: gs.Window(np.int64(3), np.array([2, 1])),
        lambda: gs.Window(3, 1, ((0, 2), (1, 1))),
        lambda: gs.Window(3, padding=2),  # one less than its span
        lambda: gs.Window(2, padding=2, dilation=2),
        lambda: gs.Window(3, padding="same"),
        lambda: gs.Window(3, divisor=-1),
        lambda: gs.Window(3, divisor="window"),
        lambda: gs.Window(3, ceil_mode=True),
    ],
    "Grid": [lambda: gs.Grid(1), lambda: gs.Grid((1, 9)), lambda: gs.Grid([2, 3]), lambda: gs.Grid(np.array([2, 3]))],
    "Boxes": [
        lambda: gs.Boxes(BOX, 1),
        lambda: gs.Boxes([BOX[:, 1:]], (2, 3)),
        lambda: gs.Boxes((BOX[:, 1:],), 2),
        lambda: gs.Boxes(BOX, 2, scale=1),
        lambda: gs.Boxes(BOX, 2, scale=1e-9, sampling=1),
        lambda: gs.Boxes(BOX, 2, sampling=np.int64(2)),
    ],
}
REFUSED = {
    "Window": [
        (lambda: gs.Window(0), "size=0"),
        (lambda: gs.Window((3, 0)), r"size=\(3, 0\)"),
        (lambda: gs.Window(()), r"size=\(\)"),
        (lambda: gs.Window(True), "size=True"),
        (lambda: gs.Window(2.0), r"size=2\.0"),
        (lambda: gs.Window("3"), "size='3'"),
        (lambda: gs.Window(3, 0), "stride=0"),
        (lambda: gs.Window(3, dilation=0), "dilation=0"),
        (lambda: gs.Window(3, ceil_mode=1), "ceil_mode=1"),
        (lambda: gs.Window(3, divisor="all"), "divisor='all'"),
        (lambda: gs.Window(3, divisor=0), "divisor=0"),
        (lambda: gs.Window(3, divisor=True), "divisor=True"),
        (lambda: gs.Window(3, divisor=2.0), r"divisor=2\.0"),
        (lambda: gs.Window(3, divisor=None), "divisor=None"),
        (lambda: gs.Window(3, padding=-1), "padding=-1"),
        (lambda: gs.Window(3, padding="valid"), "padding='valid'"),
        (lambda: gs.Window(3, padding=((1, 1), 1)), "a pair"),
        (lambda: gs.Window(3, padding=((1, 1, 1),)), "a pair"),
        (lambda: gs.Window(3, padding=((1, -1),)), "padding="),
        (lambda: gs.Window(3, padding=3), "padding 3 must be less than the 3 places"),
        (lambda: gs.Window((5, 3), padding=(3, 3)), "padding 3 must be less than the 3 places"),
        (lambda: gs.Window(2, padding=3, dilation=2), "padding 3 must be less than the 3 places"),
        (lambda: gs.Window(3, padding=((0, 3),)), "padding 3 must be less than the 3 places"),
        (lambda: gs.Window((3, 3), (1, 1, 1)), "different numbers of axes"),
        (lambda: gs.Window(2**31), "more than any map has positions"),
    ],
    "Grid": [
        (lambda: gs.Grid(0), "size=0"),
        (lambda: gs.Grid((2, 0)), "size="),
        (lambda: gs.Grid(2.5), "size="),
        (lambda: gs.Grid(()), "size="),
        (lambda: gs.Grid("2"), "size="),
        (lambda: gs.Grid(False), "size="),
    ],
    "Boxes": [
        (lambda: gs.Boxes(BOX, 0), "size=0"),
        (lambda: gs.Boxes(BOX, 2, scale=0), "scale=0"),
        (lambda: gs.Boxes(BOX, 2, scale=-1), "scale=-1"),
        (lambda: gs.Boxes(BOX, 2, scale=float("inf")), "scale=inf"),
        (lambda: gs.Boxes(BOX, 2, scale=float("nan")), "scale=nan"),
        (lambda: gs.Boxes(BOX, 2, scale="1"), "scale='1'"),
        (lambda: gs.Boxes(BOX, 2, sampling=0), "sampling=0"),
        (lambda: gs.Boxes(BOX, 2, sampling=(2, 2)), "must be one number"),
        (lambda: gs.Boxes([], 2), "give a tensor"),
        (lambda: gs.Boxes(BOX[0], 2), "give a tensor"),
        (lambda: gs.Boxes([BOX[0]], 2), "give a tensor"),
        (lambda: gs.Boxes([[0, 0, 3, 3]], 2), "give a tensor"),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_taken(name):
    for make in RIGHT[name]:
        assert type(make()).__name__ == name


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    for make, words in REFUSED[name]:
        with pytest.raises(ValueError, match=words):
            make()


SHAPE = (2, 3, 6, 7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gs.Window((3, 3, 3)), "Window size .* has 3 numbers"),
        (lambda: gs.Window(3, (1,)), "Window stride .* has 1 numbers"),
        (lambda: gs.Window(3, dilation=(1, 1, 1)), "Window dilation .* has 3 numbers"),
        (lambda: gs.Window(3, padding=(1, 1, 1)), "padding names 3 axes"),
        (lambda: gs.Window(8), "does not fit on 6 positions: use"),
        (lambda: gs.Window((6, 10), padding=1), "does not fit on 7 positions with 1 more before and 1 after"),
        (lambda: gs.Grid((2, 2, 2)), "Grid size .* has 3 numbers"),
        (lambda: gs.Boxes(BOX, (2, 2, 2)), "Boxes size .* has 3 numbers"),
        (lambda: gs.Boxes(BOX[:, 1:], 2), r"needs \(R, 5\)"),
        (lambda: gs.Boxes([BOX, BOX], 2), r"needs \(R, 4\)"),
        (lambda: gs.Boxes([BOX[:, 1:]], 2), "a list of 1 tensors for 2 images"),
        (lambda: gs.Boxes([BOX[:, 1:]] * 3, 2), "a list of 3 tensors for 2 images"),
        (lambda: gs.Boxes(BOX.bool(), 2), "give real numbers"),
        (lambda: gs.Boxes(BOX + torch.tensor([2.0, 0, 0, 0, 0]), 2), "box 0 is of image 2, and there are 2 images"),
        (lambda: gs.Boxes(BOX - torch.tensor([1.0, 0, 0, 0, 0]), 2), "box 0 is of image -1"),
        (lambda: gs.Boxes(BOX + torch.tensor([0.5, 0, 0, 0, 0]), 2), r"box 0 is of image 0\.5"),
        (lambda: gs.Boxes(BOX * torch.tensor([1.0, 1, 1, 1, float("inf")]), 2), "must be finite numbers"),
        (lambda: gs.Boxes(torch.cat([BOX, BOX + 9]), 2), "box 1 is of image 9"),
    ],
)
def test_maps_that_do_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make().place(SHAPE)


def test_the_last_image_is_one():
    place = gs.Boxes(BOX + torch.tensor([1.0, 0, 0, 0, 0]), 2).place(SHAPE)
    assert isinstance(place, Rectangles)
    assert place.images.tolist() == [1]


def test_boxes_are_rounded_half_away_from_zero_and_cut_to_the_map():
    place = gs.Boxes(torch.tensor([[0, -0.5, -2.5, 0.5, 1.49], [0, 2.5, 3.0, 100.0, 3.0]]), 1).place(SHAPE)
    assert isinstance(place, Rectangles)
    (top, left), (bottom, right) = ([one.flatten().tolist() for one in ends] for ends in (place.starts, place.stops))
    assert (top, bottom) == ([0, 3], [2, 4])  # −3…1 and 3…3
    assert (left, right) == ([0, 3], [2, 7])  # −1…1 and 3…100


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize(("size", "stride", "step"), [(3, 2, 1), (2, 3, 1), (3, 1, 2), (1, 4, 1)])
def test_same_padding_gives_as_many_windows_as_strides(length, size, stride, step):
    (axis,) = gs.Window(size, stride, "same", step).place((1, 1, length)).axes
    assert isinstance(axis, Windows)
    assert axis.cells == -(-length // stride)
    assert axis.after - axis.before in (0, 1)


def test_one_axis_more_than_there_is_cannot_be_asked_for():
    most = region.MOST
    region.check_extent("grid", most, 1, 5)
    region.check_extent("grid", most + 1, 1, most + 1)
    with pytest.raises(ValueError, match="cells along an axis of 5 positions"):
        region.check_extent("grid", most + 1, 1, 5)
    with pytest.raises(ValueError, match="places along an axis of 5 positions"):
        region.check_extent("window", 1, region.MOST_TAPS + 1, 5)
    region.check_extent("window", 1, region.MOST_TAPS, 5)


def test_numbers_become_pythons():
    assert region.plain(np.float64(2)) == 2.0
    assert type(region.plain(np.int32(2))) is int
    assert region.plain([[1, 2], np.array([3, 4])]) == ((1, 2), (3, 4))
    assert region.plain("same") == "same"
    assert region.plain(range(2)) == (0, 1)
    assert region.seen(torch.tensor(True)) is True
    assert region.seen(torch.tensor(False)) is False
    assert region.seen(torch.empty((), device="meta")) is None


@pytest.mark.parametrize("who", ["tracing", "compiling"])
def test_in_a_graph_nobody_looks(who, monkeypatch):
    """A number that is read there would be written into it."""
    if who == "tracing":
        monkeypatch.setattr(region, "tracing", lambda: True)
    else:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        region.check_extent("grid", region.MOST + 1, 1, 5)
    assert region.seen(torch.tensor(True)) is None
