"""What is held while maps are made: a norm's scale, attention's weights. (x − mean) · [1 / std] · weight + bias.

A norm after the pool does not change when what it takes is made twice as large, so its gradient × activation sums to 0:
the scale takes away all that the values give. With the scale of this image held as a number, as the weights of
attention are, the norm is linear, and maps add up (decision 24).

Norms are known as torch's calls, and where a user has written one out: a division by, or a product with, a square root,
a standard deviation or a length of values of the map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gapstone.heads.contributions import ATTENTION
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import Slot, Tape, TapeCall

STD, RMS, LENGTH = "the norm's standard deviation", "the norm's root mean square", "the length of the vectors"

PASSES = frozenset(["add", "clamp", "clamp_min", "maximum", "reciprocal", "mul", "div", "contiguous"])
MOVES = (ops.Cast, ops.Expand, ops.Permute, ops.Reshape, ops.Slice, ops.Squeeze)
"""Calls that may stand between the root and the division, and what they make of a scale is one."""


class HeldScales:
    """The calls of a tape that hold something: `functions` stand in for theirs when the tape is replayed.

    The scale is that of the first replay, with what the images gave; later ones, of empty maps, use the same.
    """

    def __init__(self, tape: Tape) -> None:
        self.functions: dict[TapeCall, Callable[..., Any]] = {}
        self.constant: set[int] = set()
        """Slots that are numbers of the image now: no gradient goes through them."""
        self.norms: set[TapeCall] = set()
        """Linear now in the one tensor that they take."""
        self._descriptions: dict[TapeCall, str] = {}
        self._scales: dict[TapeCall, Tensor] = {}
        made_by = {slot: call for call in tape.calls for slot in call.slots}
        for call in tape.calls:
            op = call.operation
            if call.args and isinstance(call.args[0], Slot) and len(call.input_slots) == 1 and type(op) in NORMS:
                if (norm := NORMS[type(op)](op)) is not None:
                    self._hold(call, self._norm(call, norm), norm.description)
                    self.norms.add(call)
            elif isinstance(op, ops.RegionPool) and op.function == "attention" and len(call.input_slots) == 2:
                self._hold(call, _attention(call.function), ATTENTION)
            elif (scale := _scale(call, tape)) is not None:
                root = _root(scale, made_by, tape)
                if root is not None:
                    length = root.operation.function.endswith("norm")
                    self._hold(root, self._detached(root), LENGTH if length else STD)
                    self.constant.add(root.slots[0])
        for call in tape.calls:
            if call.input_slots and all(slot in self.constant for slot in call.input_slots):
                self.constant |= set(call.slots)

    def descriptions(self, calls: Sequence[TapeCall]) -> tuple[str, ...]:
        """What is held in so many of the tape's calls, in words."""
        return tuple(dict.fromkeys(self._descriptions[call] for call in calls if call in self._descriptions))

    def varies(self, call: TapeCall) -> tuple[int, ...]:
        """The slots that what a call gives varies with."""
        if call not in self.functions or call in self.norms:
            return call.input_slots
        return call.input_slots[:1] if isinstance(call.operation, ops.RegionPool) else ()

    def is_linear(self, call: TapeCall) -> bool:
        """Whether a call that is not linear by itself is so in the one tensor that is not held."""
        if call in self.norms or set(call.slots) <= self.constant:
            return True
        op, varies = call.operation, [slot for slot in call.input_slots if slot not in self.constant]
        if len(varies) != 1 or len(call.input_slots) == 1 or not isinstance(op, ops.Elementwise):
            return False
        divided = op.function == "div" and op.rounding_mode is None and op.input == Slot(varies[0])
        return op.function == "mul" or divided

    def _hold(self, call: TapeCall, function: Callable[..., Any], description: str) -> None:
        self.functions[call] = function
        self._descriptions[call] = description

    def _scale_of(self, call: TapeCall, make: Callable[[], Tensor]) -> Tensor:
        if call not in self._scales:
            self._scales[call] = make().detach()
        return self._scales[call]

    def _detached(self, call: TapeCall) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            if call.operation.function == "std_mean":
                out = call.function(*args, **kwargs)
                return self._scale_of(call, lambda: out[0]), out[1]
            return self._scale_of(call, lambda: call.function(*args, **kwargs))

        return held

    def _norm(self, call: TapeCall, norm: "HeldNorm") -> Callable[..., Any]:
        def held(x: Tensor, *_: Any, **__: Any) -> Tensor:
            centred = norm.centre(wide(x))
            scale = self._scale_of(call, lambda: norm.scale(centred))
            return norm.shift(centred * scale).to(x.dtype)

        return held


@dataclass(frozen=True)
class HeldNorm:
    """A norm in three steps, of which the middle one is held."""

    description: str
    centre: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor], Tensor]
    shift: Callable[[Tensor], Tensor]

    def of(self, x: Tensor, taken: Tensor) -> Tensor:
        """Of x, with the scale of what the norm took."""
        scale = self.scale(self.centre(wide(taken)))
        return self.shift(self.centre(wide(x)) * scale).to(x.dtype)


def wide(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _itself(x: Tensor) -> Tensor:
    return x


def _layer_norm(op: ops.LayerNorm) -> HeldNorm:
    axes, rms = tuple(range(-op.dims, 0)), op.function == "rms_norm"

    def scale(x: Tensor) -> Tensor:
        eps = torch.finfo(x.dtype).eps if op.eps is None else op.eps
        return (x.square().mean(axes, keepdim=True) + eps).rsqrt()

    centre = _itself if rms else lambda x: x - x.mean(axes, keepdim=True)
    return HeldNorm(RMS if rms else STD, centre, scale, lambda x: _affine(x, op.weight, op.bias))


def _group_norm(op: ops.GroupNorm) -> HeldNorm:
    def together(x: Tensor) -> Tensor:
        return x.reshape(len(x), op.num_groups, -1)

    def per_value(x: Tensor, scale: Tensor) -> Tensor:
        each = x.shape[1] // op.num_groups
        return scale.repeat_interleave(each, 1).reshape(len(x), x.shape[1], *[1] * (x.dim() - 2))

    return HeldNorm(
        STD,
        lambda x: x - per_value(x, together(x).mean(2)),
        lambda x: per_value(x, (together(x).square().mean(2) + op.eps).rsqrt()),
        lambda x: _affine(x, op.weight, op.bias, channels=1),
    )


def _instance_norm(op: ops.InstanceNorm) -> HeldNorm | None:
    if not op.use_input_stats:
        return None
    return HeldNorm(
        STD,
        lambda x: x - x.mean(tuple(range(2, x.dim())), keepdim=True),
        lambda x: (x.square().mean(tuple(range(2, x.dim())), keepdim=True) + op.eps).rsqrt(),
        lambda x: _affine(x, op.weight, op.bias, channels=1),
    )


def _normalize(op: ops.Normalize) -> HeldNorm:
    return HeldNorm(LENGTH, _itself, lambda x: 1 / x.norm(op.p, op.dim, keepdim=True).clamp_min(op.eps), _itself)


NORMS: dict[type[ops.Operation], Callable[[Any], HeldNorm | None]] = {
    ops.LayerNorm: _layer_norm,
    ops.GroupNorm: _group_norm,
    ops.InstanceNorm: _instance_norm,
    ops.Normalize: _normalize,
}
"""torch's own."""


def _affine(x: Tensor, weight: Any, bias: Any, channels: int | None = None) -> Tensor:
    def placed(of: Tensor) -> Tensor:
        return of.to(x.dtype) if channels is None else of.to(x.dtype).view(-1, *[1] * (x.dim() - 2))

    x = x if weight is None else x * placed(weight)
    return x if bias is None else x + placed(bias)


def _attention(function: Callable[..., Any]) -> Callable[..., Any]:
    def held(*args: Any, **kwargs: Any) -> Any:
        values = [value.detach() if isinstance(value, Tensor) else value for value in args[6]]
        return function(*args[:6], values, *args[7:], **kwargs)

    return held


def _scale(call: TapeCall, tape: Tape) -> int | None:
    """The slot by which a call divides, or multiplies, where that is one number for many of the other's."""
    op = call.operation
    if not isinstance(op, ops.Elementwise) or op.function not in ("mul", "div"):
        return None
    if not isinstance(op.input, Slot) or not isinstance(op.other, Slot) or op.input == op.other:
        return None
    pairs = [(op.input, op.other)] if op.function == "div" else [(op.input, op.other), (op.other, op.input)]
    for of, by in pairs:
        large, small = tape.shapes[of.number], tape.shapes[by.number]
        aligned = [1] * (len(large) - len(small)) + list(small)
        if len(aligned) != len(large) or small.numel() >= large.numel():
            continue
        if all(b in (1, a) for a, b in zip(large, aligned, strict=True)):
            return by.number
    return None


def _root(slot: int, made_by: dict[int, TapeCall], tape: Tape) -> TapeCall | None:
    """The call that made a scale: a square root, a standard deviation, a length; None where it is something else."""
    for _ in range(len(tape.calls)):
        call = made_by.get(slot)
        if call is None:
            return None
        if _is_root(call.operation) and slot == call.slots[0]:
            return call
        passes = isinstance(call.operation, MOVES) or call.operation.function in PASSES
        if not passes or len(set(call.input_slots)) != 1:
            return None
        slot = call.input_slots[0]
    return None


def _is_root(op: ops.Operation) -> bool:
    if isinstance(op, ops.Elementwise):
        half = isinstance(op.other, float) and op.other in (0.5, -0.5)
        return op.function in ("sqrt", "rsqrt") or (op.function in ("pow", "float_power") and half)
    return isinstance(op, ops.Scale)
