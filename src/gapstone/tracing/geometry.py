"""Where the positions of a tensor lie in the input: stride ← stride · s, start ← start + ((k−1)/2 · d − p) · stride.

Every call that moves positions has a rule here; calls that keep the shape keep the places. A call without a rule that
changes the shape loses them, and what is made of its answer has none: better none than wrong ones.
(The arithmetic: Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks, Distill 2019.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gapstone.loops.places import decode
from gapstone.regions.places import Boxes, Windows

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """Positions along the spatial axes of one tensor, in pixels of the input."""

    axes: tuple[int, ...]
    """Which dimensions of the tensor are spatial, in the order of the input's."""
    stride: tuple[float, ...]
    start: tuple[float, ...]

    @classmethod
    def of_input(cls, x: Tensor) -> "Field":
        axes = tuple(range(2, x.dim()))
        return cls(axes, (1.0,) * len(axes), (0.0,) * len(axes))

    def sizes(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[axis] for axis in self.axes)

    def slide(self, size: Any, stride: Any, before: Any, step: Any = 1) -> "Field":
        """Under windows of `size` positions, `step` apart, that begin `before` positions early and move by `stride`."""
        n = len(self.axes)
        rules = zip(self.stride, self.start, *(_each(value, n) for value in (size, stride, before, step)), strict=True)
        moved = [(j * s, a + ((k - 1) / 2 * d - p) * j) for j, a, k, s, p, d in rules]
        return replace(self, stride=tuple(j for j, _ in moved), start=tuple(a for _, a in moved))


def kept(fields: Sequence[tuple[Tensor, Field]], out: Tensor) -> Field | None:
    """The places of what has as many positions as the tensors it was made of: the middle of theirs.

    None where they lie more than half a cell apart: then no place is right.
    """
    alike = [
        field
        for x, field in fields
        if x.dim() == out.dim() and all(x.shape[axis] == out.shape[axis] for axis in field.axes)
    ]
    if not alike or any((f.axes, f.stride) != (alike[0].axes, alike[0].stride) for f in alike):
        return None
    starts = list(zip(*(f.start for f in alike), strict=True))
    if any(max(axis) - min(axis) > stride / 2 for axis, stride in zip(starts, alike[0].stride, strict=True)):
        return None
    return replace(alike[0], start=tuple(sum(axis) / len(axis) for axis in starts))


def reshaped(field: Field, x: Tensor, out: Tensor) -> Field | None:
    """Where only other dimensions are cut or joined: positions last (channel shuffle), or right behind the images."""
    sizes, n = field.sizes(x), len(field.axes)
    if field.axes == tuple(range(x.dim() - n, x.dim())) and tuple(out.shape[-n:]) == sizes and out.dim() > n:
        return replace(field, axes=tuple(range(out.dim() - n, out.dim())))
    if field.axes == tuple(range(1, n + 1)) and tuple(out.shape[: n + 1]) == (x.shape[0], *sizes):
        return field
    return None


RESHAPES = frozenset(["view", "reshape", "flatten", "unflatten"])


def _each(value: Any, n: int) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def _get(args: Sequence[Any], kwargs: Arguments, place: int, name: str, otherwise: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, otherwise)


def _convolution(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    weight = _get(args, kwargs, 1, "weight")
    n = len(field.axes)
    if not isinstance(weight, Tensor) or weight.dim() - 2 != n:  # quantised; an image without its batch
        return None
    if field.axes != tuple(range(x.dim() - n, x.dim())):
        return None
    size = tuple(weight.shape[2:])
    stride, padding = _get(args, kwargs, 3, "stride", 1), _get(args, kwargs, 4, "padding", 0)
    step = _get(args, kwargs, 5, "dilation", 1)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # torch puts the odd one behind
        padding = tuple((k - 1) * d // 2 for k, d in zip(size, _each(step, n), strict=True))
    return field.slide(size, stride, padding, step)


def _transposed(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    n = len(field.axes)
    if field.axes != tuple(range(x.dim() - n, x.dim())):
        return None
    size = _get(args, kwargs, 1, "weight").shape[2:]
    stride, padding = (_each(_get(args, kwargs, i, key, d), n) for i, key, d in ((3, "stride", 1), (4, "padding", 0)))
    step = _each(_get(args, kwargs, 7, "dilation", 1), n)
    finer = tuple(j / s for j, s in zip(field.stride, stride, strict=True))
    moved = zip(field.start, finer, size, padding, step, strict=True)
    return replace(field, stride=finer, start=tuple(a + (p - (k - 1) / 2 * d) * j for a, j, k, p, d in moved))


def _pooled(field: Field, _x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    size = _get(args, kwargs, 1, "kernel_size")
    stride = _get(args, kwargs, 2, "stride")
    return field.slide(size, size if stride is None or stride == [] else stride, _get(args, kwargs, 3, "padding", 0))


def _max_pooled(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    step = _get(args, kwargs, 4, "dilation", 1)
    plain = _pooled(field, x, args, kwargs)
    assert plain is not None
    size = _each(_get(args, kwargs, 1, "kernel_size"), len(field.axes))
    more = zip(plain.start, size, _each(step, len(size)), field.stride, strict=True)
    return replace(plain, start=tuple(a + (k - 1) / 2 * (d - 1) * j for a, k, d, j in more))


def _ours(field: Field, _x: Tensor, args: Sequence[Any], _kwargs: Arguments) -> Field | None:
    place = decode(args[3], args[4])
    if not isinstance(place, Boxes) or place.axes is None or not all(isinstance(a, Windows) for a in place.axes):
        return None
    axes = [a for a in place.axes if isinstance(a, Windows)]
    return field.slide(
        [a.size for a in axes], [a.stride for a in axes], [a.before for a in axes], [a.step for a in axes]
    )


def _padded(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    pad = _get(args, kwargs, 1, "pad")
    before = [pad[2 * (x.dim() - 1 - axis)] if 2 * (x.dim() - 1 - axis) < len(pad) else 0 for axis in field.axes]
    return field.slide(1, 1, before)


def _sliced(field: Field, x: Tensor, args: Sequence[Any], _kwargs: Arguments) -> Field | None:
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not all(isinstance(part, slice) or part is Ellipsis for part in index):
        return None
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    slices = [*index[:at], *[slice(None)] * (x.dim() - len(index) + (Ellipsis in index)), *index[at + 1 :]]
    ranges = [slices[axis].indices(x.shape[axis]) for axis in field.axes]
    return field.slide(1, [step for _, _, step in ranges], [-begin for begin, _, _ in ranges])


def _resized(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    size, factor = _get(args, kwargs, 1, "size"), _get(args, kwargs, 2, "scale_factor")
    n, now = len(field.axes), field.sizes(x)
    if _get(args, kwargs, 4, "align_corners"):
        return None
    new = _each(size, n) if size is not None else tuple(int(s * f) for s, f in zip(now, _each(factor, n), strict=True))
    ratio = [a / b for a, b in zip(now, new, strict=True)]
    moved = zip(field.stride, field.start, ratio, strict=True)
    return replace(
        field,
        stride=tuple(j * r for j, r in zip(field.stride, ratio, strict=True)),
        start=tuple(a + j * (r - 1) / 2 for j, a, r in moved),
    )


def _permuted(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    dims = args[1:] if len(args) > 1 else (kwargs["dims"],)
    order = [d % x.dim() for d in (dims[0] if isinstance(dims[0], Sequence) else dims)]
    return replace(field, axes=tuple(order.index(axis) for axis in field.axes))


def _lost(_field: Field, _x: Tensor, _args: Sequence[Any], _kwargs: Arguments) -> Field | None:
    return None


def _swapped(field: Field, x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    # swapaxes calls them axis0 and axis1
    a, b = (_get(args, kwargs, k + 1, f"dim{k}", kwargs.get(f"axis{k}")) % x.dim() for k in (0, 1))
    return replace(field, axes=tuple({a: b, b: a}.get(axis, axis) for axis in field.axes))


def _unshuffled(field: Field, _x: Tensor, args: Sequence[Any], kwargs: Arguments) -> Field | None:
    factor = _get(args, kwargs, 1, "downscale_factor")
    return field.slide(factor, factor, 0)


Rule = Callable[[Field, Tensor, Sequence[Any], Arguments], Field | None]

LOSES = [
    *("flip", "fliplr", "flipud", "roll", "rot90", "movedim", "moveaxis", "swapdims", "t", "__get__"),
    *("grid_sample", "index_select", "gather", "take_along_dim", "sort", "fold", "unfold"),
]
"""Calls that may keep the shape and still move positions."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(LOSES, _lost),
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _pooled for n in (1, 2, 3)},
    **{f"max_pool{n}d": _max_pooled for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _max_pooled for n in (1, 2, 3)},
    "pool": _ours,
    "pad": _padded,
    "__getitem__": _sliced,
    "interpolate": _resized,
    "permute": _permuted,
    "transpose": _swapped,
    "swapaxes": _swapped,
    "pixel_unshuffle": _unshuffled,
}
