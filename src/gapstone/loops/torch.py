"""The torch loop: any pool from its five functions, in plain tensor operations. The reference: plain and right."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gapstone.pools import POOLS, Definition
from gapstone.regions.boxes import Axis

State = tuple[Tensor, ...]
Parameters = tuple[Tensor | float, ...]


class Maths:
    """The words pools speak, for tensors whose last `spatial` axes are positions."""

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)

    def __init__(self, spatial: int) -> None:
        self.positions = tuple(range(-spatial, 0))

    @staticmethod
    def pow(x: Tensor, p: Tensor | float) -> Tensor:
        return x.pow(p)

    @staticmethod
    def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        return torch.where(condition, a, b)

    @staticmethod
    def maximum(x: Tensor, y: Tensor | float) -> Tensor:
        return x.clamp(min=y) if isinstance(y, float) else torch.maximum(x, y)

    @staticmethod
    def finite(x: Tensor) -> Tensor:
        return x.masked_fill(x.isinf(), 0)

    @staticmethod
    def constant(x: Tensor) -> Tensor:
        return x.detach()

    # over a whole block; the axes stay, with one position each

    def sum(self, x: Tensor) -> Tensor:
        return x.sum(self.positions, keepdim=True)

    def max(self, x: Tensor) -> Tensor:
        return x.amax(self.positions, keepdim=True)

    def count(self, x: Tensor) -> Tensor:
        shape = x.shape[: x.dim() - len(self.positions)] + (1,) * len(self.positions)
        return x.new_tensor(x[0, 0].numel() if len(x) else 0).expand(shape)

    def first_max(self, x: Tensor) -> State:
        values, where = x.flatten(x.dim() - len(self.positions)).max(-1)  # torch names the first of equals
        ones = (1,) * len(self.positions)
        return values.reshape(*values.shape, *ones), where.reshape(*where.shape, *ones)


@lru_cache
def spoken(name: str, spatial: int) -> Definition:
    return POOLS[name].spoken(Maths(spatial))


def positions(x: Tensor, spatial: int) -> Tensor:
    """The number of each position, counted as in memory order of a contiguous map."""
    sizes = x.shape[-spatial:]
    return torch.arange(sizes.numel(), device=x.device).reshape(sizes)


def lift(pool: Definition, x: Tensor, spatial: int, parameters: Parameters) -> State:
    """Every position's own state, by the definition."""
    inputs = (x, positions(x, spatial)) if pool.positional else (x,)
    parts = pool.lift(*inputs, *parameters)
    return tuple(
        torch.as_tensor(part, dtype=None if pool.positional else x.dtype, device=x.device).expand(x.shape)
        for part in parts
    )


def over_boxes(
    name: str,
    x: Tensor,
    axes: tuple[Axis, ...] | None,
    spatial: int,
    parameters: Parameters = (),
    derived: bool = False,
) -> State:
    """The state of each box: (N, C, *cells); of the whole map, (N, C, 1, …), where `axes` is None.

    `derived=True` uses lift and combine only, never the pool's own `fold`.
    """
    pool = spoken(name, spatial)
    if axes is None:
        if pool.fold and not derived:
            return tuple(pool.fold(x, *parameters))
        axes = tuple(Axis((0,), (size,)) for size in x.shape[-spatial:])
    state = lift(pool, x, spatial, parameters)

    def combine(s: State, t: State) -> State:
        return tuple(pool.combine(*s, *t, *parameters))

    # boxes are products of intervals: rows first, then columns, each position combined once per interval and axis
    for dim, axis in enumerate(axes, x.dim() - spatial):
        state = _along(state, dim, axis, combine, pool.empty)
    return state


def _along(
    state: State, dim: int, axis: Axis, combine: Callable[[State, State], State], empty: tuple[float, ...]
) -> State:
    """Tap by tap: the first position of every interval, then the second, …; past an interval's end stands `empty`."""
    device = state[0].device
    starts, stops = torch.tensor(axis.starts, device=device), torch.tensor(axis.stops, device=device)
    total = tuple(part.index_select(dim, starts) for part in state)
    for tap in range(1, max(stop - start for start, stop in zip(axis.starts, axis.stops, strict=True))):
        inside = starts + tap < stops
        where = torch.where(inside, starts + tap, starts)
        piece = tuple(part.index_select(dim, where) for part in state)
        if not bool(inside.all()):
            shape = [1] * piece[0].dim()
            shape[dim] = -1
            here = inside.view(shape)
            piece = tuple(torch.where(here, p, _nothing(p, value)) for p, value in zip(piece, empty, strict=True))
        total = combine(total, piece)
    return total


def _nothing(part: Tensor, value: float) -> Tensor:
    """An empty state's number in the state's own type: the least integer stands for −inf."""
    if not part.is_floating_point() and value == -math.inf:
        value = torch.iinfo(part.dtype).min
    return part.new_tensor(value)


def finish(name: str, state: State, spatial: int, parameters: Parameters = ()) -> Tensor:
    answer: Tensor = spoken(name, spatial).finish(*state, *parameters)
    return answer


def combine(name: str, s: State, t: State, spatial: int, parameters: Parameters = ()) -> State:
    return tuple(spoken(name, spatial).combine(*s, *t, *parameters))


def share(name: str, x: Tensor, spatial: int, parameters: Parameters = ()) -> Tensor:
    """d answer / d x at every position, for the whole map: the shape of x."""
    pool = spoken(name, spatial)
    state = over_boxes(name, x, None, spatial, parameters)
    inputs: tuple[Any, ...] = (x, positions(x, spatial)) if pool.positional else (x,)
    part = pool.share(*inputs, pool.finish(*state, *parameters), *state, *parameters)
    return torch.as_tensor(part, dtype=x.dtype, device=x.device).expand(x.shape)
