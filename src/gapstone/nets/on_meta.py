"""Networks as names and shapes alone: on torch's meta device, where nothing has a value.

Some of torch's operators are written in Python there, and the first call of one imports torch's compiler: 2 s of every
command that opens a model. Those that networks are built with and run into most are answered here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer


def _itself(x: Tensor, *_: object, **__: object) -> Tensor:
    return x


def _like(x: Tensor, *_: object, **__: object) -> Tensor:
    return x.new_empty(x.shape)  # empty_like imports sympy there: 0.7 s


def _bounded(x: Tensor, _lower: float = -1.0, _upper: float = 1.0, inplace: bool = False, **_: object) -> Tensor:
    return x if inplace else _like(x)


def _broadcast(x: Tensor, other: Tensor | float, **_: object) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, other.shape if isinstance(other, Tensor) else ())  # type: ignore[no-untyped-call]
    return x.new_empty(shape)


def _depending(x: Tensor, _mean: object, _variance: object, *affine: object, **more: object) -> Tensor:
    """Something of the shape of a batch norm that depends on all that it does."""
    for parameter in (*affine[:2], *more.values()):
        if isinstance(parameter, Tensor):
            x = x + parameter.view(-1, *[1] * (x.dim() - 2))
    return x


def _normed(x: Tensor, normalized_shape: Sequence[int], *_: object, **__: object) -> Tensor | None:
    return _like(x) if tuple(normalized_shape) == tuple(x.shape[-len(normalized_shape) :]) else None


def _joined(tensors: Sequence[Tensor], dim: int = 0, **more: object) -> Tensor | None:
    shapes = [list(x.shape) for x in tensors]
    length = sum(shape.pop(dim) for shape in shapes)
    if more or any(shape != shapes[0] for shape in shapes):
        return None
    shapes[0].insert(dim % tensors[0].dim(), length)
    return tensors[0].new_empty(shapes[0])


def _convolved(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor | None:
    kernel = weight.shape[2:]
    each = [value if isinstance(value, tuple) else (value,) * len(kernel) for value in (stride, padding, dilation)]
    if isinstance(padding, str) or x.dim() != weight.dim() or x.shape[1] != weight.shape[1] * groups:
        return None
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(x.shape[2:], kernel, *each, strict=True)]
    return x.new_empty((x.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else None


def _projected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    return x.new_empty((*x.shape[:-1], weight.shape[0])) if x.shape[-1] == weight.shape[-1] else None


def _attended(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: object = None, *_: object, **__: object
) -> Tensor | None:
    if attn_mask is not None:  # of a network that takes one size only, it does not fit others
        return None
    same = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and query.shape[-1] == key.shape[-1]
    return query.new_empty((*query.shape[:-1], value.shape[-1])) if same else None


ACTIVATIONS = (F.relu, F.relu6, F.elu, F.leaky_relu, F.gelu, F.silu, F.mish, F.hardswish, torch.relu)
DRAWN: dict[Any, Callable[..., Tensor]] = dict.fromkeys(
    (
        Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.log_normal_,
        Tensor.cauchy_, Tensor.geometric_,
    ),
    _itself,
)  # fmt: skip
"""What fills a tensor with random numbers, and returns it."""
# an answer of None: torch says what is wrong, or knows more
SHAPES: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((F.batch_norm, F.group_norm), _like),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _like),
    **dict.fromkeys(ACTIVATIONS, _like),
    F.hardtanh: _bounded,  # nn.ReLU6
    **dict.fromkeys((Tensor.add, Tensor.mul), _broadcast),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolved),
    F.layer_norm: _normed,
    F.linear: _projected,
    F.scaled_dot_product_attention: _attended,
    torch.cat: _joined,
}
"""What a forward pass calls, and the shape of its answer."""


class _Answered(Tracer):
    """Calls of these functions on shapes are answered here."""

    def __init__(self, answers: Mapping[Any, Callable[..., Tensor | None]]) -> None:
        super().__init__()
        self._answers = answers

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        answer = self._answers.get(func)
        if answer is not None and args:
            tensors = [x for x in (args[0] if isinstance(args[0], list | tuple) else args) if isinstance(x, Tensor)]
            if tensors and all(x.is_meta and x.is_floating_point() and x.dtype == tensors[0].dtype for x in tensors):
                shape = answer(*args, **kwargs)
                if shape is not None:
                    return shape
        return func(*args, **kwargs)


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks that are made inside have shapes and no values: no memory, no arithmetic.

    >>> with on_meta():
    ...     features = nets.build("resnet50")
    """
    with torch.device("meta"), _Answered(DRAWN):
        yield


def state_shapes(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers as shapes, for `torch.func.functional_call`; the module keeps its own.

    >>> state_shapes(nn.Linear(2, 3))["weight"].device
    device(type='meta')
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.new_empty(tensor.shape, device="meta") for name, tensor in state.items()}


def shapes_alone() -> Tracer:
    """For a forward pass of shapes whose gradient nobody asks for."""
    return _Answered(SHAPES)


def batch_norms_alone() -> Tracer:
    """For a forward pass of shapes in eval mode: torch takes a batch norm apart in Python there, 6 of 7 parts of the
    time of a ResNet.
    """
    return _Answered({F.batch_norm: _like})


def dependence_alone() -> Tracer:
    """For a forward pass of shapes, and its backward, of which only matters what depends on what."""
    return _Answered({**dict.fromkeys((*ACTIVATIONS, F.hardtanh), _itself), F.batch_norm: _depending})
