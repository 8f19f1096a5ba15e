"""The receptive field of every tensor of a forward pass: field ← field + (k − 1) · dilation · stride, per call.

A field lies around its cell's centre, which `geometry` follows; here is how far it reaches to both sides. Where
branches meet it is what all of them see together. What averages over all positions (squeeze and excite, attention,
group norm, a global pool) sees the whole image besides: that is told apart, since the field of the windows still says
what is seen in detail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.tracing import operations as ops
from gapstone.tracing.geometry import Geometry, Sliding, sliding_windows
from gapstone.tracing.operations import Operation
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, HeadTracer, Keywords

Sides = tuple[tuple[float, float], ...]
"""Per axis how many pixels a field reaches below its centre, and above."""
FEW_TOKENS = 8
"""Class and register tokens at most, beside those of the grid."""


@dataclass(frozen=True)
class Reach:
    """How far the field of a tensor's cells reaches."""

    sides: Sides | None
    """None: not known, or no positions."""
    whole: bool = False
    """Something of all positions comes in."""
    lost: bool = False
    """It has positions that could not be followed: what they are added to sees more than is known."""


@dataclass(frozen=True)
class ReceptiveField:
    """What a cell of a tensor sees of the input, in pixels."""

    size: tuple[int, ...] | None
    """(h, w); None: not known, or no positions."""
    stride: tuple[float, ...] | None
    whole: bool
    """All of the image besides, or at all."""


Known = Sequence[tuple[Geometry | None, Reach]]


class ReceptiveFieldTracer(HeadTracer):
    """Traces a forward pass of `images`: the last map, and what every tensor sees."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(images)
        self.batch = len(images)
        self.operations = 0
        """Calls, but those that only ask what a tensor is like: these may depend on the images' size."""
        self.made: Any = WeakTensorKeyDictionary()
        """By tensor, the number and name of the call that made it, and which of that call's tensors it is."""
        self.reaches: Any = WeakTensorKeyDictionary()
        self.reaches[images] = Reach(((0.0, 0.0),) * (images.dim() - 2))

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        name = name_of(func)
        op = read_call(name, args, kwargs)
        self.operations += not isinstance(op, ops.Query)
        inputs = [x for x in tensors((args, kwargs)) if x in self.reaches]
        if not inputs:
            return super().call(func, args, kwargs)
        # before a call in place changes them
        known = [(self.geometries.get(x), self.reaches[x]) for x in inputs]
        shape, place = tuple(inputs[0].shape), known[0][0]
        whole = any(reach.whole for _, reach in known) or _mixes(op, place, shape)
        sides = _spread(op, known)
        out = super().call(func, args, kwargs)
        for which, y in enumerate(tensors(out)):
            self.made[y] = (self.operations, name, which)
            at = self.geometries.get(y)
            gathers = self._gathers(op, place, shape, y)
            lost = at is None and not gathers and any(p is not None or reach.lost for p, reach in known)
            self.reaches[y] = Reach(sides(at) if at is not None else None, whole or gathers, lost)
        return out

    def of(self, y: Tensor) -> ReceptiveField | None:
        """What its cells see; None for what does not come from the images."""
        if y not in self.reaches:
            return None
        place, reach = self.geometries.get(y), self.reaches[y]
        size = tuple(round(below + above) + 1 for below, above in reach.sides) if reach.sides is not None else None
        return ReceptiveField(size, place.stride if place is not None else None, reach.whole)

    def _gathers(self, op: Operation, place: Geometry | None, shape: tuple[int, ...], y: Tensor) -> bool:
        """Whether a call made something of all positions: a pool of the whole map, a layer over what was flattened,
        attention over tokens that are the whole grid.
        """
        if place is not None and isinstance(op, POOLS):
            if y.dim() == len(shape):
                return all(y.shape[axis] == 1 for axis in place.axes)
            return y.dim() <= len(shape) - len(place.axes)
        if isinstance(op, ops.LinearLayer):
            return len(shape) == 2 and shape[0] == self.batch and y.dim() == 2
        if isinstance(op, ATTENTIONS) and op.function in TOKENWISE:
            axes = shape if op.function == "multi_head_attention_forward" else shape[-2:]  # that has its tokens first
            return len(shape) > 2 and any(
                tokens > 1 and 0 <= n - tokens <= FEW_TOKENS for tokens in self.grids for n in axes
            )
        return False


def _spread(op: Operation, known: Known) -> Callable[[Geometry], Sides | None]:
    """How far an answer reaches around its own centre."""
    placed = [(place, reach.sides) for place, reach in known if place is not None]
    if not placed or any(sides is None for _, sides in placed) or any(reach.lost for _, reach in known):
        return lambda _: None
    first, sides = placed[0]
    assert sides is not None
    if isinstance(op, SPANS):
        spans = _span(op, len(first.axes))
        if spans is None:
            return lambda _: None
        grown = tuple(
            (below + n / 2 * stride, above + n / 2 * stride)
            for (below, above), n, stride in zip(sides, spans, first.stride, strict=True)
        )
        return lambda _: grown

    def together(place: Geometry) -> Sides:
        joined = []
        for axis, centre in enumerate(place.start):
            low = min(p.start[axis] - s[axis][0] for p, s in placed if s is not None and len(p.start) > axis)
            high = max(p.start[axis] + s[axis][1] for p, s in placed if s is not None and len(p.start) > axis)
            joined.append((centre - low, high - centre))
        return tuple(joined)

    # a view or a slice moves the centre of what it takes along
    return together if len(placed) > 1 else lambda _: sides


SPANS = (ops.Convolution, ops.PixelUnshuffle, ops.WindowPool, ops.RegionPool, ops.Resize)
"""Calls that look at neighbours."""
MIXES = (ops.GroupNorm, ops.InstanceNorm, ops.LayerNorm, ops.Softmax)
"""Calls that keep the shape and may make each position depend on all."""
POOLS = (ops.AdaptivePool, ops.Reduce, ops.RegionPool)
ATTENTIONS = (ops.MatrixProduct, ops.Softmax)
TOKENWISE = frozenset(["scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "softmax"])
TAPS = {"nearest": 0.0, "nearest-exact": 0.0, "linear": 1.0, "bilinear": 1.0, "trilinear": 1.0, "bicubic": 3.0}


def _span(op: Sliding | ops.Resize, axes: int) -> tuple[float, ...] | None:
    """Per axis (k − 1) · dilation of a call, in cells of its input; None: not known."""
    if isinstance(op, ops.Resize):
        return (TAPS[op.function],) * axes if op.function in TAPS and not op.antialias else None
    windows = sliding_windows(op, axes)
    if windows is None:
        return None
    if op.function == "conv_transpose":
        # between two cells of the input lie `stride` of the output: each of these sees so many taps at most
        return tuple(ceil(((k - 1) * d + 1) / s) - 1 for k, s, _, d in windows)
    return tuple((k - 1) * d for k, _, _, d in windows)


def _mixes(op: Operation, place: Geometry | None, shape: Sequence[int]) -> bool:
    """Whether a call that keeps the shape makes each position depend on all."""
    if isinstance(op, ops.LayerNorm):
        return place is not None and any(axis >= len(shape) - op.dims for axis in place.axes)
    if isinstance(op, ops.Softmax):
        return place is not None and op.dim is not None and op.dim % len(shape) in place.axes
    return isinstance(op, MIXES)
