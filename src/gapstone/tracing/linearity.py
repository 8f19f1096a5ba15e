"""Which calls of a tape are linear in what they take: then maps add up to the logits, and their weights are fixed.

A call is linear here where its constants are the same for all images, too.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gapstone.pools import POOLS
from gapstone.tracing import operations as ops
from gapstone.tracing.operations import Operation
from gapstone.tracing.tape import Slot, Tape, TapeCall, leaves

MOVES = (ops.Concat, ops.Copy, ops.Dropout, ops.Permute, ops.Reshape, ops.Slice, ops.Chunk, ops.Squeeze)
"""Calls that move numbers, and change none. A dropout that drops is refused before."""
LAYERS = (ops.BatchNorm, ops.Convolution, ops.LinearLayer)
"""Calls whose constants are parameters: the same for all images, whatever their shape."""
EXTREMES = frozenset(["amax", "amin", "max", "min"])


def is_linear(call: TapeCall, tape: Tape, each_image: bool = False) -> bool:
    """In the tensors of the tape that it takes. each_image: its constants may be each image's own."""
    rule = RULES.get(type(call.operation))
    if rule is None or not rule(call.operation, call, tape):
        return False
    return each_image or isinstance(call.operation, LAYERS) or _same_for_all(call, tape)


def is_homogeneous(op: Operation, inputs: int) -> bool:
    """Whether a call of so many tensors is a pool of which the gradient × what it takes sums to what it gives."""
    if isinstance(op, ops.RegionPool):
        return op.function in POOLS and POOLS[op.function].adds_up and inputs == 1
    if isinstance(op, ops.Reduce):
        return op.function in EXTREMES and inputs == 1
    return isinstance(op, ops.AdaptivePool | ops.WindowPool)


def is_only_input(call: TapeCall, value: object) -> bool:
    """Whether a value is the one tensor of the tape that a call takes."""
    return len(call.input_slots) == 1 and value == Slot(call.input_slots[0])


def _move(op: Operation, call: TapeCall, tape: Tape) -> bool:
    return True


def _same_for_all(call: TapeCall, tape: Tape) -> bool:
    """Whether its constants are those of every image."""
    out = tape.shapes[call.slots[0]]
    constants = [part for part in leaves((call.args, call.kwargs)) if isinstance(part, Tensor)]
    return not any(len(out) == x.dim() > 0 and x.shape[0] == out[0] > 1 for x in constants)


def _reduce(op: ops.Reduce, call: TapeCall, tape: Tape) -> bool:
    return op.function in ("mean", "sum")


def _expand(op: ops.Expand, call: TapeCall, tape: Tape) -> bool:
    return op.function == "expand"


def _cast(op: ops.Cast, call: TapeCall, tape: Tape) -> bool:
    was, now = tape.types[call.input_slots[0]], tape.types[call.slots[0]]
    return now.is_floating_point and now.itemsize >= was.itemsize


def _elementwise(op: ops.Elementwise, call: TapeCall, tape: Tape) -> bool:
    if op.function == "mul":
        return len(call.input_slots) == 1
    if op.function == "div":
        return is_only_input(call, op.input) and op.rounding_mode is None
    return op.function in ("add", "sub", "neg")


def _matrix_product(op: ops.MatrixProduct, call: TapeCall, tape: Tape) -> bool:
    return op.function in ("matmul", "mm") and len(call.input_slots) == 1


def _layer(op: ops.Convolution | ops.LinearLayer, call: TapeCall, tape: Tape) -> bool:
    return op.function != "conv_transpose" and is_only_input(call, op.input)


def _batch_norm(op: ops.BatchNorm, call: TapeCall, tape: Tape) -> bool:
    return len(call.input_slots) == 1 and not op.training


RULES: dict[type[Operation], Callable[[Any, TapeCall, Tape], bool]] = {
    **dict.fromkeys(MOVES, _move),
    ops.BatchNorm: _batch_norm,
    ops.Cast: _cast,
    ops.Convolution: _layer,
    ops.Elementwise: _elementwise,
    ops.Expand: _expand,
    ops.LinearLayer: _layer,
    ops.MatrixProduct: _matrix_product,
    ops.Reduce: _reduce,
}
"""All other calls are not linear."""
