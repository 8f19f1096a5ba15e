"""What gapstone takes of torch's pools: of each one that is right, and all that is torch's to serve or to refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gapstone.accelerating import functional_arguments
from gapstone.accelerating.functional_arguments import (
    SMALL,
    SMALL_GRADIENT,
    SMALL_GRID,
    max_grid,
    max_window,
    mean_grid,
    mean_window,
)
from gapstone.regions import Grid, Window
from gapstone.regions.places import Intervals

LARGE = {1: (2, 4, 1 << 14), 2: (2, 4, 130, 131), 3: (2, 4, 26, 26, 27)}


def x(axes: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(LARGE[axes], dtype=dtype)


def place(region: Window | Grid, axes: int) -> Intervals:
    found = region.place(LARGE[axes])
    assert isinstance(found, Intervals)
    return found


Call = Callable[..., Intervals | None]
Given = tuple[tuple[Any, ...], dict[str, Any]]


def given(*args: Any, **kwargs: Any) -> Given:
    return args, kwargs


RIGHT: dict[Call, list[tuple[Given, Window | Grid]]] = {
    max_window: [
        (given(3), Window(3)),
        (given(3, 2), Window(3, 2)),
        (given(3, None, 1), Window(3, padding=1)),
        (given(3, [], 1), Window(3, padding=1)),
        (given(3, (), 1), Window(3, padding=1)),
        (given(2, 1, 1), Window(2, 1, 1)),  # as much padding as half the window
        (given(kernel_size=3, stride=2, padding=1, dilation=2, ceil_mode=True), Window(3, 2, 1, 2, True)),
        (given([3], [2]), Window(3, 2)),
        (given(3, 2, 1, 1, False, False), Window(3, 2, 1)),
        (given(1, 7), Window(1, 7)),
    ],
    mean_window: [
        (given(3), Window(3, divisor="padded")),
        (given(3, 2, 1, False, False), Window(3, 2, 1)),
        (given(3, 2, 1, True), Window(3, 2, 1, ceil_mode=True, divisor="padded")),
        (given(kernel_size=3, stride=2, padding=1, count_include_pad=False), Window(3, 2, 1)),
    ],
    max_grid: [(given(2), Grid(2)), (given(1), Grid(1)), (given(output_size=[5]), Grid(5)), (given(3, False), Grid(3))],
    mean_grid: [(given(2), Grid(2)), (given(output_size=3), Grid(3))],
}

WINDOWS: list[Given] = [
    given(),
    given(None),
    given(0),
    given(-1),
    given(3, 0),
    given(3, -2),
    given(3, 1, -1),
    given(3, 1, 2),  # more than half the window
    given(2.0),
    given("3"),
    given((3, 3, 3, 3)),
    given(3, (1, 1, 1, 1)),
    given(3, 1, (1, 1, 1, 1)),
    given(3, 1, None),
    given(torch.tensor(3)),
    given(1 << 20),  # no window fits
    given(3, unknown=1),
]

REFUSED: dict[Call, list[Given]] = {
    max_window: [
        *WINDOWS,
        given(3, return_indices=True),
        given(3, 2, 1, 1, False, True),
        given(3, 2, 1, 1, False, False, 1),
        given(3, 2, 1, 0),
        given(3, 2, 1, None),
        given(3, ceil_mode=1),
        given(3, ceil_mode=None),
        given(3, return_indices=0),
    ],
    mean_window: [
        *WINDOWS,
        given(3, ceil_mode=0),
        given(3, count_include_pad=1),
        given(3, divisor_override=0),
        given(3, divisor_override=2.0),
        given(3, 2, 1, False, True, None, 1),
    ],
    max_grid: [
        given(),
        given(None),
        given(0),
        given(2.0),
        given((2, 2, 2, 2)),
        given(2, True),
        given(2, return_indices=0),
        given(2, False, 1),
        given(2, unknown=1),
    ],
    mean_grid: [
        given(),
        given(None),
        given(0),
        given(2.0),
        given((2, 2, 2, 2)),
        given(2, 1),
        given(2, unknown=1),
        given(1),
    ],
}


def test_everyone_is_here():
    public = {name for name in vars(functional_arguments) if name.startswith(("max_", "mean_"))}
    assert {call.__name__ for call in RIGHT} == {call.__name__ for call in REFUSED} == public


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("call", RIGHT)
def test_what_is_taken_is_the_same_place(call, axes):
    for (args, kwargs), region in RIGHT[call]:
        assert call(axes, x(axes), *args, **kwargs) == place(region, axes), (args, kwargs)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("call", REFUSED)
def test_what_is_left_to_torch(call, axes):
    for args, kwargs in REFUSED[call]:
        assert call(axes, x(axes), *args, **kwargs) is None, (args, kwargs)
    for other in {1, 2, 3} - {axes}:
        assert call(axes, x(other), 2) is None  # an image without its batch, or too many axes


def test_sizes_per_axis():
    assert max_window(2, x(), (3, 5), (2, 1), (1, 2), (1, 2)) == place(Window((3, 5), (2, 1), (1, 2), (1, 2)), 2)
    assert max_window(2, x(), (3, 5), padding=(1, 3)) is None
    assert max_grid(2, x(), (4, None)) == place(Grid((4, 131)), 2)
    assert max_grid(2, x(), [None, 4]) == place(Grid((130, 4)), 2)
    assert max_grid(2, x(), (None,)) is None
    assert mean_grid(2, x(), (1, 2)) == place(Grid((1, 2)), 2)
    assert mean_grid(2, x(), (1, 1)) is None  # one cell: torch's own mean is at the memory's limit
    assert max_grid(1, x(1), (None,)) is None


def test_divisors():
    assert mean_window(2, x(), 3, divisor_override=5) == place(Window(3, divisor=5), 2)
    assert mean_window(3, x(3), 3, divisor_override=-2) == place(Window(3, divisor=-2), 3)
    assert mean_window(1, x(1), 3, divisor_override=5) is None  # torch knows none there
    # torch has no avg_pool3d of half precision
    for dtype in (torch.float16, torch.bfloat16):
        assert mean_window(3, x(3, dtype), 3) is None
        assert mean_window(2, x(2, dtype), 3) is not None
        assert max_window(3, x(3, dtype), 3) is not None


@pytest.mark.parametrize("gradient", [False, True])
def test_from_where_on_windows_are_taken(gradient):
    least = SMALL_GRADIENT if gradient else SMALL
    for count, taken in ((least - 4, False), (least, True)):
        small = torch.zeros(1, 4, count // 4).requires_grad_(gradient)
        for call in (max_window, mean_window):
            assert (call(1, small, 3) is not None) == taken
    with torch.no_grad():
        assert (max_window(1, torch.zeros(1, 1, SMALL).requires_grad_(gradient), 3)) is not None


@pytest.mark.parametrize(("call", "name"), [(max_grid, "max"), (mean_grid, "mean")])
def test_from_where_on_grids_are_taken(call, name):
    least = SMALL_GRID[name]
    assert call(1, torch.zeros(1, 1, least - 1), 3) is None
    assert call(1, torch.zeros(1, 1, least), 3) is not None
    assert call(1, torch.zeros(1, 1, least).requires_grad_(), 3) is None
    assert call(1, torch.zeros(1, least, 2)[..., :1].expand(1, least, 2), 3) is None  # not contiguous


@pytest.mark.parametrize(
    ("length", "ceil", "fits"), [(2, False, False), (3, False, True), (2, True, True), (1, True, False)]
)
def test_whether_a_window_fits_at_all(length, ceil, fits):
    """Of 3 positions by 2: with ceil_mode one that hangs over is a window, too."""
    found = functional_arguments.windows((1, 1, length), (3,), (2,), (0,), (1,), ceil, "positions")
    assert (found is not None) == fits
    if not fits:
        with pytest.raises(RuntimeError, match=r"too small|Invalid computed output size|max_pool1d"):
            torch.nn.functional.max_pool1d(torch.zeros(1, 1, length), 3, 2, ceil_mode=ceil)
