"""gapstone's measured call: the loop that `choose_loop` selects, forward and backward.

The overhead of `gs.pool` itself is not included: benchmarks/call_overhead.py measures it.
"""

from typing import Any

import torch
from torch import Tensor

from gapstone.loops import native
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.mean_and_max import fits_both, mean_and_max
from gapstone.loops.operators import KERNEL_LOOPS, LOOPS
from gapstone.loops.pool_call import Parameters, PoolCall
from gapstone.loops.tuned import dispatch
from gapstone.pools import COMPOSITIONS, POOLS
from gapstone.pools.definition import read_by_backward
from gapstone.regions import Whole
from gapstone.regions.places import Intervals, Place


def loop_for(name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False) -> str:
    """Return the loop that runs; for a composition, the loops of its pools."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return "tuned"
        return "+".join(dict.fromkeys(loop_for(pool, x, place, (), keep) for pool in COMPOSITIONS[name].pools))
    return choose_loop(PoolCall.of(POOLS[name], x, place, parameters, keep)).loop


def ours(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the output and the tensors saved for the backward pass; `out`: an existing tensor for the output."""
    if name in COMPOSITIONS and out is None:
        if _in_one_read(name, x, place):
            return _joined(name, list(mean_and_max(x))), []
        return _joined(name, [ours(pool, x, place)[0] for pool in COMPOSITIONS[name].pools]), []
    loop = loop_for(name, x, place, parameters, keep)
    if out is not None and loop != "tuned":
        raise NotImplementedError(f"the {loop} loop writes into no given tensor")
    call = PoolCall.of(POOLS[name], x, place, parameters, keep)
    if loop == "tuned":
        return dispatch.forward(call, x, out)
    return (native.forward(call, x), []) if loop == "native" else LOOPS[loop].forward(call, x)


def differentiable(name: str, x: Tensor, place: Place, parameters: Parameters) -> Tensor:
    """Return the output as a tensor that autograd can differentiate."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return _joined(name, list(mean_and_max(x)))
        return _joined(name, [differentiable(pool, x, place, ()) for pool in COMPOSITIONS[name].pools])
    loop = loop_for(name, x, place, parameters, keep=True)
    if loop not in KERNEL_LOOPS:
        return ours(name, x, place, parameters, keep=True)[0]
    learned = [p for p in parameters if isinstance(p, Tensor)]
    answer: Tensor = _Pooled.apply(x, PoolCall.of(POOLS[name], x, place, parameters, True), loop, *learned)
    return answer


def _in_one_read(name: str, x: Tensor, place: Place) -> bool:
    """Tell whether mean and maximum are computed in one pass, as `gs.pool` does."""
    whole = isinstance(place, Intervals) and place.axes is None
    return whole and COMPOSITIONS[name].pools == ("mean", "max") and fits_both(x, Whole())


def _joined(name: str, answers: list[Tensor]) -> Tensor:
    return torch.cat(answers, 1) if COMPOSITIONS[name].join == "cat" else torch.stack(answers).mean(0)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, call: PoolCall, loop: str, *learned: Tensor) -> Tensor:
        out, saved = ours(call.name, x, call.place, call.parameters, keep=True)
        needs_x, needs_out = LOOPS[loop].needs(call, bool(learned))
        ctx.save_for_backward(x if needs_x else None, out if needs_out else None, *saved)
        ctx.call = call, loop
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, *saved = ctx.saved_tensors
        call, loop = ctx.call
        learned = [p for p in call.parameters if isinstance(p, Tensor)]
        dx, slopes = LOOPS[loop].backward(call, grad, x, out, saved, bool(learned))
        return dx, None, None, *(None if slopes is None else slopes.sum().reshape(p.shape) for p in learned)


def looks_at_x(name: str) -> bool:
    """Tell whether the backward pass reads the map again."""
    pools = COMPOSITIONS[name].pools if name in COMPOSITIONS else (name,)
    return any("x" in read_by_backward(POOLS[pool], False) for pool in pools)
