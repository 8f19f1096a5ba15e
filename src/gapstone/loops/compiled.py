"""The CPU loop: any pool from its five functions, compiled by Numba, forward and backward.

Three kernels: over_windows.py (windows of contiguous maps), over_places.py (everything else: lists of positions), and
there, for contiguous maps of 1024 positions and more, whole maps as runs. Numba is imported when first needed (0.3 s).
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import launch_places, launch_windows
from gapstone.loops.argmax_positions import winners
from gapstone.loops.memory_format import COMPUTED, STORAGE, Call, Parameters, arranged, settled
from gapstone.pools import POOLS, Definition
from gapstone.pools.definition import looks_at
from gapstone.regions.places import Boxes, Labels, Place, Rectangles, Sampled, Weights, Windows

HALVES = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, torch.float64, *HALVES)
NO_FLOAT16 = platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
POWERS = {"exp", "log", "expm1", "log1p", "pow"}


def serves(name: str, dtype: torch.dtype, place: Place) -> str | None:
    """None: this loop serves it; else why it does not."""
    pool = POOLS[name]
    if pool.words & {"list", "merge_largest"}:
        return f"{name} keeps a list"
    if any(parameter.per_position for parameter in pool.parameters.values()):
        return f"{name} has a parameter per position"
    if isinstance(place, Sampled):
        return "values are read between positions"
    if dtype not in STORAGE:
        return f"no kernels for {dtype}"
    if dtype not in FLOATS and pool.integers is None:
        return f"{name} of integers"
    if dtype == torch.float64 and pool.words & POWERS:
        return "float64 exponentials are faster in torch"
    if isinstance(place, Weights) and (not pool.weighted or dtype not in FLOATS):
        return f"{name} of {dtype} cannot be weighted"
    if dtype == torch.float16 and NO_FLOAT16:
        return "this processor does not know float16"
    return None


@lru_cache
def _kept_parts(name: str) -> tuple[int, ...]:
    """The parts of the state that share or slope look at."""
    pool = POOLS[name]
    found: set[int] = set()
    for function, before in ((pool.share, 3 if pool.positional else 2), (pool.slope, 2)):
        if function:
            code = function.__code__
            names = code.co_varnames[before : before + len(pool.empty)]
            found |= {part for part, argument in enumerate(names) if argument in looks_at(function)}
    return tuple(sorted(found))


def kept_parts(name: str, place: Place) -> tuple[int, ...]:
    """The same, without the count where the place tells it."""
    count = None if isinstance(place, Weights) else POOLS[name].count
    return tuple(part for part in _kept_parts(name) if part != count)


def _position_type(place: Place) -> torch.dtype:
    if isinstance(place, Boxes) and place.axes is not None and all(isinstance(axis, Windows) for axis in place.axes):
        taps = prod(axis.size for axis in place.axes if isinstance(axis, Windows))
        return torch.uint8 if taps <= 256 else torch.int32
    return torch.int32


def kept_types(name: str, dtype: torch.dtype, place: Place) -> list[torch.dtype]:
    """The types of the tensors that are kept for the backward; each has the answer's shape."""
    positional = POOLS[name].positional
    return [
        _position_type(place) if positional and part == 1 else COMPUTED.get(dtype, torch.int64)
        for part in kept_parts(name, place)
    ]


def forward(
    name: str, x: Tensor, place: Place, parameters: Parameters = (), keep: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The answers over a place, and what the backward needs besides x and the answers."""
    pool = POOLS[name]
    x = settled(x) if keep and pool.positional else arranged(x)
    call = _call(name, pool, x, x.shape, x.dtype, place, parameters)
    dtype = torch.int64 if pool.integers == "int64" and x.dtype not in FLOATS else x.dtype
    out = call.empty(call.cells, dtype)
    parts = kept_parts(name, place) if keep else ()
    kept = [call.empty(call.cells, kind) for kind in kept_types(name, x.dtype, place)] if keep else []
    if out.numel():
        _launcher(call).forward(call, out, parts, kept)
    return out, kept


def backward(
    name: str,
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    kept: Sequence[Tensor],
    shape: Sequence[int],
    place: Place,
    parameters: Parameters = (),
    want_x: bool = True,
    want_parameter: bool = False,
    channels_last: bool | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """d answer / d x and, per image and channel, d answer / d parameter, both times `grad`."""
    pool = POOLS[name]
    if x is not None:
        x = arranged(x)
    call = _call(name, pool, x, torch.Size(shape), grad.dtype, place, parameters)
    if x is None:
        like = out if out is not None else (kept[0] if kept else grad)
        call.channels_last = call.is_channels_last(like) if channels_last is None else channels_last
    dx, slopes = _launcher(call).backward(
        call, call.like_answers(grad), None if out is None else call.like_answers(out),
        kept_parts(name, place), [call.like_answers(part) for part in kept], want_x, want_parameter,
    )  # fmt: skip
    return (dx if want_x else None), (slopes if want_parameter else None)


def kernels(
    name: str, x: Tensor, place: Place, parameters: Parameters, keep: bool, learned: bool
) -> Iterator[Callable[[], object]]:
    """What asks for the kernels of such a call and of its gradient, one by one."""
    pool = POOLS[name]
    x = settled(x) if keep and pool.positional else arranged(x)
    call = _call(name, pool, x, x.shape, x.dtype, place, parameters)
    dtype = torch.int64 if pool.integers == "int64" and x.dtype not in FLOATS else x.dtype
    parts, launcher = kept_parts(name, place) if keep else (), _launcher(call)
    yield lambda: launcher.forward_kernel(call, dtype, parts)
    if keep:
        yield lambda: launcher.backward_kernel(call, parts, learned)


def _call(
    name: str, pool: Definition, x: Tensor | None, shape: torch.Size, dtype: torch.dtype, place: Place,
    parameters: Parameters,
) -> Call:  # fmt: skip
    spatial = tuple(shape[2:])
    cells: tuple[int, ...] = ()
    rows = shape[0]
    if isinstance(place, Boxes) and place.axes is not None:
        cells = tuple(axis.cells for axis in place.axes)
    elif isinstance(place, Rectangles):
        rows, cells = len(place.images), tuple(starts.shape[1] for starts in place.starts)
    elif isinstance(place, Labels) and not place.whole:
        cells = (place.count,)
    return Call(name, pool, x, tuple(shape), spatial, dtype, place, parameters, rows, cells, _position_type(place))


def _launcher(call: Call) -> Any:
    return launch_windows if launch_windows.fits(call) else launch_places


def positions(x: Tensor, place: Place, kept: Tensor, name: str) -> Tensor:
    """For each answer the position on the flattened map that a kept number stands for. `x`: any map of that shape."""
    call = _call(name, POOLS[name], settled(x), x.shape, x.dtype, place, ())
    return winners(place, kept, tuple(x.shape), launch_windows.fits(call))
