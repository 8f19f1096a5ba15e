"""What a name stands for in a network's code, and what it shall stand for: torch's pools become gapstone's."""

from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gapstone.accelerating import functional

NAMES = tuple(
    f"{name}{axes}d"
    for name in ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    for axes in (1, 2, 3)
)
POOLS: dict[Any, Any] = {getattr(F, name): getattr(functional, name) for name in NAMES} | {
    getattr(torch, f"max_pool{axes}d"): getattr(functional, f"torch_max_pool{axes}d") for axes in (1, 2, 3)
}
"""torch's function: gapstone's."""

TORCH_POOLS = {pool: function for function, pool in POOLS.items()}
"""gapstone's function: torch's."""


def pool_of(value: Any) -> Any:
    """gapstone's for a torch pool, or for a partial call of one; None for anything else."""
    if isinstance(value, partial) and (pool := pool_of(value.func)):
        return partial(pool, *value.args, **value.keywords)
    return POOLS.get(value) if callable(value) and getattr(value, "__hash__", None) else None


def _standing_in(module: ModuleType, **names: Any) -> ModuleType:
    """A module with some names of its own; every other is looked up in the real one, whenever it is asked for."""
    proxy = ModuleType(module.__name__, module.__doc__)
    vars(proxy).update(names, __getattr__=partial(getattr, module))
    return proxy


_functional = _standing_in(F, **{name: POOLS[getattr(F, name)] for name in NAMES})
_nn = _standing_in(nn, functional=_functional)
_pools_of_torch = {name: POOLS[own] for name in NAMES if (own := getattr(torch, name, None)) in POOLS}
_torch = _standing_in(torch, nn=_nn, functional=_standing_in(torch.functional), **_pools_of_torch)

NAMESPACES = {F: _functional, nn: _nn, torch: _torch}


def foreign(function: FunctionType) -> bool:
    """Not torch's own code, nor gapstone's: a function whose calls may be looked into."""
    return (function.__module__ or "").partition(".")[0] not in ("torch", "gapstone")
