"""Launching pixels.py and pixels_back.py: windows of channels-last maps, max and mean."""

from collections.abc import Sequence
from functools import lru_cache
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapstone.loops.memory import FORMATS, empty
from gapstone.loops.memory_format import STORAGE
from gapstone.loops.tuned import launch
from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.tuned.launch import LaunchPlan, copy, run, table_of
from gapstone.loops.tuned.launch_rows import reciprocals
from gapstone.loops.tuned.pixel_back_codegen import PixelsBack
from gapstone.loops.tuned.pixel_codegen import Pixels
from gapstone.loops.tuned.pixel_scatter import PixelScatter
from gapstone.loops.tuned.tuned_kernels import kernel
from gapstone.loops.tuned.window_support import BYTE_LANES, FLOATS, Axes, three
from gapstone.regions.places import Divisor, Intervals, Windows

TASK = 1 << 18  # bytes of maps and answers per task
MOST_COMPARED = 36
"""Windows that see a position, up to which comparing all their positions kept is faster than going there one by one."""


def by_channels(x: Tensor) -> bool:
    """Channels of a position side by side."""
    if x.dim() in FORMATS:
        return x.is_contiguous(memory_format=FORMATS[x.dim()])
    return x.transpose(1, -1).is_contiguous()


def together(axis: Windows, alone: bool) -> int:
    """How many neighbouring answers are made together. Of small windows 2 x 2: more read too many rows at once (2 x 4:
    10 % slower); of large ones 4 x 4: they share most of what they look at (13 x 13: 2.3x).
    """
    most = 4 if alone or (axis.size >= 7 and axis.stride == 1) else 2
    return max(n for n in (1, 2, 4) if n <= min(axis.cells, most)) if axis.step == 1 else 1


@lru_cache(512)
def plan(name: str, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes, divisor: Divisor, keep: bool,
         exact: bool) -> LaunchPlan:  # fmt: skip
    deep, high, wide = three(axes)
    gh = together(high, False)
    spec = Pixels(
        name, STORAGE[dtype], high.size, wide.size, high.stride, wide.stride, high.step, wide.step, gh,
        together(wide, gh == 1), deep=len(axes) == 3, keep=keep, exact=exact,
        masked=shape[1] < (16 if dtype in FLOATS else BYTE_LANES),
    )  # fmt: skip
    return _plan(spec, dtype, shape, axes, divisor, deep.cells, high.cells // gh)


@lru_cache(512)
def plan_back(name: str, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes, divisor: Divisor) -> LaunchPlan:
    _, high, wide = three(axes)
    many = high.size * wide.size > MOST_COMPARED * high.stride * wide.stride
    if name == "max" and dtype == torch.float32 and many and len(axes) < 3:
        bounds = [axis.bounds(n) for axis, n in zip(axes, shape[2:], strict=True)]
        if all(start < stop for both in bounds for start, stop in zip(*both, strict=True)):  # all have a position
            return _plan(PixelScatter(), dtype, shape, axes, divisor, 1, -(-shape[1] // 16))
    spec = PixelsBack(
        name, STORAGE[dtype], high.size, wide.size, high.stride, wide.stride, high.step, wide.step,
        max(1, 4 // wide.stride), deep=len(axes) == 3, masked=shape[1] < 16,
    )  # fmt: skip
    *_, slices, rows, _ = (1, 1, *shape[2:])
    return _plan(spec, dtype, shape, axes, divisor, slices, rows)


def _plan(
    spec: Pixels | PixelsBack | PixelScatter, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes,
    divisor: Divisor, slices: int, rows: int,
) -> LaunchPlan:  # fmt: skip
    """`slices`, `rows`: that the work can be cut into (of PixelScatter: groups of channels)."""
    deep, high, wide = three(axes)
    images, channels, item = *shape[:2], dtype.itemsize
    depth, height, width = (1,) * (5 - len(shape)) + shape[2:]
    slice_bytes = height * width * channels * item
    answers = (*shape[:2], *(axis.cells for axis in axes))
    work = (prod(shape) + prod(answers)) * item
    bands = max(1, min(rows, work // max(1, images * slices * TASK)))
    least = -inf if dtype in FLOATS else torch.iinfo(dtype).min
    blank = torch.full((channels + 64,), least if spec.op == "max" and isinstance(spec, Pixels) else 0, dtype=dtype)
    given = {
        a.TASKS: images * slices * bands, a.CHANNELS: channels, a.D: depth, a.H: height, a.W: width,
        a.OD: deep.cells, a.OH: high.cells, a.OW: wide.cells, a.BEFORE_D: deep.before, a.BEFORE_H: high.before,
        a.BEFORE_W: wide.before, a.SD: deep.stride, a.KD: deep.size, a.DD: deep.step, a.SLICE_BYTES: slice_bytes,
        a.PLANE_BYTES: depth * slice_bytes, a.BANDS: bands, a.BLANK: blank.data_ptr(),
        a.GROUPS: -(-(width + wide.before) // wide.stride),
    }  # fmt: skip
    tables: Any = None
    if isinstance(spec, PixelScatter):  # per tap, how many bytes it lies behind the window's first place
        rows_of, columns_of = np.arange(high.size) * high.step * width, np.arange(wide.size) * wide.step
        tables = np.resize(np.add.outer(rows_of, columns_of) * channels * item, 256).astype(np.int64)
        given |= {a.CLASSES: tables.ctypes.data, a.STRIDE_H: high.stride, a.STRIDE_W: wide.stride}
    if spec.op == "mean":
        classes, inverses = tables = reciprocals(axes, (depth, height, width), divisor, 0)
        given |= {a.CLASSES: classes.ctypes.data, a.INVERSES: inverses.ctypes.data}
    return LaunchPlan(kernel(spec), table_of(given), given[a.TASKS], work, answers, (blank, tables))


def forward(
    name: str, x: Tensor, place: Intervals, keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The answers, channels-last."""
    if not by_channels(x):
        raise ValueError(f"x: a channels-last tensor, not one of shape {tuple(x.shape)} and strides {x.stride()}.")
    axes: Any = place.axes
    return launch.forward(
        lambda exact: plan(name, x.dtype, tuple(x.shape), axes, place.divisor, keep, exact), x, keep, out, True
    )


def backward(
    name: str, grad: Tensor, kept: Sequence[Tensor], shape: Sequence[int], place: Intervals, dtype: torch.dtype
) -> Tensor:
    """dx, channels-last. `kept`: max's positions."""
    axes: Any = place.axes
    made = plan_back(name, dtype, tuple(shape), axes, place.divisor)
    grad = _arranged(grad.to(dtype), made.result)
    dx = empty(shape, dtype, channels_last=True)
    if not dx.numel():
        return dx
    table = copy(made.table)
    table[a.DX], table[a.GRAD] = dx.data_ptr(), grad.data_ptr()
    if name == "max":
        positions = _arranged(kept[0], made.result)
        table[a.KEPT] = positions.data_ptr()
    run(made.kernel, table, made.tasks, made.work)
    return dx


def _arranged(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    if part.shape != shape:
        raise ValueError(f"grad and kept positions: of shape {shape}, as the answers, not {tuple(part.shape)}.")
    return part if by_channels(part) else part.movedim(1, -1).contiguous().movedim(-1, 1)
