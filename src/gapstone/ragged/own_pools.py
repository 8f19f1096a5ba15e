"""gapstone's own pools over maps of which each image fills a part."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gapstone.pooling import listening, pool
from gapstone.pools.name_types import Name
from gapstone.ragged.extents import Extents, PaddedMaps, Size, Unsupported
from gapstone.regions import Grid, Pyramid, Region, Whole, Window
from gapstone.regions.places import Windows


def pooled(maps: PaddedMaps, x: Tensor, name: Name, over: Region, parameters: dict[str, Any]) -> Tensor:
    """As `pool(x, name, over, **parameters)` of each image alone."""
    extents = maps.known(x)
    if (
        not isinstance(over, Whole | Grid | Pyramid | Window)
        or extents.axes != tuple(range(2, x.dim()))
        or extents.flat
    ):
        raise Unsupported(f"pool({name!r}, over={type(over).__name__}) of a map of shape {tuple(x.shape)}")
    if any(isinstance(v, Tensor) and (v.dim() > 2 or (v.dim() == 2 and len(v) > 1)) for v in parameters.values()):
        raise Unsupported(f"pool({name!r}) with a parameter for each image or position")
    token = listening.set(None)
    try:
        if isinstance(over, Window):
            return _windows(maps, x, extents, name, over, parameters)
        if isinstance(over, Whole) and name == "mean" and x.dtype.itemsize >= 4:
            return mean(maps, x, extents.axes, keepdim=False)
        return torch.cat(
            [pool(extents.crop(x, images, size), name, over, **parameters) for images, size in extents.runs()]
        )
    finally:
        listening.reset(token)


def mean(maps: PaddedMaps, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Over all positions of each image, from one look at the batch."""
    maps.clear(x)
    total = x.sum(axes, keepdim=keepdim)
    return total.div_(maps.masks.counts(x, maps.known(x)).view(-1, *(1,) * (total.dim() - 1)))


def _windows(
    maps: PaddedMaps, x: Tensor, extents: Extents, name: Name, over: Window, parameters: dict[str, Any]
) -> Tensor:
    places = {size: _axes(over, size) for size in dict.fromkeys(extents.sizes)}
    after = extents.moved(lambda size: tuple(axis.cells for axis in places[size]))
    if all(_inside(axis, n) for size, place in places.items() for axis, n in zip(place, size, strict=True)):
        return maps.put(pool(x, name, over, **parameters), after)
    whole = _axes(over, tuple(x.shape[2:]))
    # "same" padding puts another number of places before a map of another size
    alike = all(a.before == b.before for place in places.values() for a, b in zip(place, whole, strict=True))
    if name == "max" and alike and x.is_floating_point():
        return largest(maps, x, after, lambda filled: pool(filled, name, over))
    parts = [pool(extents.crop(x, images, size), name, over, **parameters) for images, size in extents.runs()]
    return maps.put(*extents.joined(parts, extents.axes))


@lru_cache(4096)
def _axes(over: Window, size: Size) -> tuple[Windows, ...]:
    return tuple(axis for axis in over.place((1, 1, *size)).axes or () if isinstance(axis, Windows))


def _inside(axis: Windows, length: int) -> bool:
    last = (axis.cells - 1) * axis.stride - axis.before + (axis.size - 1) * axis.step + 1
    return axis.before == 0 and last <= length


def largest(maps: PaddedMaps, x: Tensor, after: Extents, run: Callable[[Tensor], Tensor]) -> Tensor:
    """The maximum over windows, of which the padding is no part."""
    extents = maps.known(x)
    if extents.fills(x):
        return maps.put(run(x), after)
    out = run(torch.minimum(x, maps.masks.below(x, extents)))
    # windows that saw nothing say −∞: 0 again, for −∞ · 0 is no number
    return maps.put(torch.maximum(out, maps.masks.above(out, after), out=out), after)
