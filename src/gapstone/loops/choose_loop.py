"""Which loop serves a call, and why: one rule, read by the front door and by `gapstone doctor`."""

from typing import NamedTuple

import torch

from gapstone.loops import compiled, native
from gapstone.loops.pool_call import LoopName, PoolCall
from gapstone.loops.tuned import dispatch as tuned

TINY = 1 << 11
"""Bytes of x below which a call is mostly the call, and torch's is the shorter (benchmarks/call_overhead.py)."""


class Choice(NamedTuple):
    """The loop that serves a call, and the reason."""

    loop: LoopName
    why: str


def choose_loop(call: PoolCall) -> Choice:
    """The loop that serves a call."""
    if call.device == "cpu":
        if torch.compiler.is_compiling():
            if not call.requires_grad and (known := native.knows(call)):
                return Choice("native", f"{known}, which the compiler takes apart and fuses with what stands around it")
        # half precision: ours is rounded once, torch's gradients at every addition
        elif call.numel * call.dtype.itemsize < TINY and call.dtype.itemsize > 2:
            known = None if native.last_nan(call) else native.knows(call)
            if known:
                return Choice("native", f"{known}: a call on so little is mostly the call")
        if reason := tuned.serves(call):
            return Choice("tuned", reason)
    if reason := native.serves(call):
        return Choice("native", reason)
    if call.device != "cpu":
        return Choice("reference", f"no compiled loop for {call.device} yet")
    if reason := compiled.refuses(call):
        return Choice("reference", reason)
    return Choice("compiled", "derived from the pool's definition and compiled for this machine")
