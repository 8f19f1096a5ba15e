"""gapstone's own pools over maps of which each image fills a part."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gapstone.pooling import listening, pool
from gapstone.pools.names import Name
from gapstone.ragged.extents import Refused, Size, Valid
from gapstone.regions import Grid, Pyramid, Region, Whole, Window
from gapstone.regions.places import Windows

if TYPE_CHECKING:
    from gapstone.ragged.padded_batch import Masked


def pooled(mode: "Masked", x: Tensor, name: Name, over: Region, parameters: dict[str, Any]) -> Tensor:
    """As `pool(x, name, over, **parameters)` of each image alone."""
    valid = mode.known(x)
    if not isinstance(over, Whole | Grid | Pyramid | Window) or valid.axes != tuple(range(2, x.dim())) or valid.flat:
        raise Refused(f"pool({name!r}, over={type(over).__name__}) of a map of shape {tuple(x.shape)}")
    if any(isinstance(v, Tensor) and (v.dim() > 2 or (v.dim() == 2 and len(v) > 1)) for v in parameters.values()):
        raise Refused(f"pool({name!r}) with a parameter for each image or position")
    token = listening.set(None)
    try:
        if isinstance(over, Window):
            return _windows(mode, x, valid, name, over, parameters)
        if isinstance(over, Whole) and name == "mean" and x.dtype.itemsize >= 4:
            return mean(mode, x, valid.axes, keepdim=False)
        return torch.cat([pool(valid.crop(x, images, size), name, over, **parameters) for images, size in valid.runs()])
    finally:
        listening.reset(token)


def mean(mode: "Masked", x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Over all positions of each image, from one look at the batch."""
    mode.clear(x)
    total = x.sum(axes, keepdim=keepdim)
    return total.div_(mode.masks.counts(x, mode.known(x)).view(-1, *(1,) * (total.dim() - 1)))


def _windows(mode: "Masked", x: Tensor, valid: Valid, name: Name, over: Window, parameters: dict[str, Any]) -> Tensor:
    places = {size: _axes(over, size) for size in dict.fromkeys(valid.sizes)}
    after = valid.moved(lambda size: tuple(axis.cells for axis in places[size]))
    if all(_inside(axis, n) for size, place in places.items() for axis, n in zip(place, size, strict=True)):
        return mode.put(pool(x, name, over, **parameters), after)
    whole = _axes(over, tuple(x.shape[2:]))
    # "same" padding puts another number of places before a map of another size
    alike = all(a.before == b.before for place in places.values() for a, b in zip(place, whole, strict=True))
    if name == "max" and alike and x.is_floating_point():
        return largest(mode, x, after, lambda filled: pool(filled, name, over))
    parts = [pool(valid.crop(x, images, size), name, over, **parameters) for images, size in valid.runs()]
    return mode.put(*valid.joined(parts, valid.axes))


@lru_cache(4096)
def _axes(over: Window, size: Size) -> tuple[Windows, ...]:
    return tuple(axis for axis in over.place((1, 1, *size)).axes or () if isinstance(axis, Windows))


def _inside(axis: Windows, length: int) -> bool:
    last = (axis.cells - 1) * axis.stride - axis.before + (axis.size - 1) * axis.step + 1
    return axis.before == 0 and last <= length


def largest(mode: "Masked", x: Tensor, after: Valid, run: Callable[[Tensor], Tensor]) -> Tensor:
    """The maximum over windows, of which the padding is no part."""
    valid = mode.known(x)
    if valid.fills(x):
        return mode.put(run(x), after)
    out = run(torch.minimum(x, mode.masks.below(x, valid)))
    # windows that saw nothing say −∞: 0 again, for −∞ · 0 is no number
    return mode.put(torch.maximum(out, mode.masks.above(out, after), out=out), after)
