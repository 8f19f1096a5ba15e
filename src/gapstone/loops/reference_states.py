"""The states of a pool over any place, from its definition, in plain tensor operations."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from gapstone.loops.pool_call import Parameters, PoolCall
from gapstone.loops.tensor_math import NOWHERE, TensorMath
from gapstone.pools import Definition
from gapstone.regions.places import Axis, Intervals, Labels, PositionWeights, Rectangles, Windows, spread

State = tuple[Tensor, ...]
Index = tuple[Tensor, ...]
"""An index of a map: images, channels, positions along each axis."""


@lru_cache
def on_tensors(pool: Definition, spatial: int) -> Definition:
    """The pool with its functions bound to the maths of tensors with so many spatial axes."""
    return pool.bind(TensorMath(spatial))


def finished(call: PoolCall, state: State, x: Tensor) -> Tensor:
    """The answers that states become; x is the map, in the type of the states."""
    spatial, place = x.dim() - 2, call.place
    pool = on_tensors(call.pool, spatial)
    own = shaped(call.parameters, spatial)
    if isinstance(place, Labels) and not place.whole:
        own = _flat(own, spatial)
    elif isinstance(place, Rectangles):
        own = tuple(_of_images(p, place.images, spatial) for p in own)
    out: Tensor = pool.finish(*divided(call, state, x), *own)
    return out.flatten(1) if call.without_cells else out


def divided(call: PoolCall, state: State, x: Tensor) -> State:
    """The states with the count that a mean divides by, where that is not how many positions there are."""
    place, count = call.place, call.pool.count
    if not isinstance(place, Intervals) or place.divisor == "positions" or place.axes is None:
        return state
    assert count is not None
    given = divisor(place, tuple(x.shape[2:]), x)
    return (*state[:count], given.expand_as(state[count]), *state[count + 1 :])


def _flat(parameters: Parameters, spatial: int) -> Parameters:
    """(C, 1, 1) → (C, 1): for positions, or labels, along one axis. A map of its own has done its part by then."""
    return tuple(
        p.flatten(p.dim() - spatial)[..., :1] if isinstance(p, Tensor) and p.dim() > spatial else p for p in parameters
    )


def _of_images(parameter: Tensor | float, images: Tensor, spatial: int) -> Tensor | float:
    """(N, C, 1, 1) → (R, C, 1, 1): of the image that a box is in."""
    if isinstance(parameter, Tensor) and parameter.dim() == spatial + 2 and len(parameter) > 1:
        parameter = parameter[images]
        # a map of its own has done its part by then
        return parameter if parameter.shape[2:].numel() == 1 else 0.0
    return parameter


def divisor(place: Intervals, sizes: tuple[int, ...], like: Tensor) -> Tensor:
    """What a mean divides by in each cell, where that is not how many positions it has."""
    assert place.axes is not None
    windows = [axis for axis in place.axes if isinstance(axis, Windows)]
    if place.divisor == "padded":
        total = like.new_ones(())
        for axis, length in zip(windows, sizes, strict=True):
            # as axis.padded, of sizes that may be symbols
            ends = length + axis.after + axis.before - axis.stride * torch.arange(axis.cells, device=like.device)
            places = torch.div(ends + axis.step - 1, axis.step, rounding_mode="floor").clamp(max=axis.size)
            total = total[..., None] * places.to(like.dtype)
        return total
    return like.new_tensor(math.prod(axis.size for axis in windows) if place.divisor == "window" else place.divisor)


def states(call: PoolCall, x: Tensor) -> State:
    """The state of each answer, its parts of shape (N, C, *cells), a whole map's (N, C, 1, …)."""
    spatial, place, parameters = x.dim() - 2, call.place, shaped(call.parameters, x.dim() - 2)
    pool = on_tensors(call.pool, spatial)
    if isinstance(place, Intervals):
        if place.axes is None and (pool.terms or pool.fold or pool.weighted):
            return fold(pool, x, parameters)
        return over_axes(pool, x, place.axes, parameters)
    if isinstance(place, Rectangles):
        return over_rectangles(pool, x, place, parameters)
    if isinstance(place, Labels):
        return over_labels(pool, x, place, parameters)
    if isinstance(place, PositionWeights):
        return fold(pool, x, parameters, place.weights[:, None].to(x.dtype))
    raise TypeError(f"{type(place).__name__} is resampled before it is pooled")


def fold(
    pool: Definition, x: Tensor, parameters: Parameters, weights: Tensor | None = None, axes: int | None = None
) -> State:
    """The state of the whole map at once: sums of terms against their reference, or the pool's own fold. `axes`: how
    many axes at the end are positions; by default all but (N, C). `weights` of bool: which positions there are.
    """
    where = tuple(range(-(x.dim() - 2 if axes is None else axes), 0))
    there = None if weights is None else weights if weights.dtype == torch.bool else weights > 0
    if pool.fold:
        if there is None:
            return tuple(pool.fold(x, *parameters))
        v, i = pool.fold(torch.where(there, x, empty_like(x, pool.empty[0])), *parameters)
        if v.dim() > x.dim():  # a list may be longer than what there is
            many = torch.arange(len(v), device=x.device).view(-1, *(1,) * x.dim())
            i = torch.where(many < there.sum(where, keepdim=True), i, NOWHERE)
        return v, i

    def total(part: Tensor | float) -> Tensor:
        full = part if isinstance(part, Tensor) else x.new_full((1,) * x.dim(), part)
        if weights is not None and there is not None:
            # a position of weight 0 is not looked at, whatever stands there
            full = torch.where(there, full if there is weights else weights * full, full.new_zeros(()))
        return full.expand_as(x).sum(where, keepdim=True)

    if pool.terms is None:
        return tuple(total(part) for part in pool.lift(x, *parameters))
    key = pool.key(x, *parameters) if pool.key else x
    if pool.reference == "mean":
        size = total(1.0)
        reference = total(key) / size
        # once more: of equal numbers the mean is that number, to the last digit
        reference = reference + total(key - reference) / size
        reference = torch.where(size > 0, reference, pool.empty[0]).detach()
    else:
        if there is not None:
            key = torch.where(there, key, pool.empty[0])
        reference = key.amax(where, keepdim=True).expand(*x.shape[: -len(where)], *(1,) * len(where)).detach()
    # the answer does not depend on the reference: no gradient goes through it
    return reference, *(total(part) for part in pool.terms(x, reference, *parameters))


def lift(pool: Definition, x: Tensor, parameters: Parameters, numbers: Tensor | None = None) -> State:
    """Every position's own state, by the definition."""
    inputs = (x, positions_of(x).expand(x.shape) if numbers is None else numbers) if pool.positional else (x,)
    shape = x.shape
    return tuple(_whole_part(part, x, shape) for part in pool.lift(*inputs, *parameters))


def _whole_part(part: Tensor | float, x: Tensor, shape: torch.Size) -> Tensor:
    if not isinstance(part, Tensor):
        return x.new_full((), part).expand(shape)
    return part.expand(shape) if part.dim() <= len(shape) else part.expand(part.shape[0], *shape)


def positions_of(x: Tensor) -> Tensor:
    """The number of each position, counted as in memory order of a contiguous map."""
    sizes = x.shape[2:]
    return torch.arange(sizes.numel(), device=x.device).reshape(sizes)


def empty_like(part: Tensor, value: float) -> Tensor:
    """An empty state's number in the state's own type: the least integer stands for −inf, the largest for inf."""
    if not part.is_floating_point() and abs(value) == math.inf:
        value = torch.iinfo(part.dtype).min if value < 0 else torch.iinfo(part.dtype).max
    return part.new_tensor(value)


def _combine(pool: Definition, parameters: Parameters) -> Callable[[State, State], State]:
    return lambda s, t: tuple(pool.combine(*s, *t, *parameters))


# ---- boxes that are products of intervals: rows first, then columns, each position combined once per interval and axis


def over_axes(pool: Definition, x: Tensor, axes: tuple[Axis, ...] | None, parameters: Parameters) -> State:
    spatial = x.dim() - 2
    if axes is None:
        axes = tuple(Windows(1, size, 1, 0, 0, 1) for size in x.shape[2:])
    state = lift(pool, x, parameters)
    for dim, axis in enumerate(axes, -spatial):
        state = _along(state, dim, axis, _combine(pool, parameters), pool.empty)
    return state


def _along(
    state: State, dim: int, axis: Axis, combine: Callable[[State, State], State], empty: tuple[float, ...]
) -> State:
    """Tap by tap: the first position of every interval, then the second, …; past an interval's end stands `empty`."""
    length, device = state[0].shape[dim], state[0].device
    begin, end = axis.bounds(length)
    starts, stops = torch.tensor(begin, device=device), torch.tensor(end, device=device)
    shape = [1] * -dim
    shape[0] = -1

    def piece(tap: int) -> State:
        where = starts + tap * axis.step
        inside = where < stops
        parts = tuple(part.index_select(dim, where.clamp(max=length - 1)) for part in state)
        if bool(inside.all()):
            return parts
        here = inside.view(shape)
        return tuple(torch.where(here, p, empty_like(p, value)) for p, value in zip(parts, empty, strict=True))

    taps = max(1, max(-(-(b - a) // axis.step) for a, b in zip(begin, end, strict=True)))
    return pairwise(map(piece, range(taps)), combine)


def pairwise(pieces: Iterable[State], combine: Callable[[State, State], State]) -> State:
    """Two by two, then two pairs, …: adding a million numbers one after another would lose three digits."""
    waiting: list[tuple[int, State]] = []
    for piece in pieces:
        size = 1
        while waiting and waiting[-1][0] == size:
            piece, size = combine(waiting.pop()[1], piece), 2 * size
        waiting.append((size, piece))
    total = waiting.pop()[1]
    while waiting:
        total = combine(waiting.pop()[1], total)
    return total


# ---- rectangles: the same taps for every box, each box at its own place


def taps(place: Rectangles, shape: torch.Size) -> Iterator[tuple[Index, Tensor]]:
    """For every tap of the largest cell: the index of the positions in (R, C, *cells), and which of them exist."""
    axes = len(place.starts)
    images = place.images.view(-1, 1, *(1,) * axes)
    channels = torch.arange(shape[1], device=images.device).view(1, -1, *(1,) * axes)

    starts = [spread(t, a, axes) for a, t in enumerate(place.starts)]
    stops = [spread(t, a, axes) for a, t in enumerate(place.stops)]
    most = [max(1, int((e - s).max())) if len(images) else 1 for s, e in zip(starts, stops, strict=True)]
    for tap in product(*map(range, most)):
        where = [start + t for start, t in zip(starts, tap, strict=True)]
        inside = torch.ones((), dtype=torch.bool, device=images.device)
        for w, stop in zip(where, stops, strict=True):
            inside = inside & (w < stop)
        at = [w.clamp(max=size - 1) for w, size in zip(where, shape[2:], strict=True)]
        yield (images, channels, *at), inside


def over_rectangles(pool: Definition, x: Tensor, place: Rectangles, parameters: Parameters) -> State:
    numbers = positions_of(x).expand_as(x)
    every = list(taps(place, x.shape))

    def piece(tap: tuple[Index, Tensor]) -> State:
        index, inside = tap
        parts = lift(pool, x[index], tuple(at_index(p, index, x) for p in parameters), numbers[index])
        return tuple(torch.where(inside, p, empty_like(p, v)) for p, v in zip(parts, pool.empty, strict=True))

    # what is given per image and channel is the same at every tap
    return pairwise(map(piece, every), _combine(pool, tuple(at_index(p, every[0][0], x) for p in parameters)))


def at_index(parameter: Tensor | float, index: Index, x: Tensor) -> Tensor | float:
    """A parameter of each image and channel, or of each position, at the places of an index."""
    if not isinstance(parameter, Tensor) or parameter.dim() == 0:
        return parameter
    return parameter.expand(x.shape)[index]


# ---- labels: positions sorted by label, neighbours of one label combined in steps of 1, 2, 4, …


def over_labels(pool: Definition, x: Tensor, place: Labels, parameters: Parameters) -> State:
    images, channels = x.shape[:2]
    labels = place.labels.flatten(1)
    many = labels.shape[1]
    parts = lift(pool, x, parameters)
    state = tuple(part.flatten(part.dim() - x.dim() + 2) for part in parts)
    order = labels.argsort(dim=1, stable=True)
    ordered = labels.gather(1, order).expand(images, many)
    places = order.expand(images, many)[:, None].expand(images, channels, many)
    state = tuple(p.gather(-1, places.expand(p.shape)) for p in state)
    combine = _combine(pool, _flat(parameters, x.dim() - 2))
    step = 1
    while step < many:
        # after this, position i holds everything from i to i + 2 step - 1 that has its label
        same = torch.zeros_like(ordered, dtype=torch.bool)
        same[:, :-step] = ordered[:, :-step] == ordered[:, step:]
        ahead = tuple(p.roll(-step, -1) for p in state)
        ahead = tuple(torch.where(same[:, None], p, empty_like(p, v)) for p, v in zip(ahead, pool.empty, strict=True))
        state = combine(state, ahead)
        step *= 2
    wanted = torch.arange(place.count, device=x.device).expand(images, place.count).contiguous()
    first = torch.searchsorted(ordered.contiguous(), wanted)
    there = (first < many) & (ordered.gather(1, first.clamp(max=many - 1)) == wanted)
    first = first.clamp(max=many - 1)[:, None].expand(images, channels, place.count)
    state = tuple(p.gather(-1, first.expand(*p.shape[:-1], place.count)) for p in state)
    state = tuple(torch.where(there[:, None], p, empty_like(p, v)) for p, v in zip(state, pool.empty, strict=True))
    if place.whole:
        ones = (1,) * (x.dim() - 3)
        return tuple(p.reshape(*p.shape, *ones) for p in state)
    return state


def shaped(parameters: Parameters, spatial: int) -> Parameters:
    """(C,) → (C, 1, 1): parameters broadcast over positions; a map (N, 1, *spatial) stays."""
    return tuple(
        p[(...,) + (None,) * spatial] if isinstance(p, Tensor) and 1 <= p.dim() <= 2 else p for p in parameters
    )
