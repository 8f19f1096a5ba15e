"""How a recorded call is played on a band: in torch's own functions, on whole windows of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.streaming.row_buffer import RowBuffer
from gapstone.streaming.row_layout import Played, RowCall, RowLayout, SlotFacts
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import replaced

Filled = Callable[[Any], Any]
"""Puts tensors in the place of slots."""


@dataclass(frozen=True)
class RowWindows:
    """Windows of a call along the rows: what `RowBuffer` is made of."""

    extent: int
    stride: int
    before: int
    fill: float


def row_windows(call: RowCall, source: SlotFacts) -> RowWindows:
    op = call.operation
    if isinstance(op, ops.Convolution):
        assert op.kernel_size is not None
        return RowWindows(op.dilation[0] * (op.kernel_size[0] - 1) + 1, op.stride[0], op.padding[0][0], 0.0)
    if isinstance(op, ops.WindowPool):
        extent = op.dilation[0] * (op.kernel_size[0] - 1) + 1
        return RowWindows(extent, op.stride[0], op.padding[0], -inf if op.function == "max" else 0.0)
    assert source.layout is not None
    if isinstance(op, ops.Pad):
        return RowWindows(1, 1, op.padding[source.layout.rows][0], float(_pad_value(*call.args, **call.kwargs) or 0.0))
    assert isinstance(op, ops.Slice)
    assert op.slices is not None
    start, _, step = op.slices[source.layout.rows].indices(source.rows)
    return RowWindows(1, step, -start, 0.0)


def row_buffer(call: RowCall, source: SlotFacts, answer: SlotFacts) -> RowBuffer:
    assert source.layout is not None
    windows = row_windows(call, source)
    return RowBuffer(source.layout.rows, windows.extent, windows.stride, windows.before, answer.rows, windows.fill)


def play_windows(call: RowCall, source: SlotFacts, block: Tensor, first: int, filled: Filled) -> Tensor:
    """The answer of the windows that a block of rows holds; `first`: the number of the first of them."""
    op = call.operation
    if isinstance(op, ops.Convolution):
        weights = _weights(*replaced(call.args, filled), **replaced(call.kwargs, filled))
        return _convolved(op, block, *weights)
    if isinstance(op, ops.WindowPool):
        return _window_pooled(op, source, block, first)
    assert source.layout is not None
    if isinstance(op, ops.Pad):
        pads = [pair for axis, pair in enumerate(op.padding) if axis != source.layout.rows]
        if not any(any(pair) for pair in pads):
            return block
        around = [(0, 0) if axis == source.layout.rows else pair for axis, pair in enumerate(op.padding)]
        flat = [number for pair in around[::-1] for number in pair]
        return F.pad(block, flat, value=_pad_value(*call.args, **call.kwargs))
    assert isinstance(op, ops.Slice)
    assert op.slices is not None
    rows = slice(None, None, op.slices[source.layout.rows].step)  # the block begins with the first of them
    return block[tuple(rows if axis == source.layout.rows else part for axis, part in enumerate(op.slices))]


def _weights(
    input: object, weight: Tensor, bias: Tensor | None = None, stride: object = 1, padding: object = 0,
    dilation: object = 1, groups: int = 1,
) -> tuple[Tensor, Tensor | None, int]:  # fmt: skip
    return weight, bias, groups


def _convolved(op: ops.Convolution, block: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    left, right = op.padding[1]
    if left != right:  # "same" of an even kernel
        block, left = F.pad(block, (left, right, 0, 0)), 0
    return F.conv2d(block, weight, bias, op.stride, (0, left), op.dilation, groups)


def _window_pooled(op: ops.WindowPool, source: SlotFacts, block: Tensor, first: int) -> Tensor:
    padding = (0, op.padding[1])
    if op.function == "max":
        return F.max_pool2d(block, op.kernel_size, op.stride, padding, op.dilation, op.ceil_mode)
    counted = op.count_include_pad
    y = F.avg_pool2d(block, op.kernel_size, op.stride, padding, op.ceil_mode, counted, op.divisor_override)
    if op.divisor_override is not None:
        return y
    # the block holds rows above and below the image, of which torch counts those of the padding, or none
    size, above = op.kernel_size[0], op.padding[0]
    start = torch.arange(first, first + y.shape[2], device=y.device) * op.stride[0] - above
    stop = (start + size).clamp(max=source.rows + above)
    if not counted:
        start, stop = start.clamp(min=0), stop.clamp(max=source.rows)
    rows = stop - start
    return y * (size / rows.to(y.dtype)).view(-1, 1)


def _pad_value(input: object, pad: object, mode: str = "constant", value: float | None = None) -> float | None:
    return value


def play_rows(call: RowCall, source: SlotFacts, answers: tuple[SlotFacts, ...], filled: Filled) -> Any:
    """The answer of a call that keeps rows apart."""
    args, kwargs = replaced(call.args, filled), replaced(call.kwargs, filled)
    layout = answers[0].layout
    if isinstance(call.operation, ops.Cast):
        return args[0].to(answers[0].dtype)
    if call.played is Played.SHAPED:
        assert layout is not None
        return _shaped(args[0], source.layout, answers[0], layout)
    return call.function(*args, **kwargs)


def _shaped(x: Tensor, before: RowLayout | None, answer: SlotFacts, after: RowLayout) -> Tensor:
    """A reshape that keeps positions in order, for as many rows as there are."""
    assert before is not None
    shape = list(answer.shape)
    shape[after.rows] = x.shape[before.rows] // before.width * after.width
    return x.reshape(shape)


def play_once(call: RowCall, filled: Filled, device: torch.device) -> Any:
    """A call that has nothing of a position; what it makes, it makes where the network is."""

    def placed(part: Any) -> Any:
        if isinstance(part, torch.device) and part.type == "meta":
            return device
        return filled(part)

    return call.function(*replaced(call.args, placed), **replaced(call.kwargs, placed))


def groups_of(call: RowCall, channels: int) -> int:
    op = call.operation
    return op.num_groups if isinstance(op, ops.GroupNorm) else channels
