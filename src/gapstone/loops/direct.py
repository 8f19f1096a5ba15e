"""A call without torch's dispatcher, where nobody listens there: 15 µs less than through the operator.

Only for windows, grids and masks, and parameters that are numbers; everything else goes through `gapstone::pool`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gapstone.loops import operators
from gapstone.loops.operators import LOOPS
from gapstone.loops.pool_call import LoopName, PoolCall
from gapstone.regions.places import Intervals, Labels
from gapstone.runtime.torch_internals import unwatched


def alone(x: Tensor) -> bool:
    """Whether the call is seen by nobody: no compiler, tracer, mode, transform or tensor of another kind."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.layout is torch.strided
        and not torch.compiler.is_compiling()
        # who looks for pools in a network finds them; inside torch.vmap and torch.func.grad x is of the same type, and
        # its memory is not what its shape says
        and unwatched(x)
    )


def fits(call: PoolCall) -> bool:
    """Whether a call that is seen by nobody may pass by torch's dispatcher: autograd need know of its map alone."""
    place = call.place
    whole_mask = type(place) is Labels and place.whole and type(place.labels) is Tensor
    return (type(place) is Intervals or whole_mask) and not any(isinstance(p, Tensor) for p in call.parameters)


def pool(call: PoolCall, loop: LoopName, x: Tensor) -> Tensor:
    """One answer, by one loop."""
    if not call.requires_grad:
        return LOOPS[loop].forward(call, x)[0]
    answer: Tensor = _Pool.apply(x, call, loop)
    return answer


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, call: PoolCall, loop: LoopName) -> Tensor:
        out, saved = LOOPS[loop].forward(call, x)
        needs_x, needs_out = LOOPS[loop].needs(call, False)
        ctx.save_for_backward(*([x] if needs_x else []), *([out] if needs_out else []), *saved)
        ctx.call = call, loop
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        call, loop = ctx.call
        known = list(ctx.saved_tensors)
        if torch.is_grad_enabled() or not alone(grad):  # somebody differentiates the gradient, or looks on
            return operators.pool_backward(call, loop, grad, known), None, None
        dx, _ = LOOPS[loop].backward(call, grad, *operators.given_back(call, LOOPS[loop], known, False), False)
        return dx, None, None
