"""What is held where tokens hear each other: attention's weights, and the gates of activations, besides norms' scales.

With these as numbers of the image, all that follows the tokens is linear in each of them (decision 29):

    attention   softmax(q·k) · v    the softmax is held, v is not
    activation  f(x) = x · [f(x)/x]    the gate in brackets is held (ReLU: 0 or 1; GELU: between)
    gated unit  f(a) · b            f(a) is held, b is not
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gapstone.heads.contributions import ATTENTION
from gapstone.tracing import operations as ops
from gapstone.tracing.held_scales import HeldScales
from gapstone.tracing.linearity import is_linear
from gapstone.tracing.mixing import PRODUCTS, Mixing, mixing_of
from gapstone.tracing.tape import Slot, Tape, TapeCall, leaves

GATES = "the gates of activations"
THROUGH_ZERO = frozenset([
    "relu", "relu6", "elu", "celu", "selu", "leaky_relu", "gelu", "silu", "mish", "hardswish", "tanh", "hardtanh",
    "softsign", "erf", "tanhshrink", "softshrink", "hardshrink",
])  # fmt: skip
"""Activations that answer 0 to 0: x times a gate."""
NUMBERS = frozenset(["sigmoid", "hardsigmoid", "softplus"])
"""Activations that do not: what they give is a gate itself."""
PASSES = (ops.Cast, ops.Copy, ops.Dropout, ops.Expand, ops.Permute, ops.Reshape, ops.Slice, ops.Squeeze, ops.Chunk)
"""Calls after which what an activation gave is still that."""
TINY = 1e-6


class HeldTokens(HeldScales):
    """`HeldScales` of a tape that begins with tokens."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(tape)
        self.tape = tape
        self._varies: dict[TapeCall, tuple[int, ...]] = {}
        """By call, the slots that are not held."""
        self._activated: set[int] = set()
        """Slots that an activation made, as they are or times a number."""
        for call in tape.calls:
            if call.input_slots and all(slot in self.constant for slot in call.input_slots):
                self.constant |= set(call.slots)
            elif call not in self.functions:
                self._look_at(call)

    def varies(self, call: TapeCall) -> tuple[int, ...]:
        slots = self._varies[call] if call in self._varies else super().varies(call)
        return tuple(slot for slot in slots if slot not in self.constant)

    def is_linear(self, call: TapeCall) -> bool:
        if call in self._varies or super().is_linear(call):
            return True
        if isinstance(call.operation, ops.MatrixProduct):
            return call.operation.function in (*PRODUCTS, "einsum") and len(self.varies(call)) == 1
        return is_linear(call, self.tape, each_image=True)

    def descriptions(self, calls: Sequence[TapeCall]) -> tuple[str, ...]:
        """Also of what made the numbers that these calls take: a softmax is before the product that it weighs."""
        made_by = {slot: call for call in self.tape.calls for slot in call.slots}
        found, ahead = set(calls), list(calls)
        while ahead:
            taken = [made_by[slot] for slot in ahead.pop().input_slots if slot in self.constant]
            ahead += [call for call in taken if call not in found and call not in self._descriptions]
            found |= set(taken)
        return super().descriptions([call for call in self.tape.calls if call in found])

    def _look_at(self, call: TapeCall) -> None:
        op, name = call.operation, call.operation.function
        if isinstance(op, ops.Softmax):
            self._number(call, ATTENTION)
        elif name.endswith("attention") or name == "multi_head_attention_forward":
            if (mixing := mixing_of(call)) is not None:
                self._attends(call, mixing)
        elif isinstance(op, ops.Glu):
            self._take(call, call.input_slots, self._gate(call), GATES)
        elif isinstance(op, ops.Elementwise):
            if name in NUMBERS and len(call.input_slots) == 1:
                self._number(call, GATES)
            elif name in THROUGH_ZERO and len(call.input_slots) == 1:
                self._take(call, call.input_slots, self._gate(call), GATES)
                self._activated |= set(call.slots)
            elif name == "mul" and len(self.varies(call)) == 2:
                self._multiply(call, op)
        scaled = isinstance(op, ops.Elementwise) and name in ("add", "mul", "div")
        if (scaled or isinstance(op, PASSES)) and len(self.varies(call)) == 1 and self._made(self.varies(call)[0]):
            self._activated |= set(call.slots)

    def _made(self, slot: int) -> bool:
        return slot in self._activated

    def _number(self, call: TapeCall, description: str) -> None:
        self._hold(call, self._detached(call), description)
        self.constant |= set(call.slots)

    def _take(self, call: TapeCall, slots: tuple[int, ...], function: Callable[..., Any], description: str) -> None:
        self._hold(call, function, description)
        self._varies[call] = slots

    def _attends(self, call: TapeCall, mixing: Mixing) -> None:
        """With the queries and keys of the first replay."""

        def held(*args: Any, **kwargs: Any) -> Any:
            values = dict(_given(call, args, kwargs))
            weights = self._scale_of(call, lambda: mixing.weights(values, None))
            made = mixing.finish(weights @ mixing.heads(values[mixing.value.number], False), False)
            return (made, None) if mixing.axis == 0 else made  # as nn.MultiheadAttention's call gives it

        self._take(call, (mixing.value.number,), held, ATTENTION)

    def _gate(self, call: TapeCall) -> Callable[..., Any]:
        def held(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            taken = self._scale_of(call, x.clone)
            return gate_of(call, taken, (x, *args), kwargs)

        return held

    def _multiply(self, call: TapeCall, op: ops.Elementwise) -> None:
        """Of two tensors of the image, of which one is an activation's: that is the gate."""
        assert isinstance(op.input, Slot)
        assert isinstance(op.other, Slot)
        gates = [slot.number for slot in (op.input, op.other) if slot.number in self._activated]
        if not gates or op.input == op.other:
            return
        gate = gates[0]
        place = 1 if op.other.number == gate else 0

        def held(a: Tensor, b: Tensor) -> Tensor:
            return (a, b)[1 - place] * self._scale_of(call, lambda: (a, b)[place])

        rest = op.input.number if place else op.other.number
        self._take(call, (rest,), held, GATES)


def _given(call: TapeCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[int, Tensor]]:
    """What was given in the place of each slot."""
    parts = zip(leaves((call.args, call.kwargs)), leaves((args, kwargs)), strict=True)
    return ((was.number, now) for was, now in parts if isinstance(was, Slot))


def gate_of(call: TapeCall, taken: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What an activation, or a gated linear unit, makes of args[0] with the gate of what it took."""
    x: Tensor = args[0]
    if isinstance(call.operation, ops.Glu):
        dim = call.operation.dim
        return x.chunk(2, dim)[0] * taken.chunk(2, dim)[1].sigmoid()
    near = torch.where(taken == 0, TINY, taken)  # at 0 the slope there
    gate: Tensor = call.function(near.clone(), *args[1:], **kwargs) / near
    return x * gate
