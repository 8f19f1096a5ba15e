"""The reference loop: any pool over any place from its definition, in plain tensor operations; on any device."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from gapstone.loops.pool_call import Gradients, Parameters, PoolCall
from gapstone.loops.precision import answer_type, wide
from gapstone.loops.reference_states import (
    State,
    at_index,
    divided,
    finished,
    on_tensors,
    positions_of,
    shaped,
    states,
    taps,
)
from gapstone.pools import Definition
from gapstone.regions.places import Axis, Intervals, Labels, PositionWeights, Rectangles, Windows


def pooled(call: PoolCall, x: Tensor) -> Tensor:
    """The answers, differentiable by torch: (N, C) of a whole map, (N, C, *cells), (N, C, labels), (R, C, *cells)."""
    x = wide(call.pool, x)
    return finished(call, states(call, x), x).to(answer_type(call.pool, call.dtype))


def needs(call: PoolCall, slope: bool) -> tuple[bool, bool]:
    """The backward reads x, and computes the states again."""
    return True, False


def saved_types(call: PoolCall) -> list[torch.dtype]:
    """Nothing is saved besides x."""
    return []


def forward(call: PoolCall, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The answers over a place."""
    return pooled(call, x), []


def backward(
    call: PoolCall, grad: Tensor, x: Tensor | None, out: Tensor | None = None, saved: Sequence[Tensor] = (),
    slope: bool = False,
) -> Gradients:  # fmt: skip
    """The gradient of x in its own type; that of a parameter summed over all positions that share it."""
    assert x is not None
    x = wide(call.pool, x)
    dx, slopes = gradients(call, grad.to(x.dtype), x, slope)
    return dx.to(call.dtype), None if slopes is None else summed(call.pool, slopes)


def summed(pool: Definition, slopes: Tensor) -> Tensor:
    """Over all that share one parameter: (N, C), or the map (N, 1, *spatial) of a parameter of each position."""
    per_position = next(iter(pool.parameters.values())).per_position
    return slopes.sum(1, keepdim=True) if per_position else slopes.flatten(2).sum(2)


# ---- the gradient: every position asks the answers it is part of

Part = Callable[..., Tensor]
"""share or slope."""


class AnswerParts(NamedTuple):
    """What the positions of an answer look at: its gradient, the answer, its state."""

    grad: Tensor
    out: Tensor
    state: State

    def map(self, function: Callable[[Tensor], Tensor]) -> "AnswerParts":
        return AnswerParts(function(self.grad), function(self.out), tuple(map(function, self.state)))

    def times(self, function: Part, at: tuple[Tensor, ...], parameters: Parameters) -> Tensor:
        """The gradient times share (or slope) at positions: x, and their numbers for a positional pool."""
        return self.grad * function(*at, self.out, *self.state, *parameters)


def gradients(call: PoolCall, grad: Tensor, x: Tensor, slope: bool = False) -> tuple[Tensor, Tensor | None]:
    """Through `share` (and `slope`): the gradient of x and, position by position, of the one learned parameter."""
    spatial, place = x.dim() - 2, call.place
    pool = on_tensors(call.pool, spatial)
    state = states(call, x)
    out = finished(call, state, x)
    if call.without_cells:
        ones = (1,) * spatial
        grad, out = grad.reshape(*grad.shape, *ones), out.reshape(*out.shape, *ones)
    answers = AnswerParts(grad, out, divided(call, state, x))
    functions: list[Part] = [pool.share]
    if slope:
        assert pool.slope is not None
        functions.append(pool.slope)
    at = (x, positions_of(x).expand(x.shape)) if pool.positional else (x,)
    own = shaped(call.parameters, spatial)
    if isinstance(place, Rectangles):
        parts = _of_rectangles(place, functions, answers, at, own)
    elif isinstance(place, Labels):
        parts = _of_labels(place, functions, answers, at, own)
    elif isinstance(place, PositionWeights):
        weights = place.weights[:, None].to(x.dtype)
        parts = [torch.where(weights > 0, weights * answers.times(f, at, own), 0.0).expand_as(x) for f in functions]
    else:
        assert isinstance(place, Intervals)
        parts = _of_boxes(place, functions, answers, at, own)
    return parts[0], parts[1] if slope else None


def _of_rectangles(
    place: Rectangles, functions: list[Part], answers: AnswerParts, at: tuple[Tensor, ...], parameters: Parameters
) -> list[Tensor]:
    x = at[0]
    parts = [torch.zeros_like(x) for _ in functions]
    for index, inside in taps(place, x.shape):
        here = tuple(each[index] for each in at)
        own = tuple(at_index(p, index, x) for p in parameters)
        for function, into in zip(functions, parts, strict=True):
            part = answers.times(function, here, own)
            into.index_put_(index, torch.where(inside, part, 0.0).to(into.dtype), accumulate=True)
    return parts


def _of_labels(
    place: Labels, functions: list[Part], answers: AnswerParts, at: tuple[Tensor, ...], parameters: Parameters
) -> list[Tensor]:
    x = at[0]
    spatial = x.dim() - 2
    labels = place.labels.expand(len(x), *place.labels.shape[1:])[:, None]
    inside, flat = labels >= 0, labels.clamp(min=0).flatten(2)

    def gather(part: Tensor) -> Tensor:
        part = part.flatten(-spatial) if place.whole else part
        mine = part.gather(-1, flat.expand(*part.shape[:-1], flat.shape[-1]))
        return mine.reshape(*mine.shape[:-1], *x.shape[2:])

    here = answers.map(gather)
    return [torch.where(inside, here.times(function, at, parameters), 0.0).expand_as(x) for function in functions]


def _of_boxes(
    place: Intervals, functions: list[Part], answers: AnswerParts, at: tuple[Tensor, ...], parameters: Parameters
) -> list[Tensor]:
    x = at[0]
    sizes = tuple(x.shape[2:])
    parts = [torch.zeros_like(x) for _ in functions]
    axes = place.axes or tuple(Windows(1, size, 1, 0, 0, 1) for size in sizes)
    for cells, inside in _covers(axes, sizes, x.device):

        def select(part: Tensor, cells: tuple[Tensor, ...] = cells) -> Tensor:
            for dim, cell in enumerate(cells, -len(sizes)):
                part = part.index_select(dim, cell)
            return part

        here = answers.map(select)
        for i, function in enumerate(functions):
            parts[i] = parts[i] + torch.where(inside, here.times(function, at, parameters), 0.0)
    return parts


def _covers(
    axes: tuple[Axis, ...], sizes: tuple[int, ...], device: torch.device
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
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


def combine(pool: Definition, s: State, t: State, spatial: int, parameters: Parameters = ()) -> State:
    """Two states become one."""
    return tuple(on_tensors(pool, spatial).combine(*s, *t, *shaped(parameters, spatial)))


def share(pool: Definition, x: Tensor, parameters: Parameters = ()) -> Tensor:
    """d answer / d x at every position, for the whole map: the shape of x."""
    spatial, x = x.dim() - 2, wide(pool, x)
    bound, own = on_tensors(pool, spatial), shaped(parameters, spatial)
    state = states(PoolCall.for_reference(pool, x, Intervals(None), parameters), x)
    at = (x, positions_of(x)) if pool.positional else (x,)
    part = bound.share(*at, bound.finish(*state, *own), *state, *own)
    return torch.as_tensor(part, dtype=x.dtype, device=x.device).expand(x.shape)
