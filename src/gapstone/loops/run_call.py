"""From a checked call and the loop that was chosen to the answer."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from torch import Tensor

from gapstone.loops import direct, kernels_ready, native, operators
from gapstone.loops.pool_call import LoopName, PoolCall


class Runner(NamedTuple):
    """The function that answers maps like the one it was made for."""

    run: Callable[[Tensor], Tensor]
    lasting: bool
    """Whether calls alike run the same way from now on; False while kernels are built in the background."""


def runner(call: PoolCall, loop: LoopName, x: Tensor) -> Runner:
    """How this call is answered by this loop. Nothing is checked."""
    alone = loop in operators.KERNEL_LOOPS and direct.alone(x)
    if alone and not kernels_ready.kernels_ready(call, loop, x):
        return Runner(by_loop(call, kernels_ready.meanwhile(call, x), False), False)
    return Runner(by_loop(call, loop, alone), True)


def by_loop(call: PoolCall, loop: LoopName, alone: bool) -> Callable[[Tensor], Tensor]:
    """The function that answers by this loop, and waits for its kernels. `alone`: the call is seen by nobody."""
    if loop == "native":
        return native.kernel(call)
    if alone and direct.fits(call):
        return lambda x: direct.pool(call, loop, x)
    return lambda x: operators.pool(call, loop, x)


Key = TypeVar("Key")
Value = TypeVar("Value")
MOST_REMEMBERED = 4096


def remember(table: dict[Key, Value], key: Key, value: Value) -> None:
    """How calls like one before are answered; a table that is full begins anew."""
    if len(table) >= MOST_REMEMBERED:
        table.clear()
    table[key] = value
