"""torch.nn.functional's pools: the same arguments, answers and errors, by gapstone's loops where these are faster.

    >>> from gapstone.accelerating import functional as F
    >>> F.max_pool2d(x, 3, stride=2, padding=1)

What gapstone does not serve better goes to torch with the arguments as they came: small maps, one mean per map,
indices, integers, other devices, maps without a batch axis; whatever torch refuses; and calls that somebody wants to
see as torch's own: tensor subclasses, modes, torch.func, torch.jit, torch.export.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.accelerating.functional_arguments import SMALL, gradient, max_grid, max_window, mean_grid, mean_window
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.pool_call import PoolCall
from gapstone.loops.run_call import remember, runner
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals
from gapstone.runtime.torch_internals import unwatched

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Pooling = Callable[..., Any]

FASTER = ("tuned", "compiled")
"""Loops of gapstone's that are faster than torch's call; the reference is not."""

compiling = torch.compiler.is_compiling


def _pooling(
    own: Pooling, axes: int, name: str, place_of: Callable[..., Intervals | None], called: str | None = None
) -> Pooling:
    """`own`, faster. Its arguments are passed on as they came, so that what is wrong with them is for torch to say."""

    def pool(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs.get("input")
        # two cheap looks, for tiny maps
        if type(x) is Tensor and (compiling() or x.numel() >= SMALL):
            place = place_of(axes, *args, **kwargs) if _served(x, axes, name) else None
            run = None if place is None else runner_of(name, x, place)
            if run is not None:
                return run(x)
        return own(*args, **kwargs)

    # importable by its name, which pickle and torch.fx ask for
    pool.__name__ = pool.__qualname__ = called or own.__name__
    pool.__doc__ = f"As torch's {own.__name__}, faster."
    return pool


_remembered: dict[tuple[object, ...], Callable[[Tensor], Tensor] | None] = {}


def runner_of(name: str, x: Tensor, place: Intervals) -> Callable[[Tensor], Tensor] | None:
    """What answers the call; None: torch."""
    key = None if compiling() else (name, place, x.shape, x.dtype, x.stride(), gradient(x))
    if key is not None and key in _remembered:
        return _remembered[key]
    call = PoolCall.of(POOLS[name], x, place, (), gradient(x))
    loop = choose_loop(call).loop
    run, lasting = runner(call, loop, x) if loop in FASTER else (None, True)
    if key is not None and lasting:
        remember(_remembered, key, run)
    return run


def _served(x: Tensor, axes: int, name: str) -> bool:
    """Whether gapstone may take this map, whatever the other arguments are."""
    if not x.is_cpu or x.dtype not in FLOATS or x.layout is not torch.strided or x.is_nested:
        return False
    # autocast runs three-dimensional pools in float32
    if axes == 3 and torch.is_autocast_enabled("cpu"):
        return False
    if compiling():
        # Inductor fuses a pool with what stands around it (13 ms against 22 of a small network), but its backward of
        # max_pool runs at 1 GB/s: a training step of that network is 72 ms, 49 with gapstone's
        return name == "max" and gradient(x) and not torch.compiler.is_exporting()
    return unwatched(x)


max_pool1d = _pooling(F.max_pool1d, 1, "max", max_window)
max_pool2d = _pooling(F.max_pool2d, 2, "max", max_window)
max_pool3d = _pooling(F.max_pool3d, 3, "max", max_window)
avg_pool1d = _pooling(F.avg_pool1d, 1, "mean", mean_window)
avg_pool2d = _pooling(F.avg_pool2d, 2, "mean", mean_window)
avg_pool3d = _pooling(F.avg_pool3d, 3, "mean", mean_window)
adaptive_max_pool1d = _pooling(F.adaptive_max_pool1d, 1, "max", max_grid)
adaptive_max_pool2d = _pooling(F.adaptive_max_pool2d, 2, "max", max_grid)
adaptive_max_pool3d = _pooling(F.adaptive_max_pool3d, 3, "max", max_grid)
adaptive_avg_pool1d = _pooling(F.adaptive_avg_pool1d, 1, "mean", mean_grid)
adaptive_avg_pool2d = _pooling(F.adaptive_avg_pool2d, 2, "mean", mean_grid)
adaptive_avg_pool3d = _pooling(F.adaptive_avg_pool3d, 3, "mean", mean_grid)
# torch.max_pool2d knows no return_indices, and says so
torch_max_pool1d = _pooling(torch.max_pool1d, 1, "max", max_window, "torch_max_pool1d")
torch_max_pool2d = _pooling(torch.max_pool2d, 2, "max", max_window, "torch_max_pool2d")
torch_max_pool3d = _pooling(torch.max_pool3d, 3, "max", max_window, "torch_max_pool3d")
