"""Which calls of a tape are linear in what they take: then maps add up to the logits, and their weights are fixed.

A call is linear here where its constants are the same for all images, too.
"""

from collections.abc import Callable

from torch import Tensor

from gapstone.pools import POOLS
from gapstone.tracing import operations as ops
from gapstone.tracing.operations import Operation
from gapstone.tracing.tape import Slot, Tape, TapeCall, leaves

MOVES = (ops.Concat, ops.Copy, ops.Dropout, ops.Permute, ops.Reshape, ops.Slice, ops.Split, ops.Squeeze)
"""Calls that move numbers, and change none. A dropout that drops is refused before."""
EXTREMES = frozenset(["amax", "amin", "max", "min"])


def is_linear(call: TapeCall, tape: Tape) -> bool:
    """In the tensors of the tape that it takes."""
    return RULES[type(call.operation)](call, tape)


def is_homogeneous(op: Operation, inputs: int) -> bool:
    """Whether a call of so many tensors is a pool of which the gradient × what it takes sums to what it gives."""
    if isinstance(op, ops.RegionPool):
        return op.function in POOLS and POOLS[op.function].adds_up and inputs == 1
    if isinstance(op, ops.Reduce):
        return op.function in EXTREMES and inputs == 1
    return isinstance(op, ops.AdaptivePool | ops.Pool)


def takes(call: TapeCall, value: object) -> bool:
    """Whether a value is the one tensor of the tape that a call takes."""
    return len(call.takes) == 1 and value == Slot(call.takes[0])


def _same_for_all(call: TapeCall, tape: Tape) -> bool:
    """Whether its constants are those of every image."""
    out = tape.shapes[call.slots[0]]
    constants = [part for part in leaves((call.args, call.kwargs)) if isinstance(part, Tensor)]
    return not any(len(out) == x.dim() > 0 and x.shape[0] == out[0] > 1 for x in constants)


def _never(call: TapeCall, tape: Tape) -> bool:
    return False


def _reduce(call: TapeCall, tape: Tape) -> bool:
    return call.operation.function in ("mean", "sum") and _same_for_all(call, tape)


def _expand(call: TapeCall, tape: Tape) -> bool:
    return call.operation.function == "expand" and _same_for_all(call, tape)


def _cast(call: TapeCall, tape: Tape) -> bool:
    was, now = tape.types[call.takes[0]], tape.types[call.slots[0]]
    return now.is_floating_point and now.itemsize >= was.itemsize and _same_for_all(call, tape)


def _elementwise(call: TapeCall, tape: Tape) -> bool:
    op = call.operation
    assert isinstance(op, ops.Elementwise)
    if op.function == "mul":
        linear = len(call.takes) == 1
    elif op.function == "div":
        linear = takes(call, op.input) and op.rounding_mode is None
    else:
        linear = op.function in ("add", "sub", "neg")
    return linear and _same_for_all(call, tape)


def _matrix_product(call: TapeCall, tape: Tape) -> bool:
    return call.operation.function in ("matmul", "mm") and len(call.takes) == 1 and _same_for_all(call, tape)


def _layer(call: TapeCall, tape: Tape) -> bool:
    op = call.operation
    assert isinstance(op, ops.Conv | ops.Linear)
    return op.function != "conv_transpose" and takes(call, op.input)


def _batch_norm(call: TapeCall, tape: Tape) -> bool:
    op = call.operation
    assert isinstance(op, ops.BatchNorm)
    return len(call.takes) == 1 and not op.training


RULES: dict[type[Operation], Callable[[TapeCall, Tape], bool]] = {
    **dict.fromkeys(MOVES, _same_for_all),
    ops.BatchNorm: _batch_norm,
    ops.Cast: _cast,
    ops.Conv: _layer,
    ops.Elementwise: _elementwise,
    ops.Expand: _expand,
    ops.Linear: _layer,
    ops.MatrixProduct: _matrix_product,
    ops.Reduce: _reduce,
    **dict.fromkeys(
        [
            ops.AdaptivePool, ops.Attention, ops.Deviation, ops.Glu, ops.GroupNorm, ops.InstanceNorm,
            ops.LayerNorm, ops.Normalize, Operation, ops.Pad, ops.PerPosition, ops.PixelShuffle, ops.Pool, ops.Query,
            ops.Rearrange, ops.RegionPool, ops.Resize, ops.Softmax, ops.VectorNorm,
        ],
        _never,
    ),
}  # fmt: skip
