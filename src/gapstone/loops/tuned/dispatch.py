"""The tuned loop: the derived one's calls (compiled.py), for the pools and places that networks run all day.

`serves` is asked before every call: it imports nothing heavy, and does nothing that torch.compile cannot trace.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import compiled as derived
from gapstone.loops.argmax_positions import winners
from gapstone.loops.memory_format import Parameters, is_channels_last
from gapstone.loops.tuned.window_support import BYTE_LANES, BYTES, FLOATS, MASKED_BYTES, fits
from gapstone.regions.places import Boxes, Labels, Place, Windows

SMALL = {"max": 1 << 15, "mean": 1 << 18}
"""Bytes of a channels-last map below which torch's windows are done before ours have begun."""

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
    if _windows(name, place):
        axes: Any = place.axes  # type: ignore[union-attr]
        if not fits(name, x.dtype, axes, keep):
            return None
        if x.is_contiguous():
            return "tuned for windows of contiguous maps"
        if x.dim() == 3 or not is_channels_last(x):
            return None
        if x.dtype in BYTES and x.shape[1] < BYTE_LANES and not MASKED_BYTES:
            return None
        # torch has kernels of its own for floating-point maps of two axes
        small = x.dim() == 4 and x.dtype in FLOATS and x.numel() * x.element_size() < SMALL[name]
        return None if small and not (keep and name == "max") else "tuned for windows of channels-last maps"
    if x.dtype not in FLOATS:
        return None
    if isinstance(place, Labels):
        return "tuned for masks" if name == "mean" and place.whole else None
    if not isinstance(place, Boxes) or place.axes is not None:
        return None
    if name == "mean" and x.dtype == torch.float32 and x.is_contiguous():
        return None  # torch's is at the memory's limit
    return "tuned for whole maps" if name in ("mean", "max", "gem", "logsumexp", "softmax") else None


def forward(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    if not _windows(name, place):
        return launch_whole.forward(name, x, place, parameters, keep, out)
    keep = keep and name == "max"  # a mean's gradient needs nothing
    if is_channels_last(x):
        return launch_pixels.forward(name, x, place, keep, out)  # type: ignore[arg-type]
    return launch_rows.forward(name, x if x.is_contiguous() else x.contiguous(), place, keep, out)  # type: ignore[arg-type]


def kernels(
    name: str, x: Tensor, place: Place, parameters: Parameters, keep: bool, learned: bool
) -> Iterator[Callable[[], object]]:
    """What asks for the kernels of such a call and of its gradient, one by one."""
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    if not _windows(name, place):
        columns, masked = is_channels_last(x), isinstance(place, Labels)
        like = name, x.dtype, x.shape, columns, masked, launch_whole.number_of(name, parameters)
        yield lambda: launch_whole.plan(False, *like, keep)
        if keep:
            yield lambda: launch_whole.plan(True, *like, learned)
        return
    assert isinstance(place, Boxes)
    launcher: Any = launch_pixels if is_channels_last(x) else launch_rows
    windows: Any = x.dtype, tuple(x.shape), place.axes, place.divisor
    yield lambda: launcher.plan(name, *windows, keep and name == "max", False)
    if keep:
        yield lambda: launcher.plan_back(name, *windows)


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
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    if not _windows(name, place):
        return launch_whole.backward(
            name, grad, x, out, kept, shape, place, parameters, want_x, want_parameter, channels_last
        )
    if channels_last:
        return launch_pixels.backward(name, grad, kept, shape, place, grad.dtype), None  # type: ignore[arg-type]
    return launch_rows.backward(name, grad, kept[0] if kept else None, tuple(shape), place), None  # type: ignore[arg-type]


def positions(x: Tensor, place: Place, kept: Tensor, name: str) -> Tensor:
    """For each answer the position on the flattened map that a kept number stands for. `x`: any map of that shape."""
    return winners(place, kept, tuple(x.shape), _windows(name, place))
