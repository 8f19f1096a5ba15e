"""Pools in torch's own operators, for graphs that are run elsewhere: no operator of gapstone's, no size written down.

Each answer's positions are gathered along one last axis, beside which of them exist; there a pool folds them at once.
It takes as many times the map's memory as positions are in more than one answer. The reference loop combines them one
by one instead, as often as the largest cell has positions: with sizes that are symbols nobody knows how often that is.
"""

from typing import Any

import torch
from torch import Tensor

from gapstone.loops import native, reference
from gapstone.loops.pool_call import PoolCall
from gapstone.loops.precision import answer_type, wide
from gapstone.loops.reference_states import divisor, fold, on_tensors
from gapstone.regions.places import Axis, Intervals, Labels, Place, PositionWeights, Rectangles, Windows
from gapstone.regions.region import seen


def forward(call: PoolCall, x: Tensor) -> Tensor:
    """The answers, as `reference.pooled` gives them."""
    place = call.place
    if isinstance(place, PositionWeights) or call.over_whole_map:
        return reference.pooled(call, x)
    x = wide(call.pool, x)
    out = native.forward(call, x) if _has_native(call, x) else _gathered(call, x)
    return out.to(answer_type(call.pool, call.dtype))


def _gathered(call: PoolCall, x: Tensor) -> Tensor:
    place = call.place
    values, inside = gather(x, place)
    own = tuple(_beside(p, place, x.dim() - 2, values.dim()) for p in call.parameters)
    pool = on_tensors(call.pool, 1)
    state = fold(pool, values, own, inside, 1)
    if isinstance(place, Intervals) and place.divisor != "positions":
        given = divisor(place, sizes(x)[2:], x)[..., None]
        state = tuple(given.expand_as(part) if i == pool.count else part for i, part in enumerate(state))
    # a score of each position has done its part
    if any(parameter.per_position for parameter in pool.parameters.values()):
        own = (0.0,) * len(own)
    out: Tensor = pool.finish(*state, *own).squeeze(-1)
    return out.squeeze(-1) if isinstance(place, Labels) and place.whole else out


def sizes(x: Tensor) -> tuple[int, ...]:
    """x.shape; while torch.jit traces, its numbers are tensors."""
    return tuple(int(n) if isinstance(n, Tensor) else n for n in x.shape)


def _has_native(call: PoolCall, x: Tensor) -> bool:
    """Whether torch's own pool takes the same windows, whatever the sizes are."""
    place = call.place
    if not isinstance(place, Intervals) or place.axes is None:
        return False
    if any(isinstance(n, torch.SymInt) for axis in place.axes for n in axis[3:5]):
        return False  # "same" padding, of which nothing may be asked
    if native.knows(call._replace(dtype=x.dtype)) is None:
        return False
    # for a window that hangs over, torch asks the size; it has grids of fixed sizes only
    return all(
        isinstance(axis, Windows) and _same(axis.cells, (n + 2 * axis.before - axis.size) // axis.stride + 1)
        for axis, n in zip(place.axes, sizes(x)[2:], strict=True)
    )


def _same(cells: Any, others: Any) -> bool:
    if isinstance(cells, torch.SymInt) or isinstance(others, torch.SymInt):
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(cells == others)
    return bool(cells == others)


def _beside(parameter: Tensor | float, place: Place, spatial: int, axes: int) -> Tensor | float:
    """A parameter beside gathered values."""
    if not isinstance(parameter, Tensor) or parameter.dim() == 0:
        return parameter
    if parameter.dim() == spatial + 2:  # of each position
        return gather(parameter, place)[0]
    if isinstance(place, Rectangles) and parameter.dim() == 2 and len(parameter) > 1:
        parameter = parameter[place.images]
    return parameter[(..., *(None,) * (axes - 2))]


def gather(x: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """(…, *cells, positions): per answer all its positions along one last axis, and which of them exist."""
    if isinstance(place, Rectangles):
        return _of_rectangles(x, place)
    if isinstance(place, Labels):
        labels = place.labels.flatten(1)[:, None, None]
        cells = torch.arange(place.count, device=x.device)[:, None]
        return x.flatten(2)[:, :, None].expand(-1, -1, place.count, -1), labels == cells
    assert isinstance(place, Intervals)
    if place.axes is None:
        flat = x.flatten(2)
        return flat, torch.ones_like(flat, dtype=torch.bool)
    spatial = x.dim() - 2
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, (rule, length) in enumerate(zip(place.axes, sizes(x)[2:], strict=True)):
        at, there = _taps(rule, length, x.device)
        # this axis becomes its cells; its taps go to the end
        dim = 2 + axis
        x = x.index_select(dim, at.flatten()).unflatten(dim, (rule.cells, -1)).movedim(dim + 1, -1)
        each, of_cell = [1] * spatial, [1] * spatial
        each[axis], of_cell[axis] = there.shape
        inside = inside & there.view(*each, *of_cell)
    return x.flatten(-spatial), inside.flatten(-spatial)


def _taps(rule: Axis, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Along one axis the positions of each cell (cells, taps), and which of them are on the map and in the cell."""
    cell = torch.arange(rule.cells, device=device)[:, None]
    if isinstance(rule, Windows):
        at = cell * rule.stride - rule.before + rule.step * torch.arange(rule.size, device=device)
        return at.clamp(0, length - 1), (at >= 0) & (at < length)
    g = rule.cells
    # the largest cell has one more at most, where g does not divide the length
    most = (length + g - 1) // g + 1 if _symbols() else rule.most
    start = torch.div(cell * length, g, rounding_mode="trunc")
    stop = torch.div((cell + 1) * length + (g - 1), g, rounding_mode="trunc")
    at = start + torch.arange(most, device=device)
    return at.clamp(max=length - 1), at < stop


def _symbols() -> bool:
    return torch.compiler.is_compiling()


def _of_rectangles(x: Tensor, place: Rectangles) -> tuple[Tensor, Tensor]:
    spatial = x.dim() - 2
    images = place.images.view(-1, 1, *(1,) * (2 * spatial))
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, *(1,) * (2 * spatial))
    index, inside = [], torch.ones((), dtype=torch.bool, device=x.device)
    lengths = sizes(x)[2:]
    for axis, (start, stop) in enumerate(zip(place.starts, place.stops, strict=True)):
        at = start[..., None] + torch.arange(_largest(start, stop, lengths[axis]), device=x.device)
        # (R, 1, *cells, *taps), all but this axis's own 1
        cells, taps = [1] * spatial, [1] * spatial
        cells[axis], taps[axis] = at.shape[1], at.shape[2]
        index.append(at.clamp(max=lengths[axis] - 1).view(-1, 1, *cells, *taps))
        inside = inside & (at < stop[..., None]).view(-1, 1, *cells, *taps)
    values = x[(images, channels, *index)]
    return values.flatten(-spatial), inside.flatten(-spatial)


def _largest(start: Tensor, stop: Tensor, length: int) -> int:
    """Positions of the largest cell; where nobody can look, as many as there are."""
    if not len(start):
        return 1
    extent = stop - start
    return length if seen(extent.amax() >= 0) is None else max(1, int(extent.amax()))
