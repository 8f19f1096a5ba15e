"""Which calls can be played row by row, and where rows and columns stand afterwards.

Every kind of call has a rule here or is refused; a rule raises `StreamError` with the reason, to which the recorder
adds the layer. What a rule accepts is exact: each row of an answer depends on the rows that its player keeps for it.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor

from gapstone.regions.places import Intervals
from gapstone.streaming.row_layout import GivenCall, Played, RowLayout, RowPlace, StreamError
from gapstone.tracing import operations as ops

Rule = Callable[[Any, GivenCall], RowPlace]


def place_of(call: GivenCall) -> RowPlace:
    """How a call is played. Raises StreamError with the reason why it cannot."""
    rule = RULES.get(type(call.operation))
    if rule is None:
        raise StreamError(f"{call.operation.function!r} is not known to keep rows apart")
    return rule(call.operation, call)


def _rows(layout: RowLayout) -> RowPlace:
    return RowPlace(Played.ROWS, layout)


def _alike(call: GivenCall) -> RowLayout:
    """The layout of what was made of all inputs, row by row and broadcast. Raises StreamError."""
    ends = call.layout.from_end(call.x.dim())
    sizes = [call.x.shape[axis] for axis in call.layout.axes]
    for x, layout in call.maps[1:]:
        if layout.from_end(x.dim()) != ends or [x.shape[axis] for axis in layout.axes] != sizes:
            raise StreamError(
                f"{call.operation.function!r} of {tuple(call.x.shape)} and {tuple(x.shape)}: their rows and columns "
                f"are not the same"
            )
    for x in call.others:
        if x.dim() >= ends[0] and x.shape[-ends[0]] != 1:
            raise StreamError(
                f"{call.operation.function!r} with a tensor {tuple(x.shape)} that differs from row to row (a position "
                f"embedding, coordinates)"
            )
    return call.layout.at(call.out.dim() - end for end in ends)


def _elementwise(op: ops.Operation, call: GivenCall) -> RowPlace:
    return _rows(_alike(call))


def _single(op: ops.Operation, call: GivenCall) -> RowPlace:
    """Of one tensor, whose shape stays."""
    if len(call.maps) > 1 or call.out.shape != call.x.shape:
        raise StreamError(f"{op.function!r} of {tuple(call.x.shape)} gives {tuple(call.out.shape)}")
    return _rows(call.layout)


def _dropout(op: ops.Dropout, call: GivenCall) -> RowPlace:
    if op.training:
        raise StreamError("it drops units at random in eval mode, too: F.dropout(x, p, training=self.training)")
    return _single(op, call)


def _batch_norm(op: ops.BatchNorm, call: GivenCall) -> RowPlace:
    if op.training:
        raise StreamError("its batch norm takes the statistics of this one image (training, or no running statistics)")
    return _single(op, call)


def _along(op: Any, call: GivenCall) -> RowPlace:
    """Over one dimension, which may not be one of positions."""
    dim = op.dim if op.dim is not None else (0 if call.x.dim() in (0, 1, 3) else 1)
    if dim % call.x.dim() in call.layout.axes:
        raise StreamError(f"{op.function!r} over positions")
    return _single(op, call) if not isinstance(op, ops.Glu) else _rows(call.layout)


def _layer_norm(op: ops.LayerNorm, call: GivenCall) -> RowPlace:
    if max(call.layout.axes) >= call.x.dim() - op.dims:
        raise StreamError("a layer norm over positions, whose weights are of one image size")
    return _single(op, call)


def _linear(op: ops.LinearLayer, call: GivenCall) -> RowPlace:
    if len(call.maps) > 1 or call.x is not op.input or call.x.dim() - 1 in call.layout.axes:
        raise StreamError("a linear layer over positions")
    return _rows(call.layout)


def _four(call: GivenCall) -> None:
    if len(call.maps) > 1 or call.x.dim() != 4 or not call.layout.are_last(4):
        raise StreamError(f"{call.operation.function!r} of {tuple(call.x.shape)}: expected one map (1, C, H, W)")


def _convolution(op: ops.Convolution, call: GivenCall) -> RowPlace:
    _four(call)
    if op.function != "conv":
        raise StreamError("a transposed convolution, which makes finer rows (upsampling)")
    if op.kernel_size is None or op.input is not call.x:
        raise StreamError("a convolution of weights without a shape, or by weights made of the image")
    return RowPlace(Played.WINDOW, call.layout)


def _window_pool(op: ops.WindowPool, call: GivenCall) -> RowPlace:
    _four(call)
    if op.return_indices:
        raise StreamError("a maximum with its positions (return_indices)")
    return RowPlace(Played.WINDOW, call.layout)


def _pad(op: ops.Pad, call: GivenCall) -> RowPlace:
    around = [op.padding[axis] for axis in call.layout.axes]
    if call.layout.folded:
        if any(any(pair) for pair in around):
            raise StreamError("positions are padded in one dimension")
        return _rows(call.layout)
    if op.function != "constant" and any(any(pair) for pair in around):
        raise StreamError(f"{op.function} padding, which is not that of zeros")
    return RowPlace(Played.WINDOW, call.layout)


def _slice(op: ops.Slice, call: GivenCall) -> RowPlace:
    if op.slices is None or len(call.maps) > 1:
        raise StreamError("an index other than slices")
    rows, step = op.slices[call.layout.rows], op.slices[call.layout.rows].step
    whole = rows.indices(call.x.shape[call.layout.rows])[:2] == (0, call.x.shape[call.layout.rows])
    if whole and step in (None, 1):
        return _rows(call.layout)
    if call.layout.folded:
        raise StreamError("some positions are taken, in one dimension")
    return RowPlace(Played.WINDOW, call.layout)


def _chunk(op: ops.Chunk, call: GivenCall) -> RowPlace:
    if op.dim % call.x.dim() in call.layout.axes:
        raise StreamError(f"{op.function!r} of positions")
    return _rows(call.layout)


def _concat(op: ops.Concat, call: GivenCall) -> RowPlace:
    new = op.function == "stack"
    dim = op.dim % (call.x.dim() + new)
    layout = _alike(call) if not new else call.layout
    if new:
        if len(call.maps) != len(op.tensors) or any(other != call.layout for _, other in call.maps):
            raise StreamError("tensors are stacked that are not all maps")
        layout = call.layout.at(axis + (axis >= dim) for axis in call.layout.axes)
    elif dim in call.layout.axes or any(x.shape[a] != call.x.shape[a] for x in call.others for a in call.layout.axes):
        raise StreamError("maps are put behind each other along positions")
    return _rows(layout)


def _permute(op: ops.Permute, call: GivenCall) -> RowPlace:
    return _rows(call.layout.at(op.order.index(axis) for axis in call.layout.axes))


def _squeeze(op: ops.Squeeze, call: GivenCall) -> RowPlace:
    dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if not isinstance(dim, int):
        raise StreamError(f"{op.function!r} without one dimension that it names")
    adds = op.function.startswith("un")
    dim %= call.x.dim() + adds
    if not adds and (dim in call.layout.axes or call.x.shape[dim] != 1):
        raise StreamError("positions are squeezed away")
    moved = (axis + (axis >= dim) if adds else axis - (axis > dim) for axis in call.layout.axes)
    return _rows(call.layout.at(moved))


def _reshape(op: ops.Reshape, call: GivenCall) -> RowPlace:
    """What stands before the positions stays before them, and they stay in order: as a grid, or in one dimension."""
    x, out, (first, last) = call.x, call.out, call.layout.axes
    size = (
        (x.shape[first] // call.layout.width, call.layout.width)
        if call.layout.folded
        else (x.shape[first], x.shape[last])
    )
    if last - first in (0, 1):
        before = prod(x.shape[:first])
        for axis in range(out.dim()):
            if prod(out.shape[:axis]) != before:
                continue
            if tuple(out.shape[axis : axis + 2]) == size:
                return RowPlace(Played.SHAPED, RowLayout(axis, axis + 1))
            if out.shape[axis] == prod(size):
                return RowPlace(Played.SHAPED, RowLayout(axis, axis, size[1]))
    raise StreamError(f"{op.function!r} of {tuple(x.shape)} into {tuple(out.shape)} puts positions in another order")


def _reduced(layout: RowLayout, dims: Sequence[int], keepdim: bool) -> RowLayout:
    return layout if keepdim else layout.at(axis - sum(d < axis for d in dims) for axis in layout.axes)


def _reduce(op: ops.Reduce | ops.Scale, call: GivenCall) -> RowPlace:
    dims = tuple(range(call.x.dim())) if op.dims is None else op.dims
    over = set(dims) & set(call.layout.axes)
    if not over:
        return _rows(_reduced(call.layout, dims, op.keepdim))
    if over != set(call.layout.axes):
        raise StreamError(f"{op.function!r} over rows alone, or columns alone")
    if op.function not in TOTALS or op.dtype is not None:
        raise StreamError(f"{op.function!r} over positions; {', '.join(TOTALS)} can be summed up")
    if isinstance(op, ops.Scale) and _order(call) not in (2, None):
        raise StreamError(f"{op.function!r} of another order than 2 over positions")
    return RowPlace(Played.POOL, None)


def _order(call: GivenCall) -> object:
    """p, or ord: which norm is taken."""
    named = call.kwargs.get("p", call.kwargs.get("ord"))
    given = call.args[1] if len(call.args) > 1 and not isinstance(call.args[1], Tensor) else None
    order = named if named is not None else given
    return 2 if order == "fro" else order


def _adaptive(op: ops.AdaptivePool, call: GivenCall) -> RowPlace:
    _four(call)
    if set(op.output_size) != {1} or len(call.outs) > 1:
        raise StreamError(
            f"a pool to a grid of {tuple(call.out.shape[2:])} cells: of the whole image, one cell can be streamed"
        )
    return RowPlace(Played.POOL, None)


def _region_pool(op: ops.RegionPool, call: GivenCall) -> RowPlace:
    _four(call)
    if not isinstance(op.place, Intervals) or op.place.axes is not None:
        raise StreamError(
            f"gapstone's pool {op.function!r} over windows or a grid: of the whole map it can be streamed"
        )
    if any(isinstance(value, Tensor) and value.dim() > 2 for value in op.parameters.values()):
        raise StreamError(f"the pool {op.function!r}, whose weights are computed for each position")
    return RowPlace(Played.POOL, None)


def _norm(op: ops.GroupNorm | ops.InstanceNorm, call: GivenCall) -> RowPlace:
    _four(call)
    if isinstance(op, ops.InstanceNorm) and not op.use_input_stats:
        return _single(op, call)
    return RowPlace(Played.NORM, call.layout)


def _query(op: ops.Query, call: GivenCall) -> RowPlace:
    if call.out.shape != call.x.shape or call.out.stride() != call.x.stride():
        raise StreamError("a view that is taken as an attribute")
    return _single(op, call)


def _expand(op: ops.Expand, call: GivenCall) -> RowPlace:
    if op.function != "expand_as" and call.out.shape != call.x.shape:
        raise StreamError("a map is expanded to a size that the call names")
    return _elementwise(op, call)


TOTALS = {"mean": "mean", "sum": "sum", "amax": "max", "max": "max", "amin": "min", "min": "min", "norm": "l2",
          "logsumexp": "logsumexp", "linalg_norm": "l2", "linalg_vector_norm": "l2"}  # fmt: skip
"""Reductions over all positions, and the pool that sums them up."""

RULES: dict[type[ops.Operation], Rule] = {
    ops.AdaptivePool: _adaptive,
    ops.BatchNorm: _batch_norm,
    ops.Cast: _elementwise,
    ops.Chunk: _chunk,
    ops.Concat: _concat,
    ops.Convolution: _convolution,
    ops.Copy: _single,
    ops.Dropout: _dropout,
    ops.Elementwise: _elementwise,
    ops.Expand: _expand,
    ops.Glu: _along,
    ops.GroupNorm: _norm,
    ops.InstanceNorm: _norm,
    ops.LayerNorm: _layer_norm,
    ops.LinearLayer: _linear,
    ops.Normalize: _along,
    ops.Pad: _pad,
    ops.PerPosition: _single,
    ops.Permute: _permute,
    ops.Query: _query,
    ops.Reduce: _reduce,
    ops.RegionPool: _region_pool,
    ops.Reshape: _reshape,
    ops.Scale: _reduce,
    ops.Slice: _slice,
    ops.Softmax: _along,
    ops.Squeeze: _squeeze,
    ops.WindowPool: _window_pool,
}
"""Calls of other kinds are refused: attention and products of matrices, upsampling, what puts positions elsewhere."""
