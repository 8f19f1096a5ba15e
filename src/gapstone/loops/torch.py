"""The torch loop: any pool over any region from its definition, in plain tensor operations. The reference."""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from gapstone.loops.words_torch import NOWHERE, TensorWords
from gapstone.pools import POOLS, Definition
from gapstone.regions.places import Axis, Boxes, Labels, Place, Rectangles, Weights, Windows

State = tuple[Tensor, ...]
Parameters = tuple[Tensor | float, ...]


def spoken(name: str, spatial: int) -> Definition:
    return _spoken(POOLS[name], spatial)


@lru_cache
def _spoken(pool: Definition, spatial: int) -> Definition:
    return pool.spoken(TensorWords(spatial))


def forward(name: str, x: Tensor, place: Place, parameters: Parameters = ()) -> Tensor:
    """The answer over a place: (N, C) of a whole map, (N, C, *cells), (N, C, labels), (R, C, *cells)."""
    return answer(name, over(name, x, place, parameters), x, place, parameters)


def answer(name: str, state: State, x: Tensor, place: Place, parameters: Parameters = ()) -> Tensor:
    spatial = x.dim() - 2
    pool = spoken(name, spatial)
    if isinstance(place, Boxes) and place.divisor != "positions" and place.axes is not None:
        assert pool.count is not None
        given = divisor(place, tuple(x.shape[2:]), x)
        state = tuple(given.expand_as(part) if i == pool.count else part for i, part in enumerate(state))
    own = shaped(parameters, spatial)
    if isinstance(place, Labels) and not place.whole:
        own = _flat(own, spatial)
    elif isinstance(place, Rectangles):
        own = tuple(_of_images(p, place.images, spatial) for p in own)
    out: Tensor = pool.finish(*state, *own)
    return out.flatten(1) if is_whole(place) else out


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


def is_whole(place: Place) -> bool:
    """Whether the answer has no axes but (N, C)."""
    return (
        (isinstance(place, Boxes) and place.axes is None)
        or isinstance(place, Weights)
        or (isinstance(place, Labels) and place.whole)
    )


def divisor(place: Boxes, sizes: tuple[int, ...], like: Tensor) -> Tensor:
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


def over(name: str, x: Tensor, place: Place, parameters: Parameters = (), derived: bool = False) -> State:
    """The state of each answer, its parts of shape (N, C, *cells), a whole map's (N, C, 1, …).

    `derived=True` uses lift and combine only, never terms or fold.
    """
    spatial = x.dim() - 2
    pool, parameters = spoken(name, spatial), shaped(parameters, spatial)
    if isinstance(place, Boxes):
        if place.axes is None and not derived and (pool.terms or pool.fold or pool.weighted):
            return fold(pool, x, parameters)
        return over_axes(pool, x, place.axes, parameters)
    if isinstance(place, Rectangles):
        return over_rectangles(pool, x, place, parameters)
    if isinstance(place, Labels):
        return over_labels(pool, x, place, parameters)
    if isinstance(place, Weights):
        return fold(pool, x, parameters, place.weights[:, None].to(x.dtype))
    raise TypeError(f"{type(place).__name__} is resampled before it is pooled")


def fold(
    pool: Definition, x: Tensor, parameters: Parameters, weights: Tensor | None = None, axes: int | None = None
) -> State:
    """The state of the whole map at once: sums of terms against their reference, or the pool's own words. `axes`: how
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
    inputs = (x, positions(x).expand(x.shape) if numbers is None else numbers) if pool.positional else (x,)
    shape = x.shape
    return tuple(_whole_part(part, x, shape) for part in pool.lift(*inputs, *parameters))


def _whole_part(part: Any, x: Tensor, shape: torch.Size) -> Tensor:
    if not isinstance(part, Tensor):
        return x.new_full((), part).expand(shape)
    return part.expand(shape) if part.dim() <= len(shape) else part.expand(part.shape[0], *shape)


def positions(x: Tensor) -> Tensor:
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


def _taps(place: Rectangles, shape: torch.Size) -> Any:
    """For every tap of the largest cell: the index of the positions in (R, C, *cells), and which of them exist."""
    axes = len(place.starts)
    images = place.images.view(-1, 1, *(1,) * axes)
    channels = torch.arange(shape[1], device=images.device).view(1, -1, *(1,) * axes)

    def spread(t: Tensor, axis: int) -> Tensor:
        return t.view(len(t), 1, *(t.shape[1] if a == axis else 1 for a in range(axes)))

    starts = [spread(t, a) for a, t in enumerate(place.starts)]
    stops = [spread(t, a) for a, t in enumerate(place.stops)]
    most = [max(1, int((e - s).max())) if len(images) else 1 for s, e in zip(starts, stops, strict=True)]
    for tap in product(*map(range, most)):
        where = [start + t for start, t in zip(starts, tap, strict=True)]
        inside = torch.ones((), dtype=torch.bool, device=images.device)
        for w, stop in zip(where, stops, strict=True):
            inside = inside & (w < stop)
        at = [w.clamp(max=size - 1) for w, size in zip(where, shape[2:], strict=True)]
        yield (images, channels, *at), inside


def over_rectangles(pool: Definition, x: Tensor, place: Rectangles, parameters: Parameters) -> State:
    numbers = positions(x).expand_as(x)
    taps = list(_taps(place, x.shape))

    def piece(tap: tuple[Any, Tensor]) -> State:
        index, inside = tap
        parts = lift(pool, x[index], tuple(_at(p, index, x) for p in parameters), numbers[index])
        return tuple(torch.where(inside, p, empty_like(p, v)) for p, v in zip(parts, pool.empty, strict=True))

    # what is given per image and channel is the same at every tap
    return pairwise(map(piece, taps), _combine(pool, tuple(_at(p, taps[0][0], x) for p in parameters)))


def _at(parameter: Tensor | float, index: Any, x: Tensor) -> Tensor | float:
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


# ---- the backward pass: every position asks the answers it is part of


def backward(
    name: str, grad: Tensor, x: Tensor, place: Place, parameters: Parameters, want_slope: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Through `share` (and `slope`): the gradient of x and, position by position, of the one learned parameter."""
    spatial = x.dim() - 2
    pool = spoken(name, spatial)
    state = over(name, x, place, parameters)
    out = answer(name, state, x, place, parameters)
    if isinstance(place, Boxes) and place.divisor != "positions" and place.axes is not None:
        given = divisor(place, tuple(x.shape[2:]), x)
        state = tuple(given.expand_as(part) if i == pool.count else part for i, part in enumerate(state))
    own = shaped(parameters, spatial)
    if is_whole(place):
        ones = (1,) * spatial
        grad, out = grad.reshape(*grad.shape, *ones), out.reshape(*out.shape, *ones)
    asked = [(pool.share, torch.zeros_like(x))]
    if want_slope:
        assert pool.slope is not None
        asked.append((pool.slope, torch.zeros_like(x)))
    number = (positions(x).expand(x.shape),) if pool.positional else ()

    if isinstance(place, Rectangles):
        for index, inside in _taps(place, x.shape):
            at = (x[index], *(n[index] for n in number))
            for function, into in asked:
                part = _part(function, at, out, state, tuple(_at(p, index, x) for p in own), grad)
                into.index_put_(index, torch.where(inside, part, 0.0).to(into.dtype), accumulate=True)
        return _both(asked)

    if isinstance(place, Labels):
        labels = place.labels.expand(len(x), *place.labels.shape[1:])[:, None]
        inside, flat = labels >= 0, labels.clamp(min=0).flatten(2)

        def gather(part: Tensor) -> Tensor:
            part = part.flatten(-spatial) if place.whole else part
            mine = part.gather(-1, flat.expand(*part.shape[:-1], flat.shape[-1]))
            return mine.reshape(*mine.shape[:-1], *x.shape[2:])

        there = gather(grad), gather(out), tuple(map(gather, state))
        for i, (function, into) in enumerate(asked):
            part = _part(function, (x, *number), there[1], there[2], own, there[0])
            asked[i] = function, torch.where(inside, part, 0.0).expand_as(into)
        return _both(asked)

    if isinstance(place, Weights):
        weights = place.weights[:, None].to(x.dtype)
        for i, (function, into) in enumerate(asked):
            part = _part(function, (x, *number), out, state, own, grad)
            asked[i] = function, torch.where(weights > 0, weights * part, 0.0).expand_as(into)
        return _both(asked)

    assert isinstance(place, Boxes)
    axes = place.axes or tuple(Windows(1, size, 1, 0, 0, 1) for size in x.shape[2:])
    for cells, inside in _covers(axes, tuple(x.shape[2:]), x.device):

        def here(part: Tensor, cells: Any = cells) -> Tensor:
            for dim, cell in enumerate(cells, -spatial):
                part = part.index_select(dim, cell)
            return part

        for i, (function, into) in enumerate(asked):
            part = _part(function, (x, *number), here(out), tuple(map(here, state)), own, here(grad))
            asked[i] = function, into + torch.where(inside, part, 0.0)
    return _both(asked)


def _part(function: Any, at: Any, out: Tensor, state: State, parameters: Parameters, grad: Tensor) -> Tensor:
    part: Tensor = grad * function(*at, out, *state, *parameters)
    return part


def _both(asked: list[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor | None]:
    return asked[0][1], asked[1][1] if len(asked) > 1 else None


def _covers(axes: tuple[Axis, ...], sizes: tuple[int, ...], device: torch.device) -> Any:
    """The cells that each position is in, first ones first: per axis the cell of each, and whether there is one."""
    options = []
    for axis, length in zip(axes, sizes, strict=True):
        begin, end = axis.spans(length)
        starts, stops = torch.tensor(begin, device=device), torch.tensor(end, device=device)
        at = torch.arange(length, device=device)
        first = torch.searchsorted(stops, at, right=True)
        last = torch.searchsorted(starts, at, right=True) - 1
        mine = []
        for j in range(max(1, int((last - first).max()) + 1)):
            cell = (first + j).clamp(max=axis.cells - 1)
            inside = (first + j <= last) & ((at - starts[cell]) % axis.step == 0)
            mine.append((cell, inside))
        options.append(mine)
    for choice in product(*options):
        inside = torch.ones((), dtype=torch.bool, device=device)
        for _, there in choice:
            inside = inside[..., None] & there
        yield tuple(cell for cell, _ in choice), inside


def combine(name: str, s: State, t: State, spatial: int, parameters: Parameters = ()) -> State:
    return tuple(spoken(name, spatial).combine(*s, *t, *shaped(parameters, spatial)))


def share(name: str, x: Tensor, parameters: Parameters = ()) -> Tensor:
    """d answer / d x at every position, for the whole map: the shape of x."""
    spatial = x.dim() - 2
    pool, own = spoken(name, spatial), shaped(parameters, spatial)
    state = over(name, x, Boxes(None), parameters)
    inputs: tuple[Any, ...] = (x, positions(x)) if pool.positional else (x,)
    part = pool.share(*inputs, pool.finish(*state, *own), *state, *own)
    return torch.as_tensor(part, dtype=x.dtype, device=x.device).expand(x.shape)


def shaped(parameters: Parameters, spatial: int) -> Parameters:
    """(C,) → (C, 1, 1): parameters broadcast over positions; a map (N, 1, *spatial) stays."""
    return tuple(
        p[(...,) + (None,) * spatial] if isinstance(p, Tensor) and 1 <= p.dim() <= 2 else p for p in parameters
    )
