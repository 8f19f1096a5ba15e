"""A call without torch's dispatcher, where nobody listens there: 15 µs less than through the operator.

Only for places without tensors and parameters that are numbers; everything else goes through `gapstone::pool`.
"""

from collections.abc import Callable, Iterable
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gapstone.loops import background, native, operators
from gapstone.loops.choose import TINY
from gapstone.loops.layout import Parameters, is_channels_last
from gapstone.loops.operators import COMPILED
from gapstone.loops.places import encode
from gapstone.loops.tuned.windows import FLOATS
from gapstone.regions import Whole
from gapstone.regions.places import Boxes, Place
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


def fits(x: Tensor, loop: str, place: Place, parameters: Parameters) -> bool:
    return loop in COMPILED and type(place) is Boxes and not any(isinstance(p, Tensor) for p in parameters) and alone(x)


def pool(name: str, loop: str, x: Tensor, place: Boxes, parameters: Parameters, keep: bool) -> Tensor:
    if not keep:
        out: Tensor = COMPILED[loop].forward(name, x, place, parameters)[0]
        return out
    answer: Tensor = _Pool.apply(x, name, loop, place, parameters)
    return answer


def built(name: str, loop: str, x: Tensor, place: Place, parameters: Parameters, keep: bool) -> bool:
    """Whether a compiled loop has all kernels of a call; those it has not are compiled in the background from here on,
    and the call goes another way, as that of an empty map does at all times.
    """
    if not x.numel():
        return False
    if background.must_wait():
        return True
    about = place if isinstance(place, Boxes) else type(place)
    values = tuple((p.dim(), p.requires_grad) if isinstance(p, Tensor) else p for p in parameters)
    key = name, loop, x.shape, x.dtype, x.stride(), about, values, keep
    if key in _built:
        return True
    learned = any(isinstance(p, Tensor) and p.requires_grad for p in parameters)
    if _missing(COMPILED[loop].kernels(name, x, place, parameters, keep, learned)):
        return False
    if len(_built) >= MOST_BUILT:
        _built.clear()
    _built.add(key)
    return True


def _missing(asked: Iterable[Callable[[], object]]) -> bool:
    """Asks for all of them, so that all are being built."""
    missing = False
    with background.not_waiting():
        for ask in asked:
            try:
                ask()
            except background.NotBuilt:
                missing = True
    return missing


MOST_BUILT = 4096
_built: set[Any] = set()


def meanwhile(name: str, x: Tensor, place: Place, keep: bool) -> Literal["native", "torch"]:
    """What answers until a loop's kernels are built: torch's kernel, or the reference where that differs."""
    if native.knows(name, x, place) is None:
        return "torch"
    # of several NaN, torch's maximum gives its gradient to another
    return "torch" if native.last_nan(name, place, keep) and bool(x.isnan().any()) else "native"


def built_both(x: Tensor) -> bool:
    """The same of the mean and the maximum in one read."""
    from gapstone.loops.tuned import launch_whole

    if background.must_wait():
        return True
    keep = torch.is_grad_enabled() and x.requires_grad
    like = "avgmax", x.dtype, x.shape, is_channels_last(x), False, None
    asked = [lambda: launch_whole.plan(False, *like, keep)]
    return not _missing([*asked, lambda: launch_whole.plan(True, *like, False)] if keep else asked)


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
        ctx.call = tuple(x.shape), is_channels_last(x)
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
        ctx.call = name, loop, place, parameters, tuple(x.shape), is_channels_last(x), x.dtype
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
