"""The pools as two operators that torch knows: whole graphs under torch.compile, dynamic sizes under torch.export.

`gapstone::pool` gives the answer and what its backward needs; `gapstone::pool_backward` gives the gradients, through
`share` and `slope`. Both run the loop that they are told. Their schemas are plain: a `PoolCall` is encoded in them.
"""

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import compiled, reference
from gapstone.loops.memory_format import is_channels_last, laid_out
from gapstone.loops.place_encoding import check, decode, encode
from gapstone.loops.pool_call import KernelLoop, Layout, Loop, LoopName, Parameters, PoolCall
from gapstone.loops.precision import answer_type, wide
from gapstone.loops.tuned import dispatch as tuned
from gapstone.pools import POOLS
from gapstone.regions.places import Place

Tensors = list[Tensor]
Encoded = tuple[str, str, list[int], Tensors, list[float], Tensors]
"""A pool's name, a loop, a place as numbers and tensors, parameters as numbers (NaN: a tensor) and tensors."""

KERNEL_LOOPS: dict[str, KernelLoop] = {"compiled": compiled, "tuned": tuned}
"""They save something for the backward; the reference keeps x."""
LOOPS: dict[str, Loop] = {**KERNEL_LOOPS, "reference": reference}

LIBRARY = torch.library.Library("gapstone", "FRAGMENT")
CALL = "str name, str loop, SymInt[] numbers, Tensor[] places, float[] constants, Tensor[] tensors"
LIBRARY.define(f"pool(Tensor x, {CALL}, bool keep) -> Tensor[]")
LIBRARY.define(
    f"pool_backward(Tensor grad, Tensor[] known, SymInt[] shape, bool last, ScalarType dtype, bool slope, {CALL})"
    " -> Tensor[]"
)


def pool(call: PoolCall, loop: LoopName, x: Tensor) -> Tensor:
    """One answer, by one loop, seen by torch as one operator."""
    out: Tensor = torch.ops.gapstone.pool(x, *encode_call(call, loop), call.requires_grad)[0]
    return out


def pool_backward(call: PoolCall, loop: LoopName, grad: Tensor, known: Tensors) -> Tensor:
    """The gradient of x as an operator, which can be differentiated again. Parameters are numbers."""
    head: Any = list(call.shape), call.channels_last, call.dtype, False
    dx: Tensor = torch.ops.gapstone.pool_backward(grad, known, *head, *encode_call(call, loop))[0]
    return dx


def encode_call(call: PoolCall, loop: LoopName) -> Encoded:
    """A call as the operators' arguments."""
    numbers, places = encode(call.place)
    constants = [nan if isinstance(p, Tensor) else float(p) for p in call.parameters]
    tensors = [p for p in call.parameters if isinstance(p, Tensor)]
    return call.name, loop, numbers, places, constants, tensors


def _parameters(constants: Sequence[float], tensors: Sequence[Tensor]) -> Parameters:
    given = iter(tensors)
    # a whole number stays one: topk's k
    return tuple(next(given) if isnan(v) else int(v) if v.is_integer() and abs(v) < 2**53 else v for v in constants)


# ---- forward


def _pool(
    x: Tensor, name: str, loop: str, numbers: list[int], places: Tensors, constants: list[float], tensors: Tensors,
    keep: bool,
) -> Tensors:  # fmt: skip
    call = PoolCall.of(POOLS[name], x, decode(numbers, places), _parameters(constants, tensors), keep)
    check(call.place, tuple(x.shape))
    out, saved = LOOPS[loop].forward(call, x)
    return [laid_out(part, call.channels_last) for part in (out, *saved)]


def _pool_fake(
    x: Tensor, name: str, loop: str, numbers: list[int], places: Tensors, constants: list[float], tensors: Tensors,
    keep: bool,
) -> Tensors:  # fmt: skip
    call = PoolCall.of(POOLS[name], x, decode(numbers, places), _parameters(constants, tensors), keep)
    types = [answer_type(call.pool, x.dtype), *(LOOPS[loop].saved_types(call) if keep else [])]
    return [laid_out(x.new_empty(call.answer_shape, dtype=dtype), call.channels_last) for dtype in types]


# ---- backward


def _backward_call(
    grad: Tensor, shape: list[int], last: bool, dtype: torch.dtype, name: str, place: Place, parameters: Parameters
) -> PoolCall:
    layout: Layout = "channels_last" if last else "contiguous"
    return PoolCall(POOLS[name], place, tuple(shape), dtype, grad.device.type, layout, parameters, True)


def _backward(
    grad: Tensor, known: Tensors, shape: list[int], last: bool, dtype: torch.dtype, slope: bool,
    name: str, loop: str, numbers: list[int], places: Tensors, constants: list[float], tensors: Tensors,
) -> Tensors:  # fmt: skip
    """`known`: x and the answer, where the loop reads them, then what the loop saved."""
    place, parameters = decode(numbers, places), _parameters(constants, tensors)
    call = _backward_call(grad, shape, last, dtype, name, place, parameters)
    dx, slopes = LOOPS[loop].backward(call, grad, *given_back(call, LOOPS[loop], known, slope), slope)
    assert dx is not None
    return [laid_out(dx, last), *([] if slopes is None else [slopes])]


def given_back(
    call: PoolCall, loop: Loop, known: Sequence[Tensor], slope: bool
) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
    """Of the tensors that were saved for a backward: x, the answer, and what the loop saved."""
    rest = list(known)
    needs_x, needs_out = loop.needs(call, slope)
    x = rest.pop(0) if needs_x else None
    out = rest.pop(0) if needs_out else None
    return x, out, rest


def _backward_fake(
    grad: Tensor, known: Tensors, shape: list[int], last: bool, dtype: torch.dtype, slope: bool,
    name: str, loop: str, numbers: list[int], places: Tensors, constants: list[float], tensors: Tensors,
) -> Tensors:  # fmt: skip
    dx = laid_out(grad.new_empty(shape, dtype=dtype), last)
    if not slope:
        return [dx]
    per_position = next(iter(POOLS[name].parameters.values())).per_position
    size = (shape[0], 1, *shape[2:]) if per_position else shape[:2]
    return [dx, grad.new_empty(size, dtype=torch.float64 if dtype == torch.float64 else torch.float32)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    x, name, loop, numbers, places, constants, tensors, keep = inputs
    slope = any(t.requires_grad for t in tensors)
    if keep and loop in KERNEL_LOOPS:
        call = PoolCall.of(POOLS[name], x, decode(numbers, places), _parameters(constants, tensors), keep)
        needs_x, needs_out = LOOPS[loop].needs(call, slope)
        known = [*([x] if needs_x else []), *output[: 1 if needs_out else 0], *output[1:]]
    else:
        known, loop = [x], "reference"
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*known, *places, *tensors)
    ctx.counts = len(known), len(places)
    ctx.call = tuple(x.shape), is_channels_last(x), x.dtype, slope, name, loop, numbers
    ctx.constants = constants


def _gradients(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    if (grad := grads[0]) is None:
        raise RuntimeError("the answer has no gradient to pass on")
    known, places, tensors = _saved(ctx)
    dx, *slopes = torch.ops.gapstone.pool_backward(grad, known, *ctx.call, places, ctx.constants, tensors)
    learned = [_like(slopes[0], t) for t in tensors] if ctx.call[3] else [None] * len(tensors)
    return dx, None, None, None, [None] * len(places), _no_gradient(ctx.constants), learned, None


def _no_gradient(numbers: list[float]) -> list[None] | None:
    """torch takes an empty list for a list of tensors, and a list of numbers for one thing."""
    return None if numbers else []


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Summed over images where they share the parameter, over channels where these do."""
    shape = (1,) * (gradient.dim() - parameter.dim()) + tuple(parameter.shape)
    return gradient.sum_to_size(shape).reshape(parameter.shape).to(parameter.dtype)


def _saved(ctx: Any) -> tuple[Tensors, Tensors, Tensors]:
    saved, (a, b) = list(ctx.saved_tensors), ctx.counts
    return saved[:a], saved[a : a + b], saved[a + b :]


# ---- the gradient of the gradient


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    grad, known, *call, numbers, places, constants, tensors = inputs
    ctx.save_for_backward(grad, *known, *places, *tensors)
    ctx.counts = 1 + len(known), len(places)
    ctx.call, ctx.numbers, ctx.constants = tuple(call), numbers, constants


def _second(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """Where share does not look at x the pool is linear in it: the gradient of the gradient is the pool itself, or what
    stands at the largest positions. Elsewhere the reference is differentiated.
    """
    (grad, *known), places, tensors = _saved(ctx)
    shape, last, dtype, slope, name, loop = ctx.call
    place, parameters = decode(ctx.numbers, places), _parameters(ctx.constants, tensors)
    call = _backward_call(grad, shape, last, dtype, name, place, parameters)
    nothing = [None] * len(places), _no_gradient(ctx.constants)
    if loop in KERNEL_LOOPS and not LOOPS[loop].needs(call, slope)[0]:
        assert grads[0] is not None
        linear = _linear(call, loop, grads[0], known).reshape(grad.shape)
        return linear, [None] * len(known), *(None,) * 7, *nothing, [None] * len(tensors)
    of_grad, of_x, *of_tensors = _of_reference(call, slope, grads, grad, known[0])
    return of_grad, [of_x, *[None] * (len(known) - 1)], *(None,) * 7, *nothing, of_tensors


def _linear(call: PoolCall, loop: LoopName, gg: Tensor, known: Tensors) -> Tensor:
    if call.pool.positional:
        at = KERNEL_LOOPS[loop].positions(call, known[-1])
        return gg.flatten(2).gather(2, at.flatten(2))
    return pool(PoolCall.of(call.pool, gg, call.place, call.parameters, torch.is_grad_enabled()), loop, gg)


def _of_reference(
    call: PoolCall, slope: bool, grads: list[Tensor | None], grad: Tensor, x: Tensor
) -> tuple[Tensor | None, ...]:
    """The derivatives of the reference's gradients: by grad, by x, by each parameter that is a tensor."""
    with torch.enable_grad():
        first, x = grad.detach().requires_grad_(), x.detach().requires_grad_()
        own = tuple(p.detach().requires_grad_() if isinstance(p, Tensor) else p for p in call.parameters)
        inputs = [first, x, *(p for p in own if isinstance(p, Tensor))]
        x = wide(call.pool, x)
        dx, slopes = reference.gradients(call._replace(parameters=own), first.to(x.dtype), x, slope)
        answers = [dx] if slopes is None else [dx, reference.summed(call.pool, slopes)]
        pairs = [(a, g.to(a.dtype)) for a, g in zip(answers, grads, strict=False) if g is not None and a.requires_grad]
        if not pairs:
            return (None,) * len(inputs)
        heads, tails = [a for a, _ in pairs], [g for _, g in pairs]
        return torch.autograd.grad(heads, inputs, tails, allow_unused=True)


for key in ("CPU", "CUDA", "MPS", "XPU"):  # opcheck wants the devices by name
    LIBRARY.impl("pool", _pool, key)
    LIBRARY.impl("pool_backward", _backward, key)
torch.library.register_fake("gapstone::pool", _pool_fake, lib=LIBRARY)
torch.library.register_fake("gapstone::pool_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("gapstone::pool", _gradients, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd("gapstone::pool_backward", _second, setup_context=_setup_backward, lib=LIBRARY)
