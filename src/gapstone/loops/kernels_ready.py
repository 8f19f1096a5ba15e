"""Whether a call's kernels are compiled; where they are not, they are asked for, and another loop answers meanwhile."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Literal

from torch import Tensor

from gapstone.loops import background, compiled, native
from gapstone.loops.operators import KERNEL_LOOPS
from gapstone.loops.pool_call import LoopName, PoolCall
from gapstone.pools import BUILT_IN

MOST_READY = 4096
_ready: set[PoolCall] = set()


def kernels_ready(call: PoolCall, loop: LoopName, x: Tensor) -> bool:
    """Whether a loop has all kernels of a call; those it has not are compiled in the background from here on, and the
    call goes another way, as that of an empty map does at all times.
    """
    if not call.numel:
        return False
    own = call.pool.name not in BUILT_IN
    if background.must_wait() and not own:
        return True
    key = call.key()
    if key in _ready:
        return True
    try:
        if missing(KERNEL_LOOPS[loop].kernels(call, x), background.must_wait()):
            return False
    except Exception as error:
        if not own:
            raise
        compiled.cannot_compile(call.pool, error)
        return False
    if len(_ready) >= MOST_READY:
        _ready.clear()
    _ready.add(key)
    return True


def missing(requests: Iterable[Callable[[], object]], wait: bool = False) -> bool:
    """Whether a kernel is missing; all are asked for, so that all are being built. `wait`: they are built at once."""
    lacking = False
    with nullcontext() if wait else background.not_waiting():
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
