"""A call without torch's dispatcher, where nobody listens there: 15 µs less than through the operator.

Only for places without tensors and parameters that are numbers; everything else goes through `gapstone::pool`.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.loops import operators
from gapstone.loops.choose import TINY
from gapstone.loops.layout import Parameters
from gapstone.loops.operators import COMPILED
from gapstone.loops.places import encode
from gapstone.loops.tuned.windows import FLOATS
from gapstone.regions import Whole
from gapstone.regions.places import Boxes, Place


def alone(x: Tensor) -> bool:
    """Whether the call is seen by nobody: no compiler, tracer, mode, transform or tensor of another kind."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.layout is torch.strided
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._is_tracing()
        and not torch._C._is_torch_function_mode_enabled()  # who looks for pools in a network finds them
        # inside torch.vmap and torch.func.grad x is of the same type, and its memory is not what its shape says
        and torch._C._functorch.maybe_current_level() is None
    )


def fits(x: Tensor, loop: str, place: Place, parameters: Parameters) -> bool:
    return loop in COMPILED and type(place) is Boxes and not any(isinstance(p, Tensor) for p in parameters) and alone(x)


def pool(name: str, loop: str, x: Tensor, place: Boxes, parameters: Parameters, keep: bool) -> Tensor:
    if not keep:
        out: Tensor = COMPILED[loop].forward(name, x, place, parameters)[0]
        return out
    answer: Tensor = _Pool.apply(x, name, loop, place, parameters)
    return answer


def fits_both(x: Tensor, over: object) -> bool:
    """Whether the mean and the maximum of a call are made in one read."""
    return (
        type(over) is Whole
        and alone(x)
        and x.is_cpu
        and x.dtype in FLOATS
        and 3 <= x.dim() <= 5
        and x.numel() * x.element_size() >= TINY
    )


def mean_and_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over the whole map, in one read; None of x's layout is copied."""
    from gapstone.loops.tuned import launch_whole

    if torch.is_grad_enabled() and x.requires_grad:
        both: tuple[Tensor, Tensor] = _MeanAndMax.apply(x)
        return both
    return launch_whole.avgmax(x)


class _MeanAndMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        from gapstone.loops.tuned import launch_whole

        mean, largest, position = launch_whole.avgmax_kept(x)
        ctx.save_for_backward(position)
        ctx.call = tuple(x.shape), operators.channels_last(x)
        return mean, largest

    @staticmethod
    def backward(ctx: Any, mean_grad: Tensor, max_grad: Tensor) -> Any:
        from gapstone.loops.tuned import launch_whole

        (position,), (shape, last) = ctx.saved_tensors, ctx.call
        if torch.is_grad_enabled() or not alone(mean_grad):  # somebody differentiates the gradient, or looks on
            length = prod(shape[2:])
            dx = (mean_grad / length)[..., None].expand(-1, -1, length)
            return dx.scatter_add(2, position.long()[..., None], max_grad[..., None]).reshape(shape)
        return launch_whole.avgmax_backward(mean_grad, max_grad, position, shape, last)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, loop: str, place: Boxes, parameters: Parameters) -> Tensor:
        out, kept = COMPILED[loop].forward(name, x, place, parameters, True)
        needs_x, needs_out = operators.needs(name, False)
        ctx.save_for_backward(*([x] if needs_x else []), *([out] if needs_out else []), *kept)
        ctx.call = name, loop, place, parameters, tuple(x.shape), operators.channels_last(x), x.dtype
        answer: Tensor = out
        return answer

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        name, loop, place, parameters, shape, last, dtype = ctx.call
        known = list(ctx.saved_tensors)
        if torch.is_grad_enabled() or not alone(grad):  # somebody differentiates the gradient, or looks on
            numbers, places = encode(place)
            call: Any = shape, last, dtype, False, name, loop, numbers, places, [float(p) for p in parameters], []
            dx = torch.ops.gapstone.pool_backward(grad, known, *call)[0]
        else:
            needs_x, needs_out = operators.needs(name, False)
            x = known.pop(0) if needs_x else None
            out = known.pop(0) if needs_out else None
            dx, _ = COMPILED[loop].backward(name, grad, x, out, known, shape, place, parameters, True, False, last)
        return dx, None, None, None, None
