"""Which loop serves a call, and why: one rule, read by the front door and by `gapstone doctor`."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gapstone.loops import compiled, native
from gapstone.loops.memory_format import Parameters
from gapstone.loops.tuned import dispatch as tuned
from gapstone.regions.places import Place

Loop = Literal["native", "tuned", "compiled", "reference"]
TINY = 1 << 11
"""Bytes of x below which a call is mostly the call, and torch's is the shorter (benchmarks/call_overhead.py)."""


class Choice(NamedTuple):
    loop: Loop
    why: str


def choose(name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False) -> Choice:
    """`keep`: a gradient will be asked for."""
    if x.device.type == "cpu":
        if torch.compiler.is_compiling():
            if not keep and (known := native.knows(name, x, place)):
                return Choice("native", f"{known}, which the compiler takes apart and fuses with what stands around it")
        # half precision: ours is rounded once, torch's gradients at every addition
        elif x.numel() * x.element_size() < TINY and x.dtype.itemsize > 2:
            known = None if native.last_nan(name, place, keep) else native.knows(name, x, place)
            if known:
                return Choice("native", f"{known}: a call on so little is mostly the call")
        if reason := tuned.serves(name, x, place, parameters, keep):
            return Choice("tuned", reason)
    if reason := native.serves(name, x, place, keep):
        return Choice("native", reason)
    if x.device.type != "cpu":
        return Choice("reference", f"no compiled loop for {x.device.type} yet")
    if reason := compiled.serves(name, x.dtype, place):
        return Choice("reference", reason)
    return Choice("compiled", "derived from the pool's definition and compiled for this machine")
