"""Pools that read their answer off the sorted values of a region: median and quantile. They need all of it at once."""

import torch
from torch import Tensor

from gapstone.loops.gathered import gather
from gapstone.loops.precision import wide
from gapstone.pools import WholeOnly
from gapstone.regions.places import Labels, Place, PositionWeights


def forward(pool: WholeOnly, x: Tensor, place: Place, parameters: tuple[float, ...]) -> Tensor:
    """The answers over a place. NaN anywhere in a region, or no position, gives NaN."""
    return _forward(pool, wide(pool, x), place, parameters).to(x.dtype)


def _forward(pool: WholeOnly, x: Tensor, place: Place, parameters: tuple[float, ...]) -> Tensor:
    if isinstance(place, PositionWeights):
        raise ValueError(f"pool({pool.name!r}) with weights: sorted values cannot count in part; give a mask of bool.")
    if isinstance(place, Labels):
        ordered, first, count = _by_label(x, place)
        out = _read(pool, ordered, first, count, parameters)
        return out.flatten(1) if place.whole else out
    values, inside = gather(x, place)
    inside = inside.expand(values.shape)
    ordered = torch.where(inside, values, torch.inf).sort(-1).values
    missing = (values.isnan() & inside).any(-1)
    count = inside.sum(-1)
    out = _read(pool, ordered, torch.zeros_like(count), count, parameters)
    return torch.where(missing, torch.nan, out)


def _read(pool: WholeOnly, ordered: Tensor, first: Tensor, count: Tensor, parameters: tuple[float, ...]) -> Tensor:
    """Between the two values on either side of the rank."""
    rank = pool.rank(count.to(ordered.dtype), *parameters)
    low = rank.floor().clamp(min=0)
    most = ordered.shape[-1] - 1
    if first.shape == ordered.shape[:-1]:
        first, rank, low, squeeze = first[..., None], rank[..., None], low[..., None], True
    else:
        squeeze = False
    a = ordered.gather(-1, (first + low.long()).clamp(max=most))
    b = ordered.gather(-1, (first + rank.ceil().clamp(min=0).long()).clamp(max=most))
    out = torch.where(a == b, a, a + (b - a) * (rank - low))  # equal infinities: their difference would be NaN
    out = out[..., 0] if squeeze else out
    return torch.where(count > 0, out, torch.nan)


def _by_label(x: Tensor, place: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Values sorted inside each label, and where each label begins and how many it has."""
    flat = x.flatten(2)
    labels = place.labels.flatten(1)[:, None].expand(flat.shape)
    values, order = flat.sort(-1)
    labels, order = labels.gather(-1, order).sort(dim=-1, stable=True)
    values = values.gather(-1, order)
    wanted = torch.arange(place.count, device=x.device).expand(*flat.shape[:2], place.count).contiguous()
    first = torch.searchsorted(labels.contiguous(), wanted)
    count = torch.searchsorted(labels.contiguous(), wanted, right=True) - first
    # NaN is sorted last: if the last of a label is NaN, so is every rank of it
    last = (first + count - 1).clamp(min=0)
    spoilt = values.gather(-1, last).isnan() & (count > 0)
    count = torch.where(spoilt, 0, count)
    return values, first, count
