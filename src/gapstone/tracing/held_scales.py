"""What is held while maps are made: a norm's scale, attention's weights. (x − mean) · [1 / std] · weight + bias.

A norm after the pool does not change when what it takes is made twice as large, so its gradient × activation sums to 0:
the scale takes away all that the values give. With the scale of this image held as a number, as the weights of
attention are, the norm is linear, and maps add up (decision 24).

Norms are known as torch's calls, and where a user has written one out: a division by, or a product with, a square root,
a standard deviation or a length of values of the map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gapstone.tracing.tape import Call, Slot, Tape

STD, RMS, LENGTH = "the norm's standard deviation", "the norm's root mean square", "the length of the vectors"
ATTENTION = "the weights of attention"

ROOTS = {
    **dict.fromkeys(["sqrt", "sqrt_", "rsqrt", "rsqrt_", "std", "std_mean"], STD),
    **dict.fromkeys(["norm", "vector_norm", "linalg_norm", "linalg_vector_norm"], LENGTH),
}
"""Calls that make a scale, and what a norm is that divides by it."""
POWERS = frozenset(["pow", "__pow__", "pow_", "float_power"])
MULTIPLIES = frozenset(["mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply"])
DIVIDES = frozenset(["div", "__truediv__", "div_", "__itruediv__", "divide", "true_divide"])
PASSES = frozenset(
    ["add", "__add__", "__radd__", "add_", "__iadd__", "clamp", "clamp_", "clamp_min", "clamp_min_", "clip", "maximum",
     "reciprocal", "reciprocal_", "__rtruediv__", "__rdiv__", "unsqueeze", "view", "reshape", "expand", "expand_as",
     "to", "float", "type_as", "contiguous", "__getitem__", "mul", "__mul__", "__rmul__", "div", "__truediv__",
     "permute", "transpose"]
)  # fmt: skip
"""Calls that may stand between the root and the division, and what they make of a scale is one."""


class Held:
    """The calls of a tape that hold something: `functions` stand in for theirs when the tape is replayed.

    The scale is that of the first replay, with what the images gave; later ones, of empty maps, use the same.
    """

    def __init__(self, tape: Tape) -> None:
        self.functions: dict[Call, Callable[..., Any]] = {}
        self.constant: set[int] = set()
        """Slots that are numbers of the image now: no gradient goes through them."""
        self.norms: set[Call] = set()
        """Linear now in the one tensor that they take."""
        self._says: dict[Call, str] = {}
        self._scales: dict[Call, Tensor] = {}
        made_by = {slot: call for call in tape.calls for slot in call.slots}
        for call in tape.calls:
            norm = NORMS.get(call.name)
            if norm is not None and call.args and isinstance(call.args[0], Slot) and len(call.takes) == 1:
                makes, says = norm
                if made := makes(call):
                    self._hold(call, self._norm(call, made), says)
                    self.norms.add(call)
            elif call.name == "pool" and len(call.args) > 1 and call.args[1] == "attention" and len(call.takes) == 2:
                self._hold(call, _attention(call.function), ATTENTION)
            elif (scale := _scale(call, tape)) is not None:
                root = _root(scale, made_by, tape)
                if root is not None:
                    self._hold(root, self._detached(root), ROOTS.get(root.name, STD))
                    self.constant.add(root.slots[0])
        for call in tape.calls:
            if call.takes and all(slot in self.constant for slot in call.takes):
                self.constant |= set(call.slots)

    def says(self, calls: Sequence[Call]) -> tuple[str, ...]:
        """What is held in so many of the tape's calls, in words."""
        return tuple(dict.fromkeys(self._says[call] for call in calls if call in self._says))

    def varies(self, call: Call) -> tuple[int, ...]:
        """The slots that what a call gives varies with."""
        if call not in self.functions or call in self.norms:
            return call.takes
        return call.takes[:1] if call.name == "pool" else ()

    def is_linear(self, call: Call) -> bool:
        """Whether a call that is not linear by itself is so in the one tensor that is not held."""
        if call in self.norms or set(call.slots) <= self.constant:
            return True
        varies = [slot for slot in call.takes if slot not in self.constant]
        if len(varies) != 1 or len(call.takes) == 1 or call.get(2, "rounding_mode") is not None:
            return False
        return call.name in MULTIPLIES or (call.name in DIVIDES and call.args[0] == Slot(varies[0]))

    def _hold(self, call: Call, function: Callable[..., Any], says: str) -> None:
        self.functions[call] = function
        self._says[call] = says

    def _scale_of(self, call: Call, make: Callable[[], Tensor]) -> Tensor:
        if call not in self._scales:
            self._scales[call] = make().detach()
        return self._scales[call]

    def _detached(self, call: Call) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            if call.name == "std_mean":
                out = call.function(*args, **kwargs)
                return self._scale_of(call, lambda: out[0]), out[1]
            return self._scale_of(call, lambda: call.function(*args, **kwargs))

        return held

    def _norm(self, call: Call, make: "Norm") -> Callable[..., Any]:
        def held(x: Tensor, *_: Any, **__: Any) -> Tensor:
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            centred = make.centre(wide)
            scaled = centred * self._scale_of(call, lambda: make.scale(centred))
            return make.shift(scaled).to(x.dtype)

        return held


class Norm:
    """A norm in three steps, of which the middle one is held."""

    def __init__(
        self, centre: Callable[[Tensor], Tensor], scale: Callable[[Tensor], Tensor], shift: Callable[[Tensor], Tensor]
    ) -> None:
        self.centre, self.scale, self.shift = centre, scale, shift


def _layer(call: Call) -> Norm:
    axes = _last(call)
    weight, bias, eps = call.get(2, "weight"), call.get(3, "bias"), call.get(4, "eps", 1e-5)
    return Norm(
        lambda x: x - x.mean(axes, keepdim=True),
        lambda x: (x.square().mean(axes, keepdim=True) + eps).rsqrt(),
        lambda x: _affine(x, weight, bias),
    )


def _rms(call: Call) -> Norm:
    axes, weight, eps = _last(call), call.get(2, "weight"), call.get(3, "eps")
    return Norm(
        lambda x: x,
        lambda x: (x.square().mean(axes, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt(),
        lambda x: _affine(x, weight, None),
    )


def _group(call: Call) -> Norm:
    groups, weight, bias, eps = (
        call.get(1, "num_groups"),
        call.get(2, "weight"),
        call.get(3, "bias"),
        call.get(4, "eps"),
    )

    def together(x: Tensor) -> Tensor:
        return x.reshape(len(x), groups, -1)

    def per_value(x: Tensor, scale: Tensor) -> Tensor:
        each = x.shape[1] // groups
        return scale.repeat_interleave(each, 1).reshape(len(x), x.shape[1], *[1] * (x.dim() - 2))

    return Norm(
        lambda x: x - per_value(x, together(x).mean(2)),
        lambda x: per_value(x, (together(x).square().mean(2) + (1e-5 if eps is None else eps)).rsqrt()),
        lambda x: _affine(x, weight, bias, channels=1),
    )


def _instance(call: Call) -> Norm | None:
    weight, bias, eps = call.get(3, "weight"), call.get(4, "bias"), call.get(7, "eps", 1e-5)
    if call.get(5, "use_input_stats", True) is False:
        return None
    return Norm(
        lambda x: x - x.mean(tuple(range(2, x.dim())), keepdim=True),
        lambda x: (x.square().mean(tuple(range(2, x.dim())), keepdim=True) + eps).rsqrt(),
        lambda x: _affine(x, weight, bias, channels=1),
    )


def _normalize(call: Call) -> Norm:
    p, dim, eps = call.get(1, "p", 2.0), call.get(2, "dim", 1), call.get(3, "eps", 1e-12)
    return Norm(lambda x: x, lambda x: 1 / x.norm(p, dim, keepdim=True).clamp_min(eps), lambda x: x)


NORMS: dict[str, tuple[Callable[[Call], Norm | None], str]] = {
    "layer_norm": (_layer, STD),
    "group_norm": (_group, STD),
    "instance_norm": (_instance, STD),
    "rms_norm": (_rms, RMS),
    "normalize": (_normalize, LENGTH),
}
"""torch's own, by the name of their call."""


def _last(call: Call) -> tuple[int, ...]:
    shape = call.get(1, "normalized_shape")
    return tuple(range(-len(shape), 0)) if isinstance(shape, Sequence) else (-1,)


def _affine(x: Tensor, weight: Any, bias: Any, channels: int | None = None) -> Tensor:
    def placed(of: Tensor) -> Tensor:
        return of.to(x.dtype) if channels is None else of.to(x.dtype).view(-1, *[1] * (x.dim() - 2))

    x = x if weight is None else x * placed(weight)
    return x if bias is None else x + placed(bias)


def _attention(function: Callable[..., Any]) -> Callable[..., Any]:
    def held(*args: Any, **kwargs: Any) -> Any:
        own = [value.detach() if isinstance(value, Tensor) else value for value in args[6]]
        return function(*args[:6], own, *args[7:], **kwargs)

    return held


def _scale(call: Call, tape: Tape) -> int | None:
    """The slot by which a call divides, or multiplies, where that is one number for many of the other's."""
    if call.name not in MULTIPLIES | DIVIDES or len(call.takes) != 2 or call.takes[0] == call.takes[1]:
        return None
    first, second = call.takes
    pairs = [(first, second)] if call.name in DIVIDES else [(first, second), (second, first)]
    for of, by in pairs:
        large, small = tape.shapes[of], tape.shapes[by]
        aligned = [1] * (len(large) - len(small)) + list(small)
        if len(aligned) != len(large) or small.numel() >= large.numel():
            continue
        if all(b in (1, a) for a, b in zip(large, aligned, strict=True)):
            return by
    return None


def _root(slot: int, made_by: dict[int, Call], tape: Tape) -> Call | None:
    """The call that made a scale: a square root, a standard deviation, a length; None where it is something else."""
    for _ in range(len(tape.calls)):
        call = made_by.get(slot)
        if call is None:
            return None
        half = call.name in POWERS and call.get(1, "exponent") in (0.5, -0.5)
        if half or (call.name in ROOTS and slot == call.slots[0]):
            return call
        if call.name not in PASSES or len(set(call.takes)) != 1:
            return None
        slot = call.takes[0]
    return None
