"""The tuned loop: the derived one's calls (numba.py), for the pools and places that networks run all day."""

from collections.abc import Sequence

from torch import Tensor

from gapstone.loops import numba as derived
from gapstone.loops.layout import Parameters
from gapstone.loops.tuned.windows import fits
from gapstone.loops.winners import winners
from gapstone.regions.places import Boxes, Place, Windows

kept_types = derived.kept_types


def _windows(name: str, place: Place) -> bool:
    return (
        name in ("max", "mean")
        and isinstance(place, Boxes)
        and place.axes is not None
        and all(type(axis) is Windows for axis in place.axes)
    )


def serves(name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False) -> str | None:
    """Why this loop is the one to take; None where it has no kernel, or not the fastest."""
    if not _windows(name, place):
        return None
    assert isinstance(place, Boxes)
    if x.is_contiguous() and fits(name, x.dtype, place.axes, keep):  # type: ignore[arg-type]
        return "tuned for windows of contiguous maps"
    return None


def forward(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    from gapstone.loops.tuned import launch_rows

    assert isinstance(place, Boxes)
    return launch_rows.forward(name, x if x.is_contiguous() else x.contiguous(), place, keep, out)


def backward(
    name: str,
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    kept: Sequence[Tensor],
    shape: Sequence[int],
    place: Place,
    parameters: Parameters = (),
    want_x: bool = True,
    want_parameter: bool = False,
    channels_last: bool | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    from gapstone.loops.tuned import launch_rows

    assert isinstance(place, Boxes)
    return launch_rows.backward(name, grad, kept[0] if kept else None, tuple(shape), place), None


def positions(x: Tensor, place: Place, kept: Tensor, name: str) -> Tensor:
    """For each answer the position on the flattened map that a kept number stands for. `x`: any map of that shape."""
    return winners(place, kept, tuple(x.shape), _windows(name, place))
