"""Launching rows.py and rows_back.py: windows of contiguous maps, max and mean."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapstone.loops.launch_places import divisors
from gapstone.loops.memory import empty
from gapstone.loops.memory_format import STORAGE
from gapstone.loops.tuned import launch
from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.tuned.launch import LaunchPlan, copy, run, table_of
from gapstone.loops.tuned.row_back_codegen import RowsBack
from gapstone.loops.tuned.row_codegen import Rows
from gapstone.loops.tuned.scatter import Scatter
from gapstone.loops.tuned.tuned_kernels import kernel
from gapstone.loops.tuned.window_support import FLOATS, ONE, Axes, three
from gapstone.regions.places import Divisor, Intervals, Windows

BAND = 1 << 14  # bytes of a plane from which it is done in bands of rows, while they are in the first cache
BAND_ROWS = 16
MOST_COMPARED = 25
"""Taps up to which comparing them all with the position kept is faster than going there one by one."""


@lru_cache(512)
def plan(name: str, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes, divisor: Divisor, keep: bool,
         exact: bool) -> LaunchPlan:  # fmt: skip
    cells = (*shape[:2], *(axis.cells for axis in axes))
    shape, axes = as_one_plane(shape, axes)
    _, high, wide = three(axes)
    planes = shape[0] * shape[1]
    spec = Rows(
        name, STORAGE[dtype], high.size, wide.size, high.stride, wide.stride, deep=len(axes) == 3, keep=keep,
        exact=exact, paired=wide.cells <= 8 and planes > 1 and dtype in FLOATS,
    )  # fmt: skip
    return _plan(spec, dtype, shape, axes, divisor, high.cells, cells)


@lru_cache(512)
def plan_back(name: str, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes, divisor: Divisor) -> LaunchPlan:
    given = shape
    shape, axes = as_one_plane(shape, axes)
    _, high, wide = three(axes)
    planes = shape[0] * shape[1]
    if name == "max" and dtype == torch.float32 and high.size * wide.size > MOST_COMPARED and len(axes) < 3:
        return _plan(Scatter(), dtype, shape, axes, divisor, high.cells, given)
    columns = -(-(shape[-1] + wide.before) // wide.stride)
    spec = RowsBack(
        name, STORAGE[dtype], high.size, wide.size, high.stride, wide.stride, deep=len(axes) == 3,
        paired=columns <= 8 and planes > 1,
    )  # fmt: skip
    return _plan(spec, dtype, shape, axes, divisor, -(-(shape[-2] + high.before) // high.stride), given)


def as_one_plane(shape: tuple[int, ...], axes: Axes) -> tuple[tuple[int, ...], Axes]:
    """Windows along rows only see all rows of all planes as one plane: one strip goes down them all."""
    if len(axes) == 1:
        rows = prod(shape[:2])
        return (1, 1, rows, shape[-1]), (Windows(rows, 1, 1, 0, 0, 1), *axes)
    if len(axes) == 2 and axes[0][1:] == ONE[1:]:
        rows = prod(shape[:3])
        return (1, 1, rows, shape[-1]), (Windows(rows, 1, 1, 0, 0, 1), axes[1])
    return shape, axes


def _plan(
    spec: Any, dtype: torch.dtype, shape: tuple[int, ...], axes: Axes, divisor: Divisor, rows: int,
    result: tuple[int, ...],
) -> LaunchPlan:  # fmt: skip
    """`rows`: of answers, or backward the rows of windows that rows of dx begin with."""
    deep, high, wide = three(axes)
    planes, spatial = shape[0] * shape[1], (1,) * (5 - len(shape)) + shape[2:]
    item = dtype.itemsize
    slice_bytes = spatial[1] * spatial[2] * item
    band_rows = BAND_ROWS if slice_bytes > BAND and not isinstance(spec, Scatter) else max(rows, 1)  # no image, no row
    bands = -(-rows // band_rows)
    slices = spatial[0] if isinstance(spec, RowsBack) else deep.cells
    tasks = -(-planes // (2 if spec.paired else 1)) * slices * bands
    alive: Any = None
    given = {
        a.TASKS: tasks, a.PLANES: planes, a.D: spatial[0], a.H: spatial[1], a.W: spatial[2], a.OD: deep.cells,
        a.OH: high.cells, a.OW: wide.cells, a.BEFORE_D: deep.before, a.BEFORE_H: high.before,
        a.BEFORE_W: wide.before, a.SD: deep.stride, a.KD: deep.size, a.DD: 1, a.SLICE_BYTES: slice_bytes,
        a.PLANE_BYTES: spatial[0] * slice_bytes, a.OUT_BYTES: deep.cells * high.cells * wide.cells * item,
        a.REACH: spec.lanes * wide.stride + wide.size, a.BANDS: bands, a.BAND_ROWS: band_rows, a.GROUPS: rows,
        a.STRIDE_H: high.stride, a.STRIDE_W: wide.stride,
    }  # fmt: skip
    if isinstance(spec, Scatter):  # per tap, how many bytes it lies behind the window's first place
        offsets = np.add.outer(np.arange(high.size) * spatial[2], np.arange(wide.size)) * item
        alive = np.resize(offsets, 256).astype(np.int64)
        given[a.CLASSES] = alive.ctypes.data
    if spec.op == "mean":
        alone = high[1:] == ONE[1:] and planes == 1  # all rows are alike
        counted = (high._replace(cells=1), wide) if alone else axes
        classes, inverses = alive = reciprocals(counted, spatial, divisor, spec.lanes)
        given |= {a.CLASSES: classes.ctypes.data, a.INVERSES: inverses.ctypes.data, a.CLASS_STEP: 0 if alone else 1}
    work = (prod(shape) + planes * deep.cells * high.cells * wide.cells) * item
    return LaunchPlan(kernel(spec), table_of(given), tasks, work, result, alive)


def reciprocals(axes: Axes, spatial: tuple[int, ...], divisor: Divisor, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """What sums are multiplied by: per row of answers where its table begins, in bytes; the tables, one per divisor.

    Rounded once: a product of two rounded reciprocals would be another unit off.
    """
    missing = 3 - len(axes)
    lengths = spatial[missing:]
    found = [[1]] * missing + [
        divisors(axis, n, divisor, i == 0) for i, (axis, n) in enumerate(zip(axes, lengths, strict=True))
    ]
    of_depth, of_rows, of_columns = (np.array(counts, np.float64) for counts in found)
    per_row = np.multiply.outer(of_depth, of_rows).ravel()
    kinds, which = np.unique(per_row, return_inverse=True)
    columns = np.concatenate([of_columns, np.ones(2 * lanes)])
    with np.errstate(divide="ignore"):  # a window without positions: 0 × ∞ = NaN, as it should be
        tables = (1.0 / np.multiply.outer(kinds, columns)).astype(np.float32)
    return (which * columns.size * 4).astype(np.int64), np.ascontiguousarray(tables)


def forward(
    name: str, x: Tensor, place: Intervals, keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The answers, contiguous."""
    axes: Any = place.axes
    return launch.forward(
        lambda exact: plan(name, x.dtype, tuple(x.shape), axes, place.divisor, keep, exact), x, keep, out, False
    )


def backward(name: str, grad: Tensor, kept: Tensor | None, shape: tuple[int, ...], place: Intervals) -> Tensor:
    """dx, contiguous, in grad's type; `kept`: max's positions."""
    axes: Any = place.axes
    grad = grad.contiguous()
    made = plan_back(name, grad.dtype, shape, axes, place.divisor)
    dx = empty(shape, grad.dtype)
    if not dx.numel():
        return dx
    table = copy(made.table)
    table[a.DX], table[a.GRAD] = dx.data_ptr(), grad.data_ptr()
    if kept is not None:
        kept = kept.contiguous()
        table[a.KEPT] = kept.data_ptr()
    run(made.kernel, table, made.tasks, made.work)
    return dx
