"""Launching over_places.py: what each kind of place is as lists of positions, and how the work is cut into tasks."""

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gapstone.loops import kernel_arguments as a
from gapstone.loops.kernel_call import KernelCall
from gapstone.loops.memory_format import STORAGE
from gapstone.loops.pool_call import Gradients
from gapstone.loops.threads import launch
from gapstone.regions.places import Axis, Divisor, Intervals, Labels, PositionWeights, Rectangles, Windows

if TYPE_CHECKING:
    from gapstone.loops.kernels import Kernel

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


def common(call: KernelCall) -> tuple[dict[int, int], Tensor | None]:
    parameter = call.parameter()
    given = {a.CHANNELS: call.shape[1]}
    if call.x is not None:
        given[a.X] = call.x.data_ptr()
    if parameter is not None:
        given[a.PARAMETER] = parameter.data_ptr()
        given[a.PARAMETER_IMAGE] = call.shape[1] * call.size if parameter.shape[0] > 1 else 0
    return given, parameter


def kernel_of(call: KernelCall, template: str, **more: Any) -> "Kernel":
    from gapstone.loops.specialize import KernelKind, kernel

    kind = KernelKind(
        template, call.pool, STORAGE[call.dtype],
        position="u8" if call.position == torch.uint8 else "i32",
        counted=call.pool.count is not None and not isinstance(call.place, PositionWeights),
        weighted=isinstance(call.place, PositionWeights),
        **more,
    )  # fmt: skip
    return kernel(kind)


def forward_kernel(call: KernelCall, dtype: torch.dtype, parts: tuple[int, ...]) -> "Kernel":
    """`dtype`: of the answers. `parts`: of the state, those that are kept."""
    return kernel_of(call, "runs_forward" if is_run(call) else "places_forward", out=STORAGE[dtype], keep=parts)


def backward_kernel(call: KernelCall, parts: tuple[int, ...], slope: bool) -> "Kernel":
    dx = STORAGE[call.computed if meets(call)[0] else call.dtype]
    template = "runs_backward" if is_run(call) else "places_backward"
    return kernel_of(call, template, out=STORAGE[call.dtype], keep=parts, slope=slope, dx=dx)


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


def forward(call: KernelCall, out: Tensor, parts: tuple[int, ...], saved: list[Tensor]) -> None:
    assert call.x is not None
    given, parameter = common(call)
    place, alive, cells, most = describe(call)
    geometry, scratch = _geometry(call, most)
    given |= {**place, **geometry, a.OUT: out.data_ptr(), a.CELLS: cells}
    given |= {a.KEPT0 + part: tensor.data_ptr() for part, tensor in zip(parts, saved, strict=True)}
    channels, item = call.shape[1], call.dtype.itemsize
    given |= {a.OUT_ROW: channels * cells, a.OUT_LANE: 1 if call.answers_channels_last else cells}
    given[a.OUT_CELL] = channels if call.answers_channels_last else 1
    work = call.x.numel() * item + out.numel() * out.element_size()
    if is_run(call):
        tasks = call.rows * channels
    else:
        per_channel = max(1, prod(call.spatial) * item)
        wanted = max(1, min(channels, TASK // per_channel))
        channels_per_task = min(-(-wanted // call.lanes) * call.lanes, -(-channels // call.lanes) * call.lanes)
        share = max(1, prod(call.spatial) // max(cells, 1)) * min(channels_per_task, channels) * item
        cells_per_task = max(1, min(cells, TASK // share))
        given |= {a.CHANNELS_PER_TASK: channels_per_task, a.CELLS_PER_TASK: cells_per_task}
        tasks = call.rows * -(-channels // channels_per_task) * -(-cells // cells_per_task)
    launch(forward_kernel(call, out.dtype, parts), given, tasks, work, scratch)
    del alive, parameter  # alive until here


def backward(
    call: KernelCall, grad: Tensor, out: Tensor | None, parts: tuple[int, ...], saved: list[Tensor], slope: bool,
) -> Gradients:  # fmt: skip
    images, channels = call.shape[:2]
    given, parameter = common(call)
    place, alive, cells, most = describe(call)
    geometry, scratch = _geometry(call, most)
    given |= {**place, **geometry, a.GRAD: grad.data_ptr(), a.OUT: 0 if out is None else out.data_ptr(), a.CELLS: cells}
    given |= {a.KEPT0 + part: tensor.data_ptr() for part, tensor in zip(parts, saved, strict=True)}
    given |= {a.OUT_ROW: channels * cells, a.OUT_LANE: 1 if call.answers_channels_last else cells}
    given[a.OUT_CELL] = channels if call.answers_channels_last else 1
    add, covers = meets(call)
    storage = call.computed if add else call.dtype
    dx = call.like_x(storage, not covers)
    slopes = torch.zeros((images, channels), dtype=call.computed) if slope else None
    given |= {a.DX: dx.data_ptr(), a.ADD: int(add)}
    given[a.SLOPES] = 0 if slopes is None else slopes.data_ptr()
    if grad.numel():
        work = images * channels * prod(call.spatial) * call.dtype.itemsize
        if is_run(call):
            tasks = images * channels
        else:
            wanted = max(1, min(channels, TASK // max(1, prod(call.spatial) * call.dtype.itemsize)))
            given[a.CHANNELS_PER_TASK] = -(-wanted // call.lanes) * call.lanes
            tasks = images * -(-channels // given[a.CHANNELS_PER_TASK])
        launch(backward_kernel(call, parts, slope), given, tasks, work, scratch)
    else:
        dx.zero_()
    del alive, parameter
    return dx.to(call.dtype), slopes


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
