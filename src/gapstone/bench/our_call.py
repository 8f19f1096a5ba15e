"""The call that is measured: the loop that `choose` takes, forward and backward, as the front door calls it.

Without the front door's own microseconds: benchmarks/call_overhead.py measures those.
"""

from typing import Any

import torch
from torch import Tensor

from gapstone.loops import eager, native, operators
from gapstone.loops import torch as plain
from gapstone.loops.choose import choose
from gapstone.loops.layout import is_channels_last
from gapstone.loops.operators import COMPILED
from gapstone.pools import COMPOSITIONS
from gapstone.regions import Whole
from gapstone.regions.places import Boxes, Place

Parameters = tuple[Tensor | float, ...]


def loop_for(name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False) -> str:
    """The loop that serves; of a composition, its pools' loops."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return "tuned"
        return "+".join(dict.fromkeys(loop_for(one, x, place, (), keep) for one in COMPOSITIONS[name].pools))
    return choose(name, x, place, parameters, keep).loop


def ours(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The answers, and what the backward needs. `out`: where the answers go, for loops that can be told."""
    if name in COMPOSITIONS and out is None:
        if _in_one_read(name, x, place):
            return _joined(name, list(eager.mean_and_max(x))), []
        return _joined(name, [ours(one, x, place)[0] for one in COMPOSITIONS[name].pools]), []
    loop = loop_for(name, x, place, parameters, keep)
    if out is not None and loop != "tuned":
        raise NotImplementedError(f"the {loop} loop writes into no given tensor")
    if loop in COMPILED:
        into = {} if out is None else {"out": out}
        found: tuple[Tensor, list[Tensor]] = COMPILED[loop].forward(name, x, place, parameters, keep, **into)
        return found
    if loop == "native":
        assert isinstance(place, Boxes)
        return native.forward(name, x, place), []
    return plain.forward(name, operators.wide(name, x), place, parameters).to(operators.answer_type(name, x.dtype)), []


def differentiable(name: str, x: Tensor, place: Place, parameters: Parameters) -> Tensor:
    """The same answers with a backward that autograd can call, as it calls torch's own."""
    if name in COMPOSITIONS:
        if _in_one_read(name, x, place):
            return _joined(name, list(eager.mean_and_max(x)))
        return _joined(name, [differentiable(one, x, place, ()) for one in COMPOSITIONS[name].pools])
    loop = loop_for(name, x, place, parameters, keep=True)
    if loop not in COMPILED:
        return ours(name, x, place, parameters, keep=True)[0]
    learned = [p for p in parameters if isinstance(p, Tensor)]
    answer: Tensor = _Pooled.apply(x, name, loop, place, parameters, *learned)
    return answer


def _in_one_read(name: str, x: Tensor, place: Place) -> bool:
    """Mean and maximum together, as the front door makes them."""
    whole = isinstance(place, Boxes) and place.axes is None
    return whole and COMPOSITIONS[name].pools == ("mean", "max") and eager.fits_both(x, Whole())


def _joined(name: str, answers: list[Tensor]) -> Tensor:
    return torch.cat(answers, 1) if COMPOSITIONS[name].join == "cat" else torch.stack(answers).mean(0)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, name: str, loop: str, place: Place, parameters: Parameters, *learned: Tensor
    ) -> Any:
        out, kept = ours(name, x, place, parameters, keep=True)
        needs_x, needs_out = operators.needs(name, bool(learned))
        ctx.save_for_backward(x if needs_x else None, out if needs_out else None, *kept)
        ctx.call = name, loop, tuple(x.shape), place, parameters, is_channels_last(x)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, out, *kept = ctx.saved_tensors
        name, loop, shape, place, parameters, last = ctx.call
        learned = [p for p in parameters if isinstance(p, Tensor)]
        dx, dp = COMPILED[loop].backward(name, grad, x, out, kept, shape, place, parameters, True, bool(learned), last)
        return dx, None, None, None, None, *(dp.sum().reshape(p.shape) for p in learned)


def looks_at_x(name: str) -> bool:
    """Whether a gradient cannot be had without reading the map again."""
    pools = COMPOSITIONS[name].pools if name in COMPOSITIONS else (name,)
    return any(operators.needs(one, False)[0] for one in pools)
