"""Which dimension of a tensor holds tokens, call by call, and how many stand before those of the positions.

x (N, 1 + J, C)  → qkv, reshaped, permuted  (N, heads, 1 + J, C / heads): dimension 2
x[:, 1:]         → the class token is gone: none before
cat([token, x])  → one more
x[:, 0]          → of no position
q @ k            → two dimensions of tokens: whose they hear, and who hears
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any

from torch import Tensor

from gapstone.tracing import operations as ops
from gapstone.tracing.mixing import PRODUCTS
from gapstone.tracing.tape import Slot, Tape, TapeCall

Rows = Mapping[int, int]
"""Dimension → tokens before those of the positions, which stand last. Empty: of no position."""
NOWHERE: Rows = {}
ATTENTIONS = frozenset(["scaled_dot_product_attention", "multi_head_attention_forward"])


class NotInRowsError(Exception):
    """A call after which it is not known in which rows the tokens stand."""


def token_rows(tape: Tape, prefix: int) -> dict[int, Rows]:
    """By slot of a tape whose map is tokens (N, prefix + J, C); without those for which it is not known."""
    rows: dict[int, Rows] = {0: {tape.axes[0]: prefix}}
    for call in tape.calls:
        rule = _attended if call.operation.function in ATTENTIONS else RULES.get(type(call.operation), _alike)
        if all(slot in rows for slot in call.input_slots):
            with suppress(NotInRowsError):
                rows |= dict.fromkeys(call.slots, rule(call, call.operation, rows, tape))
    return rows


Made = dict[int, Rows]


def _alike(call: TapeCall, op: ops.Operation, rows: Made, tape: Tape) -> Rows:
    """What keeps its dimensions, counted from the last one; numbers of no position may be broadcast to all."""
    out = tape.shapes[call.slots[0]]
    found: dict[int, int] = {}
    for slot in call.input_slots:
        shift = len(out) - len(tape.shapes[slot])
        for axis, before in rows[slot].items():
            same = shift >= 0 and out[axis + shift] == tape.shapes[slot][axis]
            if not same or found.setdefault(axis + shift, before) != before:
                raise NotInRowsError(call.name)
    return found


def _row_by_row(call: TapeCall, op: Any, rows: Made, tape: Tape) -> Rows:
    """Over the last dimensions, which must not be tokens."""
    found = _alike(call, op, rows, tape)
    if any(axis >= len(tape.shapes[call.slots[0]]) - getattr(op, "dims", 1) for axis in found):
        raise NotInRowsError(call.name)
    return found


def _along(call: TapeCall, op: Any, rows: Made, tape: Tape) -> Rows:
    """Along a dimension, which must not be tokens. (A softmax over tokens is attention's, and held.)"""
    found = _alike_but(call, op.dim, rows, tape)
    if op.dim % len(tape.shapes[call.slots[0]]) in found:
        raise NotInRowsError(call.name)
    return found


def _alike_but(call: TapeCall, dim: int, rows: Made, tape: Tape) -> Rows:
    """Of what is cut or joined along `dim`."""
    found: dict[int, int] = {}
    for slot in call.input_slots:
        for axis, before in rows[slot].items():
            if found.setdefault(axis, before) != before:
                raise NotInRowsError(call.name)
    return found


def _reduce(call: TapeCall, op: ops.Reduce | ops.Scale, rows: Made, tape: Tape) -> Rows:
    dims = set(range(len(tape.shapes[call.input_slots[0]]))) if op.dims is None else set(op.dims)
    given = rows[call.input_slots[0]]
    averaged = dims == {len(tape.shapes[call.input_slots[0]]) - 2} and op.function in ("mean", "sum")
    if dims & set(given) and not averaged:
        raise NotInRowsError(call.name)
    given = {axis: before for axis, before in given.items() if axis not in dims}
    return {axis if op.keepdim else axis - sum(dim < axis for dim in dims): n for axis, n in given.items()}


def _permute(call: TapeCall, op: ops.Permute, rows: Made, tape: Tape) -> Rows:
    return {op.order.index(axis): before for axis, before in rows[call.input_slots[0]].items()}


def _query(call: TapeCall, op: ops.Query, rows: Made, tape: Tape) -> Rows:
    """x.mT is read as an attribute."""
    if getattr(getattr(call.function, "__self__", None), "__name__", "") not in ("mT", "mH"):
        return _alike(call, op, rows, tape)
    rank = len(tape.shapes[call.slots[0]])
    swapped = {rank - 2: rank - 1, rank - 1: rank - 2}
    return {swapped.get(axis, axis): before for axis, before in rows[call.input_slots[0]].items()}


def _reshape(call: TapeCall, op: ops.Operation, rows: Made, tape: Tape) -> Rows:
    was, now = tape.shapes[call.input_slots[0]], tape.shapes[call.slots[0]]
    found = {}
    for axis, before in rows[call.input_slots[0]].items():
        there = [i for i, n in enumerate(now) if n == was[axis] and prod(now[:i]) == prod(was[:axis])]
        if not there:
            raise NotInRowsError(call.name)
        found[there[-1]] = before
    return found


def _slice(call: TapeCall, op: ops.Slice, rows: Made, tape: Tape) -> Rows:
    given = rows[call.input_slots[0]]
    found, axis, place = {}, 0, 0
    for part in full_index(op, tape.shapes[call.input_slots[0]]):
        if part is None:
            place += 1
            continue
        before = given.get(axis)
        if before is not None and part != slice(None):
            begins = isinstance(part, slice) and part.step in (None, 1) and part.stop is None
            if begins and 0 <= (part.start or 0) <= before:
                found[place] = before - (part.start or 0)
            elif not _is_before(part, before):
                raise NotInRowsError(call.name)
        elif before is not None:
            found[place] = before
        axis, place = axis + 1, place + isinstance(part, slice)
    return found


def _is_before(part: object, before: int) -> bool:
    """Whether a part of an index takes nothing but tokens that stand before those of the positions."""
    if isinstance(part, slice):
        return part.step in (None, 1) and part.stop is not None and (part.start or 0) >= 0 and 0 <= part.stop <= before
    return isinstance(part, int) and 0 <= part < before


def full_index(op: ops.Slice, shape: Sequence[int]) -> list[Any]:
    """An index with a part for each dimension (slice(None) where it takes all), and None for each new one."""
    if op.function == "select":
        dim, index = op.index
        assert isinstance(dim, int)
        return [index if i == dim % len(shape) else slice(None) for i in range(len(shape))]
    if op.function == "unbind":
        (dim,) = op.index
        assert isinstance(dim, int)
        return [-1 if i == dim % len(shape) else slice(None) for i in range(len(shape))]
    parts = list(op.index)
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts):
        raise NotInRowsError("an index of tensors")
    missing = len(shape) - sum(part is not None and part is not Ellipsis for part in parts)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return [*parts[:at], *[slice(None)] * missing, *parts[at + 1 :]]


def _concat(call: TapeCall, op: ops.Concat, rows: Made, tape: Tape) -> Rows:
    rank = len(tape.shapes[call.slots[0]])
    dim = op.dim % rank
    if op.function == "stack":
        return {axis + (axis >= dim): before for axis, before in _alike_but(call, dim, rows, tape).items()}
    placed = [part.number for part in op.tensors if isinstance(part, Slot) and rows[part.number]]
    if not any(dim in rows[slot] for slot in placed):
        return _alike_but(call, dim, rows, tape)
    last = op.tensors[-1]
    if len(placed) != 1 or not isinstance(last, Slot) or last.number != placed[0] or set(rows[placed[0]]) != {dim}:
        raise NotInRowsError("cat")  # tokens that stand behind those of the positions
    more = sum(_size(part, dim, tape) for part in op.tensors[:-1])
    return {dim: more + rows[placed[0]][dim]}


def _size(part: object, dim: int, tape: Tape) -> int:
    if isinstance(part, Slot):
        return tape.shapes[part.number][dim]
    assert isinstance(part, Tensor)
    return part.shape[dim]


def _product(call: TapeCall, op: ops.MatrixProduct, rows: Made, tape: Tape) -> Rows:
    if op.function not in PRODUCTS or len(call.args) < 2:
        raise NotInRowsError(call.name)
    a, b = call.args[:2]
    rank = len(tape.shapes[call.slots[0]])
    found = {}
    for part, contracted, other in ((a, -1, -2), (b, -2, -1)):
        if isinstance(part, Slot):
            size = part.dim()
            for axis, before in rows[part.number].items():
                if axis != size + contracted:
                    found[rank + other if axis == size + other else axis + rank - size] = before
    return found


def _attended(call: TapeCall, op: ops.Operation, rows: Made, tape: Tape) -> Rows:
    """As many rows as there are queries."""
    query = call.args[0] if call.args else call.kwargs.get("query")
    return rows[query.number] if isinstance(query, Slot) else NOWHERE


def _refused(call: TapeCall, op: ops.Operation, rows: Made, tape: Tape) -> Rows:
    if any(rows[slot] for slot in call.input_slots):
        raise NotInRowsError(call.name)
    return NOWHERE


RULES: dict[type[ops.Operation], Callable[[TapeCall, Any, Made, Tape], Rows]] = {
    ops.Chunk: _along,
    ops.Concat: _concat,
    ops.Convolution: _refused,
    ops.Expand: _refused,
    ops.GroupNorm: _refused,
    ops.Glu: _along,
    ops.InstanceNorm: _refused,
    ops.LayerNorm: _row_by_row,
    ops.LinearLayer: _row_by_row,
    ops.MatrixProduct: _product,
    ops.Normalize: _along,
    ops.Permute: _permute,
    ops.Query: _query,
    ops.Reduce: _reduce,
    ops.Reshape: _reshape,
    ops.Scale: _reduce,
    ops.Slice: _slice,
    ops.Squeeze: _reshape,
}
"""All other calls keep their dimensions."""
