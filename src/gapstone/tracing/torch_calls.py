"""The one table of what torch calls do: a function's name and its arguments become a typed operation.

    >>> read_call("max_pool2d", (x, 3), {"stride": 2, "padding": 1})
    WindowPool(function='max', kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil_mode=False, ...)

Functions, methods of tensors, Python's operators and gapstone's own pools come out alike, whether their arguments are
given by position or by name. A reader has the signature of the torch function that it reads. Tables over these types
say what an operation means: for places (`geometry`), receptive fields (`receptive_field`), axes (`position_axes`),
linearity (`linearity`) and padded batches (`ragged.masking`).

To add a call: one entry in `CALLS`. To add a type: also an entry in each of those tables, which
`tests/tracing/test_torch_calls.py` asks for.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import isnan
from typing import Any, Protocol

import torch

from gapstone.loops.place_encoding import decode
from gapstone.pools import POOLS
from gapstone.tracing import operations as ops
from gapstone.tracing.operations import Operation, Sizes

SEQUENCES = (tuple, list)
"""Made once: `tuple | list` is made anew at each call, which takes longer than the look at the type."""


class Shaped(Protocol):
    """A tensor, or a tape's slot for one."""

    def dim(self) -> int: ...


def per_axis(value: Any, n: int) -> tuple[Any, ...]:
    """A value for each of n axes, from one for all or one for each."""
    if isinstance(value, SEQUENCES):
        return tuple(value) * n if len(value) == 1 else tuple(value)
    return (value,) * n


# ---- readers: each has the signature of the torch function that it reads


def _conv(n: int, input: object, weight: Any, bias: object = None, stride: object = 1, padding: Any = 0,
          dilation: object = 1, groups: int = 1, function: str = "conv") -> ops.Convolution:  # fmt: skip
    shape = getattr(weight, "shape", None)  # quantised weights have none
    kernel = None if shape is None else tuple(shape[2:])
    steps = per_axis(dilation, n)
    if padding == "same":  # torch puts the odd one behind
        extra = [(k - 1) * d for k, d in zip(kernel or (1,) * n, steps, strict=False)]
        pads = tuple((e // 2, e - e // 2) for e in extra)
    else:
        pads = tuple((p, p) for p in per_axis(0 if padding == "valid" else padding, n))
    return ops.Convolution(function, kernel, per_axis(stride, n), pads, steps, input, weight)


def _conv_transpose(n: int, input: object, weight: Any, bias: object = None, stride: object = 1, padding: Any = 0,
                    output_padding: object = 0, groups: int = 1, dilation: object = 1) -> ops.Convolution:  # fmt: skip
    return _conv(n, input, weight, bias, stride, padding, dilation, groups, "conv_transpose")


def _window(
    n: int, size: object, stride: object, padding: object, dilation: object
) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    step = size if stride in (None, [], ()) else stride
    return per_axis(size, n), per_axis(step, n), per_axis(padding, n), per_axis(dilation, n)


def _max_pool(n: int, indices: bool, input: object, kernel_size: object, stride: object = None, padding: object = 0,
              dilation: object = 1, ceil_mode: bool = False, return_indices: bool = False
              ) -> ops.WindowPool:  # fmt: skip
    window = _window(n, kernel_size, stride, padding, dilation)
    return ops.WindowPool("max", *window, ceil_mode, True, None, indices or return_indices)


def _avg_pool(n: int, input: object, kernel_size: object, stride: object = None, padding: object = 0,
              ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None
              ) -> ops.WindowPool:  # fmt: skip
    return ops.WindowPool(
        "avg", *_window(n, kernel_size, stride, padding, 1), ceil_mode, count_include_pad, divisor_override
    )


def _adaptive(
    function: str, n: int, input: object, output_size: object, return_indices: bool = False
) -> ops.AdaptivePool:
    return ops.AdaptivePool(function, per_axis(output_size, n))


def _region_pool(x: object, name: str, loop: str, numbers: Sequence[int], places: Sequence[torch.Tensor],
                 constants: Sequence[float], tensors: Sequence[object], keep: bool = False
                 ) -> ops.RegionPool:  # fmt: skip
    given = iter(tensors)
    values = [next(given) if isnan(value) else value for value in constants]
    keys = POOLS[name].parameters if name in POOLS else map(str, range(len(values)))
    return ops.RegionPool(name, decode(numbers, places), dict(zip(keys, values, strict=True)))


def _dims(input: Shaped, dim: Any, axis: Any = None) -> Sizes | None:
    dim = axis if dim is None else dim
    if dim is None or dim == () or isinstance(dim, torch.Tensor):
        return None
    rank = input.dim() or 1
    return tuple(d % rank for d in (dim if isinstance(dim, Sequence) else (dim,)))


def _reduce(function: str, input: Shaped, dim: object = None, keepdim: bool = False, *, axis: object = None,
            dtype: torch.dtype | None = None, **_: object) -> ops.Reduce:  # fmt: skip
    return ops.Reduce(function, _dims(input, dim, axis), keepdim, dtype)


def _length(function: str, input: Shaped, p: object = 2, dim: object = None, keepdim: bool = False, *_: object,
                 dtype: torch.dtype | None = None, **__: object) -> ops.Scale:  # fmt: skip
    return ops.Scale(function, _dims(input, dim), keepdim, dtype)


def _deviation(function: str, input: Shaped, dim: object = None, *_: object, keepdim: bool = False, **__: object
               ) -> ops.Scale:  # fmt: skip
    return ops.Scale(function, None if isinstance(dim, bool) else _dims(input, dim), keepdim)


def _layer_norm(input: object, normalized_shape: Sequence[int], weight: object = None, bias: object = None,
                eps: float = 1e-5, *_: object) -> ops.LayerNorm:  # fmt: skip
    return ops.LayerNorm("layer_norm", len(per_axis(normalized_shape, 1)), weight, bias, eps)


def _rms_norm(input: object, normalized_shape: Sequence[int], weight: object = None, eps: float | None = None
              ) -> ops.LayerNorm:  # fmt: skip
    return ops.LayerNorm("rms_norm", len(per_axis(normalized_shape, 1)), weight, None, eps)


def _elementwise(
    function: str, *operands: object, rounding_mode: str | None = None, **named: object
) -> ops.Elementwise:
    input = operands[0] if operands else named.get("input")
    other = operands[1] if len(operands) > 1 else named.get("other", named.get("exponent"))
    return ops.Elementwise(function, input, other, rounding_mode)


def _reversed(function: str, input: object, other: object, **_: object) -> ops.Elementwise:
    return ops.Elementwise(function, other, input, None)


def _dropout(function: str, default: bool, input: object, p: float = 0.5, training: bool | None = None,
             inplace: bool = False, *, train: bool | None = None) -> ops.Dropout:  # fmt: skip
    given = train if training is None else training
    return ops.Dropout(function, p, default if given is None else given)


def _softmax(function: str, input: object, dim: int | None = None, *_: object, **__: object) -> ops.Softmax:
    return ops.Softmax(function, dim)


def _split(function: str, input: object, sections: object = None, dim: int = 0, **_: object) -> ops.Chunk:
    return ops.Chunk(function, dim)


def _unbind(input: object, dim: int = 0) -> ops.Slice:
    return ops.Slice("unbind", (dim,), None)


def _permute(input: Shaped, *dims: Any, **named: Any) -> ops.Permute:
    given = dims or (named["dims"],)
    return ops.Permute(
        "permute", tuple(d % input.dim() for d in (given[0] if isinstance(given[0], Sequence) else given))
    )


def _transpose(input: Shaped, dim0: Any = None, dim1: Any = None, axis0: Any = None, axis1: Any = None) -> ops.Permute:
    a, b = (axis0 if dim0 is None else dim0) % input.dim(), (axis1 if dim1 is None else dim1) % input.dim()
    return ops.Permute("transpose", tuple({a: b, b: a}.get(d, d) for d in range(input.dim())))


def _t(input: Shaped) -> ops.Permute:
    return ops.Permute("t", tuple(range(input.dim()))[::-1])


def _movedim(input: Shaped, source: object, destination: object) -> ops.Permute:
    rank = input.dim()
    moved = [[d % rank for d in per_axis(dims, 1)] for dims in (source, destination)]
    rest = [d for d in range(rank) if d not in moved[0]]
    place = dict(zip(moved[1], moved[0], strict=True))
    return ops.Permute("movedim", tuple(place[d] if d in place else rest.pop(0) for d in range(rank)))


def _slice(input: Shaped, index: object) -> ops.Slice:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) or part is Ellipsis for part in parts):
        return ops.Slice("__getitem__", parts, None)
    at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    missing = [slice(None)] * (input.dim() - len(parts) + (Ellipsis in parts))
    return ops.Slice("__getitem__", parts, (*parts[:at], *missing, *parts[at + 1 :]))


def _select(input: object, dim: int, index: object) -> ops.Slice:
    return ops.Slice("select", (dim, index), None)


def _pad(input: Shaped, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> ops.Pad:
    rank = input.dim()
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]  # the last dimension's come first
    return ops.Pad(mode, ((0, 0),) * (rank - len(pairs)) + tuple(pairs))


def _resize(input: Shaped, size: object = None, scale_factor: object = None, mode: str = "nearest",
            align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False
            ) -> ops.Resize:  # fmt: skip
    n = input.dim() - 2
    sizes = None if size is None else per_axis(size, n)
    factors = None if scale_factor is None else per_axis(scale_factor, n)
    return ops.Resize(mode, sizes, factors, bool(align_corners), antialias)


def _query(function: str, input: object, dim: int | None = None, *_: object, **__: object) -> ops.Query:
    return ops.Query(function, dim)


def _plain(operation: Operation, *_: object, **__: object) -> Operation:
    """A call whose arguments nobody asks for."""
    return operation


def _matrix_product(function: str, input: object, *_: object, **__: object) -> ops.MatrixProduct:
    return ops.MatrixProduct(function, input)


# ---- the table

Reader = Callable[..., Operation]


def _names(text: str) -> list[str]:
    return text.split()


def _in_place(readers: dict[str, Reader]) -> dict[str, Reader]:
    """The same for the names of those that torch has in place."""
    homes = (torch.Tensor, torch, torch.nn.functional)
    return {f"{name}_": reader for name, reader in readers.items() if any(hasattr(h, f"{name}_") for h in homes)}


ACTIVATIONS = _names("""relu relu6 elu selu celu leaky_relu rrelu gelu silu mish hardswish hardsigmoid hardtanh sigmoid
    tanh softplus softsign tanhshrink softshrink hardshrink log_sigmoid threshold _threshold""")
ARITHMETIC = _names("""add sub mul div neg abs sqrt rsqrt square pow float_power exp log log1p expm1 reciprocal sign
    clamp clamp_min clamp_max maximum minimum where lerp addcmul addcdiv sin cos erf nan_to_num""")
ALIASES = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "clip": "clamp",
           "logsigmoid": "log_sigmoid", "__truediv__": "div", "__itruediv__": "div", "__radd__": "add",
           "__rmul__": "mul"}  # fmt: skip
"""Other names of elementwise functions. Python's operators are `__add__` and `__iadd__`, as far as torch says them."""
OPERATORS = ["add", "sub", "mul", "pow", "neg"]

ELEMENTWISE = {
    **{name: name for name in (*ACTIVATIONS, *ARITHMETIC)},
    **ALIASES,
    **{f"__{prefix}{name}__": name for name in OPERATORS for prefix in ("", "i")},
}
REVERSED = {"rsub": "sub", "__rsub__": "sub", "__rdiv__": "div", "__rtruediv__": "div", "__rpow__": "rpow"}
"""2 - x, 2 / x, 2 ** x."""

DROPOUTS = {"dropout": True, "dropout1d": True, "dropout2d": True, "dropout3d": True, "feature_dropout": True,
            "alpha_dropout": False, "feature_alpha_dropout": False}  # fmt: skip
"""Whether each drops where nothing says if it does."""
REDUCTIONS = ["mean", "sum", "amax", "max", "amin", "min", "logsumexp"]
PRODUCTS = _names("""matmul __matmul__ __rmatmul__ mm bmm baddbmm einsum tensordot cdist scaled_dot_product_attention
    multi_head_attention_forward""")
LENGTHS = ["norm", "linalg_norm", "linalg_vector_norm"]

PLAIN: dict[type[Operation], Sequence[str]] = {
    ops.Cast: _names("to type_as type float double half bfloat16"),
    ops.Copy: _names("contiguous clone alias detach"),
    ops.Expand: _names("expand expand_as"),
    ops.PerPosition: _names("prelu local_response_norm zeros_like ones_like"),
    ops.Rearrange: _names(
        "flip fliplr flipud roll rot90 grid_sample index_select gather take_along_dim sort fold unfold"
    ),
    ops.Reshape: _names("view reshape flatten unflatten"),
    ops.Squeeze: _names("squeeze unsqueeze"),
}

ONE_BY_ONE: dict[str, Reader] = {
    **{name: partial(_elementwise, function) for name, function in ELEMENTWISE.items()},
    **{name: partial(_dropout, name, drops) for name, drops in DROPOUTS.items()},
}

CALLS: dict[str, Reader] = {
    **{f"conv{n}d": partial(_conv, n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": partial(_conv_transpose, n) for n in (1, 2, 3)},
    **{f"max_pool{n}d": partial(_max_pool, n, False) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": partial(_max_pool, n, True) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": partial(_avg_pool, n) for n in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{n}d": partial(_adaptive, kind, n) for kind in ("avg", "max") for n in (1, 2, 3)},
    "pool": _region_pool,
    **{name: partial(_reduce, name) for name in REDUCTIONS},
    **{name: partial(_length, name) for name in LENGTHS},
    **{name: partial(_deviation, name) for name in ("std", "std_mean")},
    "batch_norm": partial(ops.BatchNorm, "batch_norm"),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": partial(ops.GroupNorm, "group_norm"),
    "instance_norm": partial(ops.InstanceNorm, "instance_norm"),
    "normalize": partial(ops.Normalize, "normalize"),
    "linear": partial(ops.LinearLayer, "linear"),
    **{name: partial(_matrix_product, name.strip("_")) for name in PRODUCTS},
    **ONE_BY_ONE,
    **_in_place(ONE_BY_ONE),
    **{name: partial(_reversed, function) for name, function in REVERSED.items()},
    **{name: partial(_softmax, name) for name in ("softmax", "log_softmax")},
    "glu": partial(ops.Glu, "glu"),
    "permute": _permute,
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], _transpose),
    **dict.fromkeys(["movedim", "moveaxis"], _movedim),
    "t": _t,
    "__getitem__": _slice,
    "select": _select,
    **{name: partial(_split, name) for name in ("chunk", "split", "tensor_split")},
    "unbind": _unbind,
    **{name: partial(ops.Concat, "cat") for name in ("cat", "concat", "concatenate")},
    "stack": partial(ops.Concat, "stack"),
    "pad": _pad,
    "interpolate": _resize,
    "pixel_unshuffle": partial(ops.PixelUnshuffle, "pixel_unshuffle"),
    **{name: partial(_query, name) for name in _names("__get__ dim size numel nelement is_contiguous stride")},
    **{name: partial(_plain, kind(name)) for kind, names in PLAIN.items() for name in names},
}
"""The name that torch says of a call → its reader."""


def name_of(function: Callable[..., object]) -> str:
    """The name of a torch function, by which the table knows it."""
    return getattr(function, "__name__", str(function))


def read_call(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Operation:
    """What a call does; `Operation(name)` where the table does not know it, or torch will refuse it."""
    reader = CALLS.get(name)
    if reader is None:
        return Operation(name)
    try:
        return reader(*args, **kwargs)
    except (AttributeError, IndexError, TypeError, ValueError, KeyError):  # wrong arguments: torch says what is wrong
        return Operation(name)
