"""The receptive field of every tensor of a forward pass: field ← field + (k − 1) · dilation · stride, per call.

A field lies around its cell's centre, which `gapstone.maps.geometry` follows; here is how far it reaches to both sides.
Where branches meet it is what all of them see together. What averages over all positions (squeeze and excite,
attention, group norm, a global pool) sees the whole image besides: that is said apart, since the field of the windows
still says what is seen in detail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.loops.places import decode
from gapstone.maps.geometry import Field
from gapstone.maps.tape import tensors
from gapstone.maps.watch import ADAPTIVE, OVER_AXES, Watch
from gapstone.regions.places import Boxes, Windows

UNCOUNTED = frozenset(["__get__", "dim", "size", "numel", "is_contiguous", "stride"])
"""What a model asks of a tensor may depend on its size, unlike what it computes."""
Sides = tuple[tuple[float, float], ...]
"""Per axis how many pixels a field reaches below its centre, and above."""


@dataclass(frozen=True)
class Reach:
    sides: Sides | None
    """None: not known, or no positions."""
    whole: bool = False
    """Something of all positions comes in."""
    lost: bool = False
    """It has positions that could not be followed: what they are added to sees more than is known."""


@dataclass(frozen=True)
class Seen:
    """What a cell of a tensor sees of the input, in pixels."""

    field: tuple[int, ...] | None
    """(h, w); None: not known, or no positions."""
    stride: tuple[float, ...] | None
    whole: bool
    """All of the image besides, or at all."""


class Reaching(TorchFunctionMode):
    """Watches a forward pass of `images`: the last map (`watch`), and what every tensor sees."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.watch = Watch(images)
        self.images = len(images)
        self.count = 0
        """Calls, but those that only ask what a tensor is like."""
        self.made: Any = WeakTensorKeyDictionary()
        """By tensor, the number and name of the call that made it, and which of that call's tensors it is."""
        self.reaches: Any = WeakTensorKeyDictionary()
        self.reaches[images] = Reach(((0.0, 0.0),) * (images.dim() - 2))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        self.count += name not in UNCOUNTED
        inputs = [x for x in tensors((args, kwargs)) if x in self.reaches]
        if not inputs:
            return self.watch.__torch_function__(func, types, args, kwargs)
        # before a call in place changes them
        known = [(self.watch.places.get(x), self.reaches[x]) for x in inputs]
        shape = tuple(inputs[0].shape)
        whole = any(reach.whole for _, reach in known) or _mixes(name, known[0][0], shape, args, kwargs)
        sides = _spread(name, known, inputs[0], args, kwargs)
        out = self.watch.__torch_function__(func, types, args, kwargs)
        for which, y in enumerate(tensors(out)):
            self.made[y] = (self.count, name, which)
            place = self.watch.places.get(y)
            gathers = self._gathers(name, known[0][0], shape, y)
            lost = place is None and not gathers and any(p is not None or reach.lost for p, reach in known)
            self.reaches[y] = Reach(sides(place) if place is not None else None, whole or gathers, lost)
        return out

    def of(self, y: Tensor) -> Seen | None:
        """What its cells see; None for what does not come from the images."""
        if y not in self.reaches:
            return None
        place, reach = self.watch.places.get(y), self.reaches[y]
        field = tuple(round(below + above) + 1 for below, above in reach.sides) if reach.sides is not None else None
        return Seen(field, place.stride if place is not None else None, reach.whole)

    def _gathers(self, name: str, place: Field | None, shape: tuple[int, ...], y: Tensor) -> bool:
        """Whether a call made something of all positions: a pool of the whole map, a layer over what was flattened,
        attention over tokens that are the whole grid.
        """
        if place is not None and (name in OVER_AXES or name in ADAPTIVE or name == "pool"):
            if y.dim() == len(shape):
                return all(y.shape[axis] == 1 for axis in place.axes)
            return y.dim() <= len(shape) - len(place.axes)
        if name == "linear":
            return len(shape) == 2 and shape[0] == self.images and y.dim() == 2
        if name in ("scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "__matmul__", "softmax"):
            few = 8  # class and register tokens
            axes = shape if name == "multi_head_attention_forward" else shape[-2:]  # that has its tokens first
            return len(shape) > 2 and any(
                tokens > 1 and 0 <= n - tokens <= few for tokens in self.watch.grids for n in axes
            )
        return False


def _spread(
    name: str, known: Sequence[tuple[Field | None, Reach]], x: Tensor, args: Any, kwargs: Any
) -> Callable[[Field], Sides | None]:
    """How far an answer reaches around its own centre."""
    placed = [(place, reach.sides) for place, reach in known if place is not None]
    if not placed or any(sides is None for _, sides in placed) or any(reach.lost for _, reach in known):
        return lambda _: None
    first, own = placed[0]
    assert own is not None
    if name in SPANS:
        spans = SPANS[name](len(first.axes), x, args, kwargs)
        if spans is None:
            return lambda _: None
        grown = tuple(
            (below + n / 2 * stride, above + n / 2 * stride)
            for (below, above), n, stride in zip(own, spans, first.stride, strict=True)
        )
        return lambda _: grown

    def together(place: Field) -> Sides:
        met = []
        for axis, centre in enumerate(place.start):
            low = min(p.start[axis] - s[axis][0] for p, s in placed if s is not None and len(p.start) > axis)
            high = max(p.start[axis] + s[axis][1] for p, s in placed if s is not None and len(p.start) > axis)
            met.append((centre - low, high - centre))
        return tuple(met)

    # a view or a slice moves the centre of what it takes along
    return together if len(placed) > 1 else lambda _: own


def _mixes(name: str, place: Field | None, shape: Sequence[int], args: Any, kwargs: Any) -> bool:
    """Whether a call that keeps the shape makes each position depend on all."""
    if name in ("group_norm", "instance_norm"):
        return True
    if place is None:
        return False
    if name == "layer_norm":
        over = args[1] if len(args) > 1 else kwargs["normalized_shape"]
        return any(axis >= len(shape) - len(over) for axis in place.axes)
    if name in ("softmax", "log_softmax"):
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        return isinstance(dim, int) and dim % len(shape) in place.axes
    return False


# ---- (k − 1) · dilation of each call that looks at neighbours, in cells of its input

Span = tuple[float, ...] | None


def _get(args: Sequence[Any], kwargs: dict[str, Any], place: int, name: str, otherwise: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, otherwise)


def _each(value: Any, n: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def _convolution(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    weight, step = _get(args, kwargs, 1, "weight"), _get(args, kwargs, 5, "dilation", 1)
    if not isinstance(weight, Tensor):
        return None
    return tuple((k - 1) * d for k, d in zip(weight.shape[2:], _each(step, n), strict=True))


def _transposed(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    size = _get(args, kwargs, 1, "weight").shape[2:]
    stride, step = _each(_get(args, kwargs, 3, "stride", 1), n), _each(_get(args, kwargs, 7, "dilation", 1), n)
    # between two cells of the input lie `stride` of the output: each of these sees so many taps at most
    return tuple(ceil(((k - 1) * d + 1) / s) - 1 for k, s, d in zip(size, stride, step, strict=True))


def _averaged(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    return tuple(k - 1 for k in _each(_get(args, kwargs, 1, "kernel_size"), n))


def _maximum(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    size, step = _get(args, kwargs, 1, "kernel_size"), _get(args, kwargs, 4, "dilation", 1)
    return tuple((k - 1) * d for k, d in zip(_each(size, n), _each(step, n), strict=True))


def _ours(_n: int, _x: Tensor, args: Any, _kwargs: Any) -> Span:
    place = decode(args[3], args[4])
    if not isinstance(place, Boxes) or place.axes is None or not all(isinstance(a, Windows) for a in place.axes):
        return None
    return tuple((a.size - 1) * a.step for a in place.axes if isinstance(a, Windows))


def _resized(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    taps = {"nearest": 0, "nearest-exact": 0, "linear": 1, "bilinear": 1, "trilinear": 1, "bicubic": 3}
    mode = _get(args, kwargs, 3, "mode", "nearest")
    return (float(taps[mode]),) * n if mode in taps and not kwargs.get("antialias") else None


def _unshuffled(n: int, _x: Tensor, args: Any, kwargs: Any) -> Span:
    return (_get(args, kwargs, 1, "downscale_factor") - 1,) * n


SPANS: dict[str, Callable[[int, Tensor, Any, Any], Span]] = {
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _averaged for n in (1, 2, 3)},
    **{f"max_pool{n}d": _maximum for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _maximum for n in (1, 2, 3)},
    "pool": _ours,
    "interpolate": _resized,
    "pixel_unshuffle": _unshuffled,
}
