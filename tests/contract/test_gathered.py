"""The loop in torch's own words: of each pool and each place what the reference gives, and it writes no size down."""

import pytest
import torch

import gapstone as gs
from gapstone.loops import gathered, reference
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals, Labels, PositionWeights, Rectangles
from tests.loops_by_name import call_of

ROWS = torch.tensor([[[1.0, 0.5, 6.0, 4.0]], [[0.0, 0.0, 7.0, 5.0]]])
LABELS = torch.arange(2 * 5 * 7).view(2, 5, 7) % 3

PLACES = {
    "whole": gs.Whole(),
    "window": gs.Window(3, 2, 1),
    "window that hangs over": gs.Window(2, 2, ceil_mode=True),
    "window, dilated": gs.Window((2, 3), 1, (0, 1), (2, 1)),
    "window, same": gs.Window(3, 2, "same"),
    "cells": gs.Grid((2, 3)),
    "cells that do not divide": gs.Grid((3, 4)),
    "rectangles": gs.Boxes(list(ROWS), size=2),
    "labels": gs.Segments(LABELS, count=3),
    "mask": gs.Mask(LABELS > 0),
    "weights": gs.Mask((LABELS + 1) / 3),
}


def values(name: str) -> tuple[float | torch.Tensor, ...]:
    score = torch.linspace(-1, 1, 70, dtype=torch.float64).view(2, 1, 5, 7)
    return tuple(
        score if knob.per_position else 2 if key == "k" else knob.default
        for key, knob in POOLS[name].parameters.items()
    )


def test_every_kind_of_place_is_here():
    kinds = {type(region.place((2, 3, 5, 7))) for region in PLACES.values()}
    assert kinds == {Intervals, Labels, Rectangles, PositionWeights}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", POOLS)
def test_as_the_reference(name, where):
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64) + 0.1
    place = PLACES[where].place((2, 3, 5, 7))
    try:
        call = call_of(name, x, place, values(name))
        expected = reference.pooled(call, x)
    except ValueError as refused:
        with pytest.raises(ValueError, match=str(refused)[:20]):
            gathered.forward(call, x)
        return
    found = gathered.forward(call, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("divisor", ["positions", "padded", "window", 5])
def test_divisors(divisor):
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    place = gs.Window(3, 2, 1, ceil_mode=True, divisor=divisor).place((2, 3, 5, 7))
    call = call_of("mean", x, place)
    torch.testing.assert_close(gathered.forward(call, x), reference.pooled(call, x))


def test_positions_of_cells_and_windows():
    from gapstone.regions.places import Cells, Windows

    at, there = gathered._taps(Cells(2, 3), 3, torch.device("cpu"))
    assert [[int(a) for a, t in zip(*row, strict=True) if t] for row in zip(at, there, strict=True)] == [[0, 1], [1, 2]]
    (axis,) = gs.Window(3, 2, 1).place((1, 1, 4)).axes
    assert isinstance(axis, Windows)
    at, there = gathered._taps(axis, 4, torch.device("cpu"))
    assert [[int(a) for a, t in zip(*row, strict=True) if t] for row in zip(at, there, strict=True)] == [
        [0, 1],
        [1, 2, 3],
    ]
    assert int(at.min()) >= 0
    assert int(at.max()) <= 3
