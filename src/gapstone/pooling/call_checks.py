"""What is refused before anything is computed: maps, regions, devices and dtypes that a pool has no answer for."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapstone.pooling.pool_names import composition_of
from gapstone.pools import Definition, WholeOnly
from gapstone.pools.name_types import AnyName
from gapstone.regions import REGIONS, Grid, Region, Whole, Window
from gapstone.regions.places import Intervals, Place, PositionWeights

Value = float | Tensor
BY_VALUE = {Whole, Window, Grid}
"""Regions without tensors."""


def check_region(name: AnyName, over: Region) -> None:
    """Refuse an unknown pool, and what is no region."""
    composition_of(name)
    if not isinstance(over, REGIONS):
        names = ", ".join(region.__name__ for region in REGIONS)
        raise ValueError(f"pool({name!r}, over={over!r}): a region is one of {names}, such as gs.Window(3, stride=2).")


def tensors_of(over: Region) -> dict[str, Any]:
    """A region's tensors, or what stands for them, by name."""
    if type(over) in BY_VALUE:
        return {}
    tensors: dict[str, Any] = {}
    for key in ("mask", "labels", "boxes"):
        value = getattr(over, key, None)
        if isinstance(value, list | tuple):
            tensors |= {f"{key}[{i}]": each for i, each in enumerate(value)}
        elif value is not None:
            tensors[key] = value
    return tensors


def check_devices(x: Tensor, name: str, over: Region, parameters: Mapping[str, Any]) -> None:
    """Refuse tensors of several devices: what is computed on one would read the other's memory as its own."""
    for key, value in {**parameters, **tensors_of(over)}.items():
        if isinstance(value, Tensor) and value.device != x.device:
            raise ValueError(
                f"pool({name!r}, over={type(over).__name__}(…)): x is on {x.device}, {key} on {value.device}; "
                f"give both on one device: {key}.to(x.device)."
            )


def check_map(x: Tensor, pool: Definition | WholeOnly, over: Region, parameters: Mapping[str, Any]) -> None:
    """Refuse what is no map, or has a dtype that the pool has no meaning for."""
    name = pool.name
    check_region(name, over)
    if not isinstance(x, Tensor):
        raise TypeError(f"pool({name!r}) of {type(x).__name__}: give a tensor, such as torch.as_tensor(x).")
    check_devices(x, name, over, parameters)
    shape = tuple(x.shape)
    if not 3 <= x.dim() <= 5:
        raise ValueError(
            f"pool({name!r}) of a tensor of shape {shape}: needs (N, C, *spatial) with one to three spatial axes; "
            f"add a batch axis with x[None]."
        )
    if 0 in shape[1:]:
        raise ValueError(f"pool({name!r}) of a tensor of shape {shape}: there is no position to pool.")
    if x.dtype == torch.uint64:
        raise TypeError(f"pool({name!r}) of {x.dtype}: not all fit into int64; if yours do, convert with x.long().")
    integers = isinstance(pool, Definition) and pool.integers
    if x.is_complex() or x.dtype == torch.bool or not (x.is_floating_point() or integers) or x.is_sparse:
        raise TypeError(
            f"pool({name!r}) of {'a sparse tensor' if x.is_sparse else x.dtype}: convert with x.float() first."
        )


def check_place(x: Tensor, pool: Definition, place: Place) -> None:
    """Refuse weights and divisors where the pool has no meaning for them."""
    name = pool.name
    if isinstance(place, PositionWeights) and not x.is_floating_point():
        raise TypeError(f"pool({name!r}) of {x.dtype} over a Mask of weights: convert with x.float() first.")
    if isinstance(place, PositionWeights) and not pool.weighted:
        raise ValueError(
            f"pool({name!r}) over a Mask of weights: a {name} cannot count a position in part; give a mask of bool."
        )
    if isinstance(place, Intervals) and place.divisor != "positions" and pool.count is None:
        raise ValueError(f"pool({name!r}) over a Window with divisor={place.divisor!r}: only a mean divides.")
