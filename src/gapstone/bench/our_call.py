"""The call that is measured: the loop that `choose_loop` takes, forward and backward, as the front door calls it.

Without the front door's own microseconds: benchmarks/call_overhead.py measures those.
"""

from typing import Any

import torch
from torch import Tensor

from gapstone.loops import native
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.mean_and_max import fits_both, mean_and_max
from gapstone.loops.operators import LOOPS, OWN_KERNELS
from gapstone.loops.pool_call import Parameters, PoolCall
from gapstone.loops.tuned import dispatch
from gapstone.pools import COMPOSITIONS, POOLS
from gapstone.pools.definition import read_by_backward
from gapstone.regions import Whole
from gapstone.regions.places import Intervals, Place


def loop_for(name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False) -> str:
    """The loop that serves; of a composition, its pools' loops."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return "tuned"
        return "+".join(dict.fromkeys(loop_for(each, x, place, (), keep) for each in COMPOSITIONS[name].pools))
    return choose_loop(PoolCall.of(POOLS[name], x, place, parameters, keep)).loop


def ours(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The answers, and what the backward needs. `out`: where the answers go, for loops that can be told."""
    if name in COMPOSITIONS and out is None:
        if _in_one_read(name, x, place):
            return _joined(name, list(mean_and_max(x))), []
        return _joined(name, [ours(each, x, place)[0] for each in COMPOSITIONS[name].pools]), []
    loop = loop_for(name, x, place, parameters, keep)
    if out is not None and loop != "tuned":
        raise NotImplementedError(f"the {loop} loop writes into no given tensor")
    call = PoolCall.of(POOLS[name], x, place, parameters, keep)
    if loop == "tuned":
        return dispatch.forward(call, x, out)
    return (native.forward(call, x), []) if loop == "native" else LOOPS[loop].forward(call, x)


def differentiable(name: str, x: Tensor, place: Place, parameters: Parameters) -> Tensor:
    """The same answers with a backward that autograd can call, as it calls torch's own."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return _joined(name, list(mean_and_max(x)))
        return _joined(name, [differentiable(each, x, place, ()) for each in COMPOSITIONS[name].pools])
    loop = loop_for(name, x, place, parameters, keep=True)
    if loop not in OWN_KERNELS:
        return ours(name, x, place, parameters, keep=True)[0]
    learned = [p for p in parameters if isinstance(p, Tensor)]
    answer: Tensor = _Pooled.apply(x, PoolCall.of(POOLS[name], x, place, parameters, True), loop, *learned)
    return answer


def _in_one_read(name: str, x: Tensor, place: Place) -> bool:
    """Mean and maximum together, as the front door makes them."""
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
    """Whether a gradient cannot be had without reading the map again."""
    pools = COMPOSITIONS[name].pools if name in COMPOSITIONS else (name,)
    return any("x" in read_by_backward(POOLS[each], False) for each in pools)
