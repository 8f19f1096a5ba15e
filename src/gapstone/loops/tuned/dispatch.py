"""The tuned loop: kernels written by hand for the pools and places that networks run all day.

`serves` is asked before every call: it imports nothing heavy, and does nothing that torch.compile cannot trace.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import compiled as derived
from gapstone.loops.argmax_positions import argmax_positions
from gapstone.loops.memory_format import is_channels_last
from gapstone.loops.pool_call import Gradients, PoolCall
from gapstone.loops.tuned.window_support import BYTE_LANES, BYTES, FLOATS, MASKED_BYTES, fits
from gapstone.regions.places import Intervals, Labels, Windows

SMALL = {"max": 1 << 15, "mean": 1 << 18}
"""Bytes of a channels-last map below which torch's windows are done before ours have begun."""

saved_types, needs = derived.saved_types, derived.needs


def _over_windows(call: PoolCall) -> bool:
    place = call.place
    return (
        call.name in ("max", "mean")
        and isinstance(place, Intervals)
        and place.axes is not None
        and all(type(axis) is Windows for axis in place.axes)
    )


def serves(call: PoolCall) -> str | None:
    """Why this loop is the one to take; None where it has no kernel, or not the fastest."""
    name, place, dtype = call.name, call.place, call.dtype
    if _over_windows(call):
        axes: Any = place.axes  # type: ignore[union-attr]
        if not fits(name, dtype, axes, call.requires_grad):
            return None
        if call.layout == "contiguous":
            return "tuned for windows of contiguous maps"
        if len(call.shape) == 3 or not call.channels_last:
            return None
        if dtype in BYTES and call.shape[1] < BYTE_LANES and not MASKED_BYTES:
            return None
        # torch has kernels of its own for floating-point maps of two axes
        small = len(call.shape) == 4 and dtype in FLOATS and call.numel * dtype.itemsize < SMALL[name]
        ours = not small or (call.requires_grad and name == "max")
        return "tuned for windows of channels-last maps" if ours else None
    if dtype not in FLOATS:
        return None
    if isinstance(place, Labels):
        return "tuned for masks" if name == "mean" and place.whole else None
    if not call.over_whole_map:
        return None
    if name == "mean" and dtype == torch.float32 and call.layout == "contiguous":
        return None  # torch's is at the memory's limit
    return "tuned for whole maps" if name in ("mean", "max", "gem", "logsumexp", "softmax") else None


def forward(call: PoolCall, x: Tensor, out: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The answers, and what the backward needs. `out`: where the answers go."""
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    if not _over_windows(call):
        return launch_whole.forward(call, x, out)
    assert isinstance(call.place, Intervals)
    keep = call.requires_grad and call.name == "max"  # a mean's gradient needs nothing
    if is_channels_last(x):
        return launch_pixels.forward(call.name, x, call.place, keep, out)
    return launch_rows.forward(call.name, x.contiguous(), call.place, keep, out)


def kernels(call: PoolCall, x: Tensor) -> Iterator[Callable[[], object]]:
    """Functions that each ask for one of the kernels of such a call and of its gradient."""
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    name, keep = call.name, call.requires_grad
    if not _over_windows(call):
        columns, masked = is_channels_last(x), isinstance(call.place, Labels)
        like = name, x.dtype, x.shape, columns, masked, launch_whole.number_of(call)
        yield lambda: launch_whole.plan(False, *like, keep)
        if keep:
            yield lambda: launch_whole.plan(True, *like, call.learned)
        return
    assert isinstance(call.place, Intervals)
    launcher: Any = launch_pixels if is_channels_last(x) else launch_rows
    windows: Any = x.dtype, tuple(x.shape), call.place.axes, call.place.divisor
    yield lambda: launcher.plan(name, *windows, keep and name == "max", False)
    if keep:
        yield lambda: launcher.plan_back(name, *windows)


def backward(
    call: PoolCall, grad: Tensor, x: Tensor | None, out: Tensor | None, saved: Sequence[Tensor], slope: bool = False
) -> Gradients:
    """The gradient of x and, where `slope` asks for it, of the parameter."""
    from gapstone.loops.tuned import launch_pixels, launch_rows, launch_whole

    if not _over_windows(call):
        return launch_whole.backward(call, grad, x, out, saved, slope)
    assert isinstance(call.place, Intervals)
    if call.channels_last:
        return launch_pixels.backward(call.name, grad, saved, call.shape, call.place, grad.dtype), None
    return launch_rows.backward(call.name, grad, saved[0] if saved else None, tuple(call.shape), call.place), None


def positions(call: PoolCall, saved: Tensor) -> Tensor:
    """For each answer the position on the flattened map that a saved number stands for."""
    return argmax_positions(call.place, saved, tuple(call.shape), _over_windows(call))
