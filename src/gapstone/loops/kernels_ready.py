"""Whether a call's kernels are compiled; where they are not, they are asked for, and another loop answers meanwhile."""

from collections.abc import Callable, Iterable
from typing import Literal

from torch import Tensor

from gapstone.loops import background, native
from gapstone.loops.operators import LOOPS
from gapstone.loops.pool_call import LoopName, PoolCall

MOST_READY = 4096
_ready: set[PoolCall] = set()


def kernels_ready(call: PoolCall, loop: LoopName, x: Tensor) -> bool:
    """Whether a loop has all kernels of a call; those it has not are compiled in the background from here on, and the
    call goes another way, as that of an empty map does at all times."""
    if not call.numel:
        return False
    if background.must_wait():
        return True
    key = call.key()
    if key in _ready:
        return True
    if missing(LOOPS[loop].kernels(call, x)):
        return False
    if len(_ready) >= MOST_READY:
        _ready.clear()
    _ready.add(key)
    return True


def missing(requests: Iterable[Callable[[], object]]) -> bool:
    """Whether a kernel is missing; all are asked for, so that all are being built."""
    lacking = False
    with background.not_waiting():
        for request in requests:
            try:
                request()
            except background.NotBuilt:
                lacking = True
    return lacking


def meanwhile(call: PoolCall, x: Tensor) -> Literal["native", "reference"]:
    """What answers until a loop's kernels are built: torch's kernel, or the reference where that differs."""
    if native.knows(call) is None:
        return "reference"
    # of several NaN, torch's maximum gives its gradient to another
    return "reference" if native.last_nan(call) and bool(x.isnan().any()) else "native"
