"""What each call does to the sizes of images in a padded batch, and what it must not see. To add a call: one entry."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gapstone.pooling import pool
from gapstone.ragged.extents import Refused, Valid
from gapstone.ragged.own_pools import largest, mean
from gapstone.regions import Window

if TYPE_CHECKING:
    from gapstone.ragged.padded_batch import Masked

Rule = Callable[["Masked", Any, str, Sequence[Tensor], Any, Any], Any]


def _get(args: Any, kwargs: Any, place: int, name: str, otherwise: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, otherwise)


def _each(value: Any, n: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def _same(mode: "Masked", name: str, inputs: Sequence[Tensor]) -> Valid:
    valid = mode.known(inputs[0])
    if any(mode.of(x) is not valid and mode.of(x) != valid for x in inputs[1:]):
        raise Refused(f"{name} of maps of shapes {', '.join(str(tuple(x.shape)) for x in inputs)}")
    return valid


def _kept(mode: "Masked", out: Any, valid: Valid) -> Any:
    for y in out if isinstance(out, tuple | list) else [out]:
        mode.put(y, valid)
    return out


# ---- calls that look at one position


def _pointwise(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """Together with what has no positions, or one for all."""
    valid, dims = _same(mode, name, inputs), inputs[0].dim()
    for part in (*args, *kwargs.values()):
        if isinstance(part, Tensor) and mode.of(part) is None:
            over = [axis for axis in valid.axes if part.dim() >= dims - axis and part.shape[axis - dims] != 1]
            if part.dim() > dims or over:
                raise Refused(f"{name} of a map {tuple(inputs[0].shape)} and a tensor {tuple(part.shape)}")
    return _kept(mode, func(*args, **kwargs), valid)


def _by_position(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """With weights that have no positions."""
    return _kept(mode, func(*args, **kwargs), _same(mode, name, inputs))


def _converted(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """x.to(y), x.type_as(y): of what is converted; y only says to what."""
    valid = mode.of(args[0])
    out = func(*args, **kwargs)
    return out if valid is None else _kept(mode, out, valid)


def _batch_norm(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    if _get(args, kwargs, 5, "training", False):
        raise Refused("batch_norm with the batch's own statistics: they are of all images together")
    return _by_position(mode, func, name, inputs, args, kwargs)


def _last(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """layer_norm, linear: over the last dimensions, which must not be positions."""
    x, valid = inputs[0], mode.known(inputs[0])
    over = len(_each(_get(args, kwargs, 1, "normalized_shape"), 1)) if name == "layer_norm" else 1
    if max(valid.axes) >= x.dim() - over:
        raise Refused(f"{name} over the positions of a map of shape {tuple(x.shape)}")
    out = _by_position(mode, func, name, inputs, args, kwargs)
    if name == "linear":
        mode.products += out[0].numel() * x.shape[-1]
    return out


def _along(place: int, key: str = "dim", otherwise: int = 0) -> Rule:
    """cat, chunk, softmax: along one dimension, which must not be of positions."""

    def rule(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        x, valid = inputs[0], _same(mode, name, inputs)
        dim = _get(args, kwargs, place, key, otherwise)
        if not isinstance(dim, int) or dim % x.dim() in (0, *valid.axes):
            raise Refused(f"{name} along dimension {dim} of a map of shape {tuple(x.shape)}")
        if name in ("cat", "concat", "concatenate") and len(_get(args, kwargs, 0, "tensors")) != len(inputs):
            raise Refused(f"{name} of a map with something that is none")
        return _kept(mode, func(*args, **kwargs), valid)

    return rule


def _stack(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    x, valid = inputs[0], _same(mode, name, inputs)
    dim = _get(args, kwargs, 1, "dim", 0) % (x.dim() + 1)
    if dim == 0 or len(_get(args, kwargs, 0, "tensors")) != len(inputs):
        raise Refused(f"{name} of a map of shape {tuple(x.shape)} along dimension {dim}, or with what is none")
    return mode.put(func(*args, **kwargs), replace(valid, axes=tuple(a + (a >= dim) for a in valid.axes)))


def _expanded(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """y.expand_as(map)."""
    if len(inputs) != 1 or inputs[0] is args[0]:
        raise Refused(f"{name} of a map of shape {tuple(inputs[0].shape)}")
    # memory of its own: what is beyond the images may be cleared
    return mode.put(func(*args, **kwargs).clone(), mode.known(inputs[0]))


def _permute(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    x, valid = inputs[0], mode.known(inputs[0])
    if name == "permute":
        dims = args[1:] if len(args) > 1 else (kwargs["dims"],)
        order = [d % x.dim() for d in (dims[0] if isinstance(dims[0], Sequence) else dims)]
    else:
        axis = "axis" if name == "swapaxes" else "dim"
        a, b = (_get(args, kwargs, k, f"{axis}{k - 1}") % x.dim() for k in (1, 2))
        order = [{a: b, b: a}.get(d, d) for d in range(x.dim())]
    axes = tuple(order.index(axis) for axis in valid.axes)
    if order[0] != 0 or sorted(axes) != list(axes):
        raise Refused(f"{name} of a map of shape {tuple(x.shape)} to the order {tuple(order)}")
    return mode.put(func(*args, **kwargs), replace(valid, axes=axes))


def _sliced(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """Channels, and positions from the first on."""
    x, valid = inputs[0], mode.known(inputs[0])
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    refused = Refused(f"{name} {index} of a map of shape {tuple(x.shape)}")
    if not all(isinstance(part, slice) or part is Ellipsis for part in index):
        raise refused
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    slices = [*index[:at], *[slice(None)] * (x.dim() - len(index) + (Ellipsis in index)), *index[at + 1 :]]
    if slices[0] != slice(None) or (valid.flat and slices[valid.axes[0]] != slice(None)):
        raise refused
    ends = []
    for axis in valid.axes:
        part = slices[axis]
        if part.start not in (None, 0) or part.step not in (None, 1) or (part.stop is not None and part.stop < 0):
            raise refused
        ends.append(x.shape[axis] if part.stop is None else part.stop)
    sizes = tuple(tuple(map(min, size, ends)) for size in valid.sizes) if not valid.flat else valid.sizes
    return mode.put(func(*args, **kwargs), replace(valid, sizes=sizes))


def _reshaped(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """Other dimensions cut or joined; or all positions put into one axis, where a pool follows."""
    x, valid = inputs[0], mode.known(inputs[0])
    out = func(*args, **kwargs)
    n, lengths = len(valid.axes), tuple(x.shape[axis] for axis in valid.axes)
    if valid.axes == tuple(range(x.dim() - n, x.dim())) and out.dim() > 1 and len(out) == len(x):
        if out.dim() > n and tuple(out.shape[-n:]) == lengths:
            return mode.put(out, replace(valid, axes=tuple(range(out.dim() - n, out.dim()))))
        if out.dim() > 2 and valid.flat is None and out.shape[-1] == prod(lengths):
            return mode.put(out, Valid((out.dim() - 1,), valid.sizes, flat=lengths))
    raise Refused(
        f"{name} of a map of shape {tuple(x.shape)} to {tuple(out.shape)}: its positions become features, and "
        f"every size has others"
    )


# ---- calls that look across positions


def _convolution(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    x, valid = inputs[0], mode.known(inputs[0])
    weight, n = _get(args, kwargs, 1, "weight"), len(valid.axes)
    last = tuple(range(x.dim() - n, x.dim()))
    if valid.flat or valid.axes != last or not isinstance(weight, Tensor) or weight.dim() != x.dim() != n + 1:
        raise Refused(f"{name} of a map of shape {tuple(x.shape)}")
    if len(inputs) != 1:
        raise Refused(f"{name} of a map of shape {tuple(x.shape)} with weights made of the images")
    size = tuple(weight.shape[2:])
    stride, step = _each(_get(args, kwargs, 3, "stride", 1), n), _each(_get(args, kwargs, 5, "dilation", 1), n)
    padding = _get(args, kwargs, 4, "padding", 0)
    reach = [(k - 1) * d for k, d in zip(size, step, strict=True)]
    # "same" is for a stride of 1 only: as many places whatever the map's size
    both = reach if padding == "same" else [0] * n if padding == "valid" else [2 * p for p in _each(padding, n)]
    rules = list(zip(both, reach, stride, strict=True))
    after = valid
    if any(p != r or s != 1 for p, r, s in rules):  # most leave the size as it is
        after = valid.moved(
            lambda size: tuple((n + p - r - 1) // s + 1 for n, (p, r, s) in zip(size, rules, strict=True))
        )
        _some(name, x, after)
    if any(both):
        mode.clear(x)
    out = func(*args, **kwargs)
    mode.products += out[0].numel() * weight[0].numel()
    return mode.put(out, after)


def _some(name: str, x: Tensor, after: Valid) -> None:
    if min(min(size) for size in after.sizes) < 1:
        raise Refused(f"{name} of a map of shape {tuple(x.shape)}: it leaves nothing of the smallest image")


def _pool(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """max_pool, avg_pool."""
    x, valid, most = inputs[0], mode.known(inputs[0]), name.startswith("max")
    n = len(valid.axes)
    if valid.flat or valid.axes != tuple(range(2, x.dim())) or x.dim() != int(name[8]) + 2:
        raise Refused(f"{name} of a map of shape {tuple(x.shape)}")
    if most and _get(args, kwargs, 6, "return_indices", False):
        raise Refused(f"{name} with indices, which count the positions of the padded map")
    size = tuple(_each(_get(args, kwargs, 1, "kernel_size"), n))
    stride = _get(args, kwargs, 2, "stride")
    strides = size if stride is None or stride == [] or stride == () else _each(stride, n)
    padding = _each(_get(args, kwargs, 3, "padding", 0), n)
    step = _each(_get(args, kwargs, 4, "dilation", 1), n) if most else (1,) * n
    ceil = _get(args, kwargs, 5, "ceil_mode", False) if most else _get(args, kwargs, 4, "ceil_mode", False)
    rules = list(zip(size, strides, padding, step, strict=True))
    after = valid.moved(lambda one: tuple(_cells(n, *rule, ceil) for n, rule in zip(one, rules, strict=True)))
    _some(name, x, after)
    reaches = any(padding) or (ceil and any(
        (cells - 1) * s + (k - 1) * d >= length
        for one, other in zip(valid.sizes, after.sizes, strict=True)
        for length, cells, (k, s, _, d) in zip(one, other, rules, strict=True)
    ))  # fmt: skip
    if most and x.is_cpu:  # the same numbers; torch's own loop took 40 % of GoogLeNet's time
        over = Window(size, strides, padding, step, bool(ceil))
        run: Callable[[Tensor], Tensor] = lambda filled: pool(filled, "max", over)  # noqa: E731
    else:
        run = lambda filled: _with(func, args, kwargs, filled)  # noqa: E731
    if not reaches:  # no window of an image looks beyond it
        return mode.put(run(x), after)
    if most:
        return largest(mode, x, after, run)
    include = _get(args, kwargs, 5, "count_include_pad", True)
    if include and not ceil:  # every window divides by its own size
        mode.clear(x)
        return mode.put(func(*args, **kwargs), after)
    return mode.put(*valid.joined(_apart(func, x, valid, args, kwargs), valid.axes))


def _cells(length: int, size: int, stride: int, padding: int, step: int, ceil: bool) -> int:
    room = length + 2 * padding - (size - 1) * step - 1
    if not ceil:
        return room // stride + 1
    # the last window must begin on the map or on the padding before it
    return min(-(-room // stride), -(-(length + padding) // stride) - 1) + 1


# ---- calls over all positions: of each image by itself


def _with(func: Any, args: Any, kwargs: Any, x: Tensor) -> Any:
    return func(x, *args[1:], **kwargs) if args else func(**{**kwargs, "input": x})


def _apart(func: Any, x: Tensor, valid: Valid, args: Any, kwargs: Any) -> list[Any]:
    return [_with(func, args, kwargs, valid.crop(x, images, size)) for images, size in valid.runs()]


def _adaptive(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    x, valid = inputs[0], mode.known(inputs[0])
    n, size = len(valid.axes), _get(args, kwargs, 1, "output_size")
    if valid.flat or valid.axes != tuple(range(2, x.dim())) or None in _each(size, n):
        raise Refused(f"{name}({size}) of a map of shape {tuple(x.shape)}")
    if name.startswith("adaptive_avg") and set(_each(size, n)) == {1} and x.dtype.itemsize >= 4:
        return mean(mode, x, valid.axes, keepdim=True)
    parts = _apart(func, x, valid, args, kwargs)
    if not all(isinstance(part, Tensor) for part in parts):
        raise Refused(f"{name} with indices, which count the positions of the padded map")
    return torch.cat(parts)


def _reduced(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """mean, sum, amax, logsumexp, norm, …: over all positions, or over none."""
    x, valid = inputs[0], mode.known(inputs[0])
    place = 2 if name in ("norm", "linalg_vector_norm") else 1
    dims = _get(args, kwargs, place, "dim")
    if dims is None or isinstance(dims, Tensor):
        raise Refused(f"{name} of a whole batch of shape {tuple(x.shape)}")
    over = {d % x.dim() for d in (dims if isinstance(dims, Sequence) else [dims])}
    keepdim = bool(_get(args, kwargs, place + 1, "keepdim", False))
    if not over & {0, *valid.axes}:
        axes = tuple(axis if keepdim else axis - sum(d < axis for d in over) for axis in valid.axes)
        return _kept(mode, func(*args, **kwargs), replace(valid, axes=axes))
    if 0 in over or not over >= set(valid.axes):
        raise Refused(f"{name} over dimensions {sorted(over)} of a map of shape {tuple(x.shape)}")
    if name == "mean" and over == set(valid.axes) and x.dtype.itemsize >= 4 and "dtype" not in kwargs:
        return mean(mode, x, valid.axes, keepdim)
    parts = _apart(func, x, valid, args, kwargs)
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if name in ("max", "min"):  # (values, indices); the indices count the positions of each image
        return type(parts[0])(tuple(torch.cat(pair) for pair in zip(*parts, strict=True)))
    raise Refused(f"{name} of a map of shape {tuple(x.shape)}")


def _normed(mode: "Masked", func: Any, name: str, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
    """group_norm, instance_norm: the statistics of each image's own positions."""
    x, valid = inputs[0], mode.known(inputs[0])
    if valid.flat or valid.axes != tuple(range(2, x.dim())):
        raise Refused(f"{name} of a map of shape {tuple(x.shape)}")
    if name == "instance_norm" and not _get(args, kwargs, 5, "use_input_stats", True):
        return _by_position(mode, func, name, inputs, args, kwargs)
    return mode.put(*valid.joined(_apart(func, x, valid, args, kwargs), valid.axes))


ACTIVATIONS = """relu relu6 elu selu celu leaky_relu rrelu gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh
    softplus softsign tanhshrink softshrink hardshrink log_sigmoid threshold _threshold dropout alpha_dropout
    feature_alpha_dropout dropout1d dropout2d dropout3d"""
ARITHMETIC = """add sub mul div true_divide neg abs sqrt rsqrt square pow exp log log1p expm1 reciprocal sign clamp
    clamp_min clamp_max clip maximum minimum where lerp addcmul addcdiv rsub sin cos erf nan_to_num"""
REVERSED = "rsub rdiv rpow"
"""Of Python's operators: 2 - x, 2 / x, 2 ** x. Of all others torch says the name of the function."""
WITHOUT_IN_PLACE = """softplus softsign tanhshrink softshrink hardshrink log_sigmoid _threshold dropout1d dropout2d
    dropout3d maximum minimum where rsub"""
COPIES = "contiguous clone detach float double half bfloat16 type zeros_like ones_like prelu local_response_norm"
OVER_AXES = "mean sum amax amin max min logsumexp norm linalg_vector_norm"
POINTWISE = f"{ACTIVATIONS} {ARITHMETIC}".split()

RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **{f"{name}_": _pointwise for name in POINTWISE if name not in WITHOUT_IN_PLACE.split()},
    **{f"__{name}__": _pointwise for name in REVERSED.split()},
    **dict.fromkeys(COPIES.split(), _by_position),
    **dict.fromkeys(["to", "type_as"], _converted),
    "batch_norm": _batch_norm,
    "layer_norm": _last,
    "linear": _last,
    **dict.fromkeys(["cat", "concat", "concatenate"], _along(1)),
    "chunk": _along(2),
    "split": _along(2),
    "tensor_split": _along(2),
    **dict.fromkeys(["softmax", "log_softmax"], _along(1, otherwise=1)),
    "stack": _stack,
    "expand_as": _expanded,
    "glu": _along(1, otherwise=-1),
    "normalize": _along(2, otherwise=1),
    **dict.fromkeys(["permute", "transpose", "swapaxes", "swapdims"], _permute),
    "__getitem__": _sliced,
    **dict.fromkeys(["view", "reshape", "flatten", "unflatten"], _reshaped),
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _pool for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{n}d": _adaptive for kind in ("max", "avg") for n in (1, 2, 3)},
    **dict.fromkeys(OVER_AXES.split(), _reduced),
    **dict.fromkeys(["group_norm", "instance_norm"], _normed),
}
"""Name of a torch function → what becomes of it. What is not here and gives a tensor is refused."""
