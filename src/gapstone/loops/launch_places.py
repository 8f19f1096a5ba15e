"""Launching over_places.py: what each kind of place is as lists of positions, and how the work is cut into tasks."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapstone.loops import kernel_arguments as a
from gapstone.loops.kernel_call import KernelCall, KernelWork
from gapstone.regions.places import Axis, Divisor, Intervals, Labels, PositionWeights, Rectangles, Windows

MOST_KEPT = 1 << 16  # positions of a whole map whose list is kept for the next call
RUN = 1024  # positions from which a contiguous whole map is faster as a run than with its channels as lanes
BLOCK = 128
MOST_LEVELS = 40
TASK = 1 << 17  # bytes of x per task


def is_run(call: KernelCall) -> bool:
    place = call.place
    return isinstance(place, Intervals) and place.axes is None and not call.channels_last and prod(call.spatial) >= RUN


@lru_cache(256)
def intervals(axes: tuple[Axis, ...], spatial: tuple[int, ...], divisor: Divisor) -> tuple[dict[int, int], Any]:
    """Per axis where each interval starts and stops, and what the mean divides by; and what keeps the tables alive."""
    missing = 3 - len(axes)
    tables: list[list[int]] = [[0]] * missing + [axis.bounds(n)[0] for axis, n in zip(axes, spatial, strict=True)]
    tables += [[1]] * missing + [axis.bounds(n)[1] for axis, n in zip(axes, spatial, strict=True)]
    if divisor != "positions":
        tables += [[1]] * missing
        for number, (axis, n) in enumerate(zip(axes, spatial, strict=True)):
            tables.append(divisors(axis, n, divisor, number == 0))
    arrays = [np.array(table, np.int64) for table in tables]
    given = {at: array.ctypes.data for at, array in zip(range(a.STARTS0, a.COUNTS2 + 1), arrays, strict=False)}
    cells, lengths = [1] * missing + [axis.cells for axis in axes], [1] * missing + list(spatial)
    steps = [1] * missing + [axis.step for axis in axes]
    given |= {a.CELLS1: cells[1], a.CELLS2: cells[2], a.LENGTH1: lengths[1], a.LENGTH2: lengths[2]}
    given |= {a.STEP0: steps[0], a.STEP1: steps[1], a.STEP2: steps[2]}
    return given, arrays


def divisors(axis: Axis, length: int, divisor: Divisor, first: bool) -> list[int]:
    """One axis's factor of what a mean divides by, per cell."""
    if isinstance(divisor, int):
        return [divisor if first else 1] * axis.cells
    if isinstance(axis, Windows) and divisor == "padded":
        return axis.padded(length)
    if isinstance(axis, Windows) and divisor == "window":
        return [axis.size] * axis.cells
    return [len(range(start, stop, axis.step)) for start, stop in zip(*axis.bounds(length), strict=True)]


def whole_list(positions: int) -> tuple[Tensor, Tensor]:
    return torch.arange(positions), torch.tensor([0, positions])


kept_list = lru_cache(64)(whole_list)


def lists_of(call: KernelCall) -> tuple[Tensor, Tensor, Tensor | None]:
    """The positions of each answer, where each answer's begin (B, answers + 1), their weights."""
    place = call.place
    if isinstance(place, PositionWeights):
        labels, count = torch.where(place.weights > 0, 0, -1), 1
    else:
        assert isinstance(place, Labels)
        labels, count = place.labels, place.count
    images = labels.shape[0]
    ordered, order = labels.flatten(1).sort(dim=1, stable=True)
    edges = torch.arange(count + 1).expand(images, -1).contiguous()
    begins = torch.searchsorted(ordered, edges) + torch.arange(images)[:, None] * order.shape[1]
    weights = None
    if isinstance(place, PositionWeights):
        weights = place.weights.flatten(1).to(call.computed).gather(1, order).contiguous()
    return order.contiguous(), begins.contiguous(), weights


def describe(call: KernelCall) -> tuple[dict[int, int], Any, int, int]:
    """The place as arguments; what keeps them alive; answers per row; positions of the largest listed box."""
    place = call.place
    if isinstance(place, Intervals) and place.axes is not None:
        given, alive = intervals(place.axes, call.spatial, place.divisor)
        return given, alive, prod(call.cells), prod(axis.most for axis in place.axes)
    if is_run(call):  # needs no list, which of bytes would be 8 times the map
        return {}, None, 1, 0
    if isinstance(place, Intervals):
        many = prod(call.spatial)
        positions, begins = kept_list(many) if many <= MOST_KEPT else whole_list(many)
        return {a.POSITIONS: positions.data_ptr(), a.LISTS: begins.data_ptr()}, (positions, begins), 1, 0
    if isinstance(place, Rectangles):
        return _rectangles(call, place)
    order, begins, weights = lists_of(call)
    given = {a.POSITIONS: order.data_ptr(), a.LISTS: begins.data_ptr()}
    given[a.LISTS_ROW] = begins.shape[1] if begins.shape[0] > 1 else 0
    given[a.WEIGHTS] = weights.data_ptr() if weights is not None else 0
    return given, (order, begins, weights), begins.shape[1] - 1, 0


def _rectangles(call: KernelCall, place: Rectangles) -> tuple[dict[int, int], Any, int, int]:
    missing = 3 - len(call.spatial)
    lengths = [1] * missing + list(call.spatial)
    cells = [1] * missing + list(call.cells)
    zeros, ones = torch.zeros(call.rows, 1, dtype=torch.int64), torch.ones(call.rows, 1, dtype=torch.int64)
    # no kernel looks outside the map, whatever it is told
    starts = [zeros] * missing + [s.long().clamp(min=0).contiguous() for s in place.starts]
    stops = [ones] * missing
    stops += [s.long().clamp(max=n).contiguous() for s, n in zip(place.stops, call.spatial, strict=True)]
    images = place.images.long().contiguous()
    given = {at: table.data_ptr() for at, table in zip(range(a.STARTS0, a.STOPS2 + 1), starts + stops, strict=True)}
    given |= {a.CELLS1: cells[1], a.CELLS2: cells[2], a.LENGTH1: lengths[1], a.LENGTH2: lengths[2], a.BOXES_ROW: 1}
    given |= {a.STEP0: 1, a.STEP1: 1, a.STEP2: 1, a.IMAGES: images.data_ptr()}
    return given, (starts, stops, images), prod(cells), prod(call.spatial)


def template(call: KernelCall) -> tuple[str, bool]:
    """The template, without its direction; none masks places that are not on the map."""
    return "runs" if is_run(call) else "places", False


def _geometry(call: KernelCall, most: int) -> tuple[dict[int, int], int]:
    channels = call.shape[1]
    positions, item = prod(call.spatial), call.dtype.itemsize
    lane = 1 if call.channels_last else positions
    given = {
        a.ROWS: call.rows,
        a.LENGTH: positions,
        a.IMAGE_BYTES: channels * positions * item,
        a.LANE_BYTES: lane * item,
        a.POSITION_BYTES: (channels if call.channels_last else 1) * item,
    }
    width = call.lanes * call.size
    sizes = {
        a.TABLE: 8 * max(most, 1),
        a.BUFFER: BLOCK * width,
        a.SPILL: BLOCK * width,
        a.LEVELS: MOST_LEVELS * len(call.pool.empty) * 16 * call.lanes,
        a.LINE: 16 * call.lanes,
    }
    offset = 0
    for at, size in sizes.items():
        given[at] = offset
        offset += -(-size // 64) * 64
    return given, offset


def work(call: KernelCall, backward: bool) -> KernelWork:
    """How a call is cut: rows of answers, channels, and forward also cells."""
    place, alive, cells, most = describe(call)
    geometry, scratch = _geometry(call, most)
    channels, last = call.shape[1], call.answers_channels_last
    arguments = {
        **place, **geometry, a.CELLS: cells, a.OUT_ROW: channels * cells, a.OUT_LANE: 1 if last else cells,
        a.OUT_CELL: channels if last else 1,
    }  # fmt: skip
    if is_run(call):
        return KernelWork(arguments, call.rows * channels, scratch, alive)
    positions, item = prod(call.spatial), call.dtype.itemsize
    wanted = max(1, min(channels, TASK // max(1, positions * item)))
    per_task = arguments[a.CHANNELS_PER_TASK] = -(-wanted // call.lanes) * call.lanes
    tasks = -(-channels // per_task)
    if backward:
        return KernelWork(arguments, call.shape[0] * tasks, scratch, alive)
    share = max(1, positions // max(cells, 1)) * min(per_task, channels) * item
    cells_per_task = arguments[a.CELLS_PER_TASK] = max(1, min(cells, TASK // share))
    return KernelWork(arguments, call.rows * tasks * -(-cells // cells_per_task), scratch, alive)


def meets(call: KernelCall) -> tuple[bool, bool]:
    """Whether a position can be in several boxes, and whether every one is in some box."""
    place = call.place
    if isinstance(place, Rectangles):
        return True, False
    if not isinstance(place, Intervals):
        return False, False
    if place.axes is None:
        return False, True
    overlap, covers = False, True
    for axis, length in zip(place.axes, call.spatial, strict=True):
        if axis.step != 1:
            return True, False
        starts, stops = axis.bounds(length)
        overlap |= any(stop > start for stop, start in zip(stops, starts[1:], strict=False))
        covers &= starts[0] <= 0 and stops[-1] >= length
        covers &= all(start <= stop for stop, start in zip(stops, starts[1:], strict=False))
    return overlap, covers and not overlap
