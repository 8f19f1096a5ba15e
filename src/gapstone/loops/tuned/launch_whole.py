"""Launching the kernels over whole maps: mean, max, gem, logsumexp, softmax, and mean and max in one read.

Same contract as loops/compiled.py: the same answers, saved tensors and gradients, so each loop's backward accepts the
other's forward. These kernels only detect NaN, infinities and cubes that overflow; the compiled loop then computes the
call again.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import compiled
from gapstone.loops.memory import empty
from gapstone.loops.memory_format import STORAGE, arranged, is_channels_last
from gapstone.loops.pool_call import Gradients, Parameters, PoolCall
from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.tuned.launch import LaunchPlan, copy, run, table_of
from gapstone.loops.tuned.tuned_kernels import kernel
from gapstone.loops.tuned.whole_back_codegen import WholeMapBack
from gapstone.loops.tuned.whole_codegen import CHANNELS_PER_TASK, WholeMap
from gapstone.loops.tuned.whole_state import LANES
from gapstone.loops.tuned.window_support import FLOATS
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals, Labels, Place

# what is saved for the backward, as saved_types of loops/compiled.py says
SAVED: dict[str, list[torch.dtype]] = {
    "mean": [], "max": [torch.int32], "avgmax": [torch.int32], "gem": [torch.float32] * 3,
    "logsumexp": [torch.float32] * 2, "softmax": [torch.float32] * 2,
}  # fmt: skip
TASK = 1 << 17  # bytes of x per task, where there are many
FEW_TASKS = 8
PIECES = 64  # channels, and bytes of a mask, come in multiples of this


# ---- a call's facts that are the same for every tensor of this shape


@lru_cache(512)
def plan(
    backward: bool, name: str, dtype: torch.dtype, shape: torch.Size, columns: bool, masked: bool, number: float | None,
    more: bool,
) -> LaunchPlan:  # fmt: skip
    """`more`: what is kept forward, the slope backward. Refuses what there is no kernel for, once per shape."""
    if dtype not in FLOATS or not 3 <= len(shape) <= 5:
        raise TypeError(f"{name} of {dtype}, shape {tuple(shape)}: there is no kernel for it.")
    images, channels, length = shape[0], shape[1], prod(shape[2:])
    if length >= 2**31 or channels >= 2**31 or 0 in shape:
        raise ValueError(f"{name} of shape {tuple(shape)}: too large, or nothing.")
    power = int(number) if name == "gem" and number in (2.0, 3.0) else 0
    spec: WholeMap | WholeMapBack
    if backward:
        spec = WholeMapBack(name, STORAGE[dtype], columns, 0 if more else power, masked, more)
    else:
        spec = WholeMap(name, STORAGE[dtype], columns, more and bool(SAVED[name]), power, masked)
    row = length * dtype.itemsize
    if columns:
        # all channels of a position together, as they lie: 1.4x faster than 64 of 256; but two threads want tasks
        ranges = max(-(-channels // CHANNELS_PER_TASK), min(-(-FEW_TASKS // images), images * channels * row // TASK))
        per_task = max(-(-channels // max(ranges, 1) // PIECES) * PIECES, PIECES)
        tasks = images * -(-channels // per_task)
    else:
        per_task = max(1, TASK // row)
        if per_task >= 4:  # sixteen maps are done together
            per_task = -(-per_task // LANES) * LANES
        tasks = -(-images * channels // per_task)
    parameter = ctypes.c_float(0.0 if number is None else number)
    given = {
        a.TASKS: tasks, a.MAPS: images * channels, a.CHANNELS: channels, a.LENGTH: length, a.PER_TASK: per_task,
        a.PARAMETER: ctypes.addressof(parameter), a.PERIOD: 1,
    }  # fmt: skip
    return LaunchPlan(
        kernel(spec), table_of(given, a.HOW_MANY), tasks, images * channels * row, (images, channels), parameter
    )


@lru_cache(512)
def checked(name: str, value: float) -> float:
    """p or r as a number."""
    ((key, knob),) = POOLS[name].parameters.items()
    if not knob.computed[0] <= value <= knob.computed[1]:
        raise ValueError(f"{name}: {key}={value!r} is not from {knob.computed[0]:g} to {knob.computed[1]:g}.")
    return float(value)


def number_of(call: PoolCall) -> float | None:
    """p or r where it is one number; None: it is a tensor, or the pool has none."""
    if not call.parameters or isinstance(call.parameters[0], Tensor):
        return None
    return checked(call.name, call.parameters[0])


def put_parameter(table: Any, parameters: Parameters, images: int, channels: int) -> Tensor | None:
    """Into the table, where it is a tensor; what must be kept alive."""
    if not parameters or not isinstance(parameters[0], Tensor):
        return None
    given: Tensor = parameters[0]
    if tuple(given.shape) not in ((), (1,), (channels,), (1, 1), (1, channels), (images, 1), (images, channels)):
        raise ValueError(f"a parameter of shape {tuple(given.shape)} for {images} images of {channels} channels.")
    given = given.detach().to("cpu", torch.float32)
    if given.dim() == 2 and given.shape[0] > 1:
        given = given.expand(images, channels)
    given = given.contiguous()
    table[a.PARAMETER], table[a.PERIOD] = given.data_ptr(), given.numel()
    return given


def put_mask(table: Any, place: Place, x_shape: Sequence[int], columns: bool) -> Any:
    """Which positions count, into the table: a byte for each, and of channels-last maps a list of them."""
    assert isinstance(place, Labels)
    images, length = x_shape[0], prod(x_shape[2:])
    labels = place.labels
    if labels.shape[0] not in (1, images) or tuple(labels.shape[1:]) != tuple(x_shape[2:]) or not place.whole:
        raise ValueError(f"a mask of shape {tuple(labels.shape)} for a map of shape {tuple(x_shape)}.")
    mask = torch.zeros(labels.shape[0], -(-length // PIECES) * PIECES, dtype=torch.bool)
    mask[:, :length] = labels.flatten(1) == 0
    counts = mask.sum(1)
    shared = len(mask) < images
    table[a.MASK], table[a.MASK_ROW] = mask.data_ptr(), 0 if shared else mask.shape[1]
    every = counts.expand(images).contiguous()
    table[a.COUNTS] = every.data_ptr()
    positions = begins = None
    if columns:
        positions = mask.nonzero()[:, 1].contiguous()
        begins = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        table[a.POSITIONS], table[a.BEGINS] = positions.data_ptr(), begins.data_ptr()
        table[a.BEGINS_ROW] = 0 if shared else 8
    return mask, every, positions, begins


# ---- checks: the kernels are told addresses


def layout(x: Tensor) -> tuple[Tensor, bool]:
    """x, contiguous or channels-last, and whether it is the latter."""
    if x.device.type != "cpu":
        raise TypeError(f"a tensor on {x.device}: these are kernels of the CPU.")
    x = arranged(x)
    return x, is_channels_last(x)


def check_place(name: str, place: Place) -> bool:
    """Whether there is a mask."""
    masked = isinstance(place, Labels)
    if (masked and name != "mean") or not (masked or (isinstance(place, Intervals) and place.axes is None)):
        raise ValueError(f"{name} over {type(place).__name__}: no kernel for it.")
    return masked


def answers(name: str, given: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
    """One number per image and channel, contiguous."""
    if given is None or tuple(given.shape) != shape or given.dtype != dtype or given.device.type != "cpu":
        found = "missing" if given is None else f"{given.dtype} of shape {tuple(given.shape)} on {given.device}"
        raise ValueError(f"{name}: {what} must be {dtype} of shape {shape}, is {found}.")
    return given.contiguous()


def written(name: str, out: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if answers(name, out, shape, dtype, "out") is not out:
        raise ValueError(f"{name}: out must be contiguous.")
    return out


# ---- forward


def forward(call: PoolCall, x: Tensor, out: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The answers over a place, and what the backward needs besides x and the answers."""
    name, place = call.name, call.place
    masked, (x, columns) = check_place(name, place), layout(x)
    shape = x.shape
    few = shape[:2]
    out = torch.empty(few, dtype=x.dtype) if out is None else written(name, out, few, x.dtype)
    if 0 in shape:
        return _derived(call, x, out)
    made = plan(False, name, x.dtype, shape, columns, masked, number_of(call), call.requires_grad)
    table = copy(made.table)
    table[a.X], table[a.OUT] = x.data_ptr(), out.data_ptr()
    alive = (
        put_parameter(table, call.parameters, few[0], few[1]),
        put_mask(table, place, shape, columns) if masked else None,
    )
    saved: list[Tensor] = []
    if call.requires_grad:
        saved = [torch.empty(few, dtype=kind) for kind in SAVED[name]]
        for at, part in zip((a.KEPT0, a.KEPT1), saved, strict=False):
            table[at] = part.data_ptr()
        if len(saved) == 3:
            saved[2].fill_(prod(shape[2:]))  # how many
    run(made.kernel, table, made.tasks, made.work)
    del alive  # alive until here
    return _derived(call, x, out) if table[a.BAD] else (out, saved)


def _derived(call: PoolCall, x: Tensor, out: Tensor) -> tuple[Tensor, list[Tensor]]:
    answers, saved = compiled.forward(call, x)
    return out.copy_(answers), saved


def avgmax(x: Tensor, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """(mean, max) in one read of x."""
    return _avgmax(x, out, False)[:2]


def avgmax_kept(x: Tensor, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and each maximum's position, which avgmax_backward needs."""
    mean, largest, position = _avgmax(x, out, True)
    assert position is not None
    return mean, largest, position


def _avgmax(x: Tensor, out: tuple[Tensor, Tensor] | None, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    x, columns = layout(x)
    made = plan(False, "avgmax", x.dtype, x.shape, columns, False, None, keep)
    few = x.shape[:2]
    given = (torch.empty(few, dtype=x.dtype), torch.empty(few, dtype=x.dtype)) if out is None else out
    mean, largest = (written("avgmax", one, few, x.dtype) for one in given)
    position = torch.empty(few, dtype=torch.int32) if keep else None
    table = copy(made.table)
    table[a.X], table[a.OUT], table[a.SECOND] = x.data_ptr(), mean.data_ptr(), largest.data_ptr()
    table[a.KEPT0] = 0 if position is None else position.data_ptr()
    run(made.kernel, table, made.tasks, made.work)
    if table[a.BAD]:
        _derived(PoolCall.of(POOLS["mean"], x, Intervals(None)), x, mean)
        position = _derived(PoolCall.of(POOLS["max"], x, Intervals(None), (), True), x, largest)[1][0]
    return mean, largest, position


# ---- backward


def backward(
    call: PoolCall, grad: Tensor, x: Tensor | None, out: Tensor | None, saved: Sequence[Tensor], slope: bool = False
) -> Gradients:
    """d answer / d x and, per image and channel, d answer / d parameter, both times `grad`."""
    name, full, columns = call.name, torch.Size(call.shape), call.channels_last
    masked = check_place(name, call.place)
    looks = name in ("gem", "logsumexp", "softmax")
    if looks:
        if x is None or x.shape != full or x.dtype != grad.dtype:
            raise ValueError(f"{name}: its backward needs x, {grad.dtype} of shape {tuple(full)}.")
        x, columns = layout(x)
    if slope and not looks:
        raise ValueError(f"{name} has no parameter that could be learned.")
    if len(saved) != len(SAVED[name]):
        raise ValueError(f"{name}: {len(SAVED[name])} tensors are saved, not {len(saved)}.")
    few = full[:2]
    grad = answers(name, grad, few, grad.dtype, "grad")
    saved = [answers(name, part, few, kind, "saved") for part, kind in zip(saved, SAVED[name], strict=True)]
    # logsumexp looks at its answer for its slope only
    wants_out = looks and (name == "softmax" or slope)
    out = answers(name, out, few, grad.dtype, "out") if wants_out else grad
    dx = empty(full, grad.dtype, columns)
    slopes = torch.zeros(few) if slope else None
    if 0 in full:
        return dx, slopes
    made = plan(True, name, grad.dtype, full, columns, masked, number_of(call), slope)
    table = copy(made.table)
    table[a.GRAD] = table[a.SECOND_GRAD] = grad.data_ptr()
    table[a.DX], table[a.X], table[a.OUT] = dx.data_ptr(), 0 if x is None else x.data_ptr(), out.data_ptr()
    table[a.SLOPES] = 0 if slopes is None else slopes.data_ptr()
    for at, part in zip((a.KEPT0, a.KEPT1), saved, strict=False):
        table[at] = part.data_ptr()
    alive = (
        put_parameter(table, call.parameters, few[0], few[1]),
        put_mask(table, call.place, full, columns) if masked else None,
    )
    run(made.kernel, table, made.tasks, 2 * made.work)
    del alive
    return compiled.backward(call, grad, x, out, saved, slope) if table[a.BAD] else (dx, slopes)


def avgmax_backward(
    mean_grad: Tensor, max_grad: Tensor, position: Tensor, shape: Sequence[int], channels_last: bool = False
) -> Tensor:
    """dx of both, in one write."""
    full = torch.Size(shape)
    few = full[:2]
    mean_grad = answers("avgmax", mean_grad, few, mean_grad.dtype, "the mean's grad")
    max_grad = answers("avgmax", max_grad, few, mean_grad.dtype, "the maximum's grad")
    position = answers("avgmax", position, few, torch.int32, "position")
    made = plan(True, "avgmax", mean_grad.dtype, full, channels_last, False, None, False)
    dx = empty(full, mean_grad.dtype, channels_last)
    table = copy(made.table)
    table[a.GRAD], table[a.SECOND_GRAD] = mean_grad.data_ptr(), max_grad.data_ptr()
    table[a.KEPT0], table[a.DX] = position.data_ptr(), dx.data_ptr()
    run(made.kernel, table, made.tasks, made.work)
    return dx
