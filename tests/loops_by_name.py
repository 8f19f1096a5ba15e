"""A loop called with a pool's name, a map and a place, as tests of kernels have them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gapstone.loops.kernel_call import KernelCall
from gapstone.loops.memory_format import is_channels_last
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import POOLS
from gapstone.regions.places import Place


def call_of(name: str, x: Tensor, place: Place, parameters: tuple = (), keep: bool = False) -> PoolCall:
    return PoolCall.of(POOLS[name], x, place, parameters, keep)


def call_of_type(name: str, dtype: torch.dtype, place: Place, shape: tuple[int, ...] = (1, 1, 1)) -> PoolCall:
    return PoolCall(POOLS[name], place, shape, dtype, "cpu", "contiguous", (), True)


class ByName:
    def __init__(self, loop: Any) -> None:
        self.loop = loop

    def forward(
        self, name: str, x: Tensor, place: Place, parameters: tuple = (), keep: bool = False, out: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        into = {} if out is None else {"out": out}
        return self.loop.forward(call_of(name, x, place, parameters, keep), x, **into)

    def backward(
        self,
        name: str,
        grad: Tensor,
        x: Tensor | None,
        out: Tensor | None,
        saved: Sequence[Tensor],
        shape: Sequence[int],
        place: Place,
        parameters: tuple = (),
        slope: bool = False,
        channels_last: bool | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """`channels_last`: of the map; by default as x lies, or what was saved."""
        call = PoolCall(POOLS[name], place, tuple(shape), grad.dtype, "cpu", "contiguous", parameters, True)
        if channels_last is None:
            like = next(part for part in (x, out, *saved, grad) if part is not None)
            cells = x is not None or KernelCall._make(call._replace(layout="channels_last")).answers_channels_last
            channels_last = cells and is_channels_last(like)
        if channels_last:
            call = call._replace(layout="channels_last")
        return self.loop.backward(call, grad, x, out, saved, slope)

    def serves(self, name: str, x: Tensor, place: Place, parameters: tuple = (), keep: bool = False) -> str | None:
        return self.loop.serves(call_of(name, x, place, parameters, keep))

    def refuses(self, name: str, dtype: torch.dtype, place: Place) -> str | None:
        return self.loop.refuses(call_of_type(name, dtype, place))

    def saved_types(self, name: str, dtype: torch.dtype, place: Place) -> list[torch.dtype]:
        return self.loop.saved_types(call_of_type(name, dtype, place))

    def positions(self, shape: tuple[int, ...], place: Place, saved: Tensor, name: str) -> Tensor:
        return self.loop.positions(call_of_type(name, torch.float32, place, shape), saved)
