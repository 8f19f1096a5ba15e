"""The CPU loop: any pool from its five functions, compiled by Numba, forward and backward.

Three kernels: over_windows.py (windows of contiguous maps), over_places.py (everything else: lists of positions), and
there, for contiguous maps of 1024 positions and more, whole maps as runs. Numba is imported when first needed (0.3 s).
"""

import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from gapstone.loops import launch_places, launch_windows
from gapstone.loops.argmax_positions import argmax_positions
from gapstone.loops.kernel_call import KernelCall, position_type
from gapstone.loops.memory_format import COMPUTED, STORAGE, arranged, settled
from gapstone.loops.pool_call import Gradients, PoolCall
from gapstone.loops.precision import answer_type
from gapstone.pools import Definition
from gapstone.pools.definition import looks_at, read_by_backward
from gapstone.regions.places import PositionWeights, Sampled

HALVES = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, torch.float64, *HALVES)
NO_FLOAT16 = platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
POWERS = {"exp", "log", "expm1", "log1p", "pow"}


class Launcher(Protocol):
    """What launch_places.py and launch_windows.py offer."""

    def forward(self, call: KernelCall, out: Tensor, parts: tuple[int, ...], saved: list[Tensor]) -> None: ...

    def backward(
        self, call: KernelCall, grad: Tensor, out: Tensor | None, parts: tuple[int, ...], saved: list[Tensor],
        slope: bool,
    ) -> Gradients: ...  # fmt: skip

    def forward_kernel(self, call: KernelCall, dtype: torch.dtype, parts: tuple[int, ...]) -> object: ...

    def backward_kernel(self, call: KernelCall, parts: tuple[int, ...], slope: bool) -> object: ...


_cannot: dict[str, str] = {}
"""By a pool's name why Numba cannot compile it. (torch.compile cannot hash a definition.)"""


def cannot_compile(pool: Definition, error: Exception) -> None:
    """From now on the reference loop runs this pool, which Numba could not compile."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    _cannot[pool.name] = f"Numba cannot compile {pool.name}"
    warnings.warn(
        f"pool {pool.name!r} has no compiled loop, the reference answers: {type(error).__name__}: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )


def refuses(call: PoolCall) -> str | None:
    """Why this loop has no kernel for a call; None: it has."""
    pool, dtype, place = call.pool, call.dtype, call.place
    if pool.name in _cannot:
        return _cannot[pool.name]
    if pool.words & {"list", "merge_largest"}:
        return f"{pool.name} keeps a list"
    if any(parameter.per_position for parameter in pool.parameters.values()):
        return f"{pool.name} has a parameter per position"
    if len(pool.parameters) > 1:
        return f"{pool.name} has more than one parameter"
    if len(pool.empty) > MOST_PARTS:
        return f"{pool.name} has more than {MOST_PARTS} numbers in its state"
    if isinstance(place, Sampled):
        return "values are read between positions"
    if dtype not in STORAGE:
        return f"no kernels for {dtype}"
    if dtype not in FLOATS and pool.integers is None:
        return f"{pool.name} of integers"
    if dtype == torch.float64 and pool.words & POWERS:
        return "float64 exponentials are faster in torch"
    if isinstance(place, PositionWeights) and (not pool.weighted or dtype not in FLOATS):
        return f"{pool.name} of {dtype} cannot be weighted"
    if dtype == torch.float16 and NO_FLOAT16:
        return "this processor does not know float16"
    return None


MOST_PARTS = 4
"""Numbers of a state that the templates can save."""


def serves(call: PoolCall) -> str | None:
    """Why this loop is the one to take, after the tuned loop and torch's kernels."""
    return None if refuses(call) else "derived from the pool's definition and compiled for this machine"


@lru_cache
def _looked_at_parts(pool: Definition) -> tuple[int, ...]:
    """The parts of the state that share or slope look at."""
    parts: set[int] = set()
    for function, before in ((pool.share, 3 if pool.positional else 2), (pool.slope, 2)):
        if function:
            code = function.__code__
            names = code.co_varnames[before : before + len(pool.empty)]
            parts |= {part for part, argument in enumerate(names) if argument in looks_at(function)}
    return tuple(sorted(parts))


def saved_parts(call: PoolCall) -> tuple[int, ...]:
    """The parts of the state that the backward needs; not the count, where the place tells it."""
    count = None if isinstance(call.place, PositionWeights) else call.pool.count
    return tuple(part for part in _looked_at_parts(call.pool) if part != count)


def saved_types(call: PoolCall) -> list[torch.dtype]:
    """The types of the saved tensors; each has the answer's shape."""
    return [
        position_type(call.place) if call.pool.positional and part == 1 else COMPUTED.get(call.dtype, torch.int64)
        for part in saved_parts(call)
    ]


def needs(call: PoolCall, slope: bool) -> tuple[bool, bool]:
    """Whether the backward reads x, and the answers."""
    names = read_by_backward(call.pool, slope)
    return "x" in names, "out" in names


def forward(call: PoolCall, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The answers over a place, and what the backward needs besides x and the answers."""
    kernel_call = _on(call, x)
    out = kernel_call.empty(answer_type(call.pool, x.dtype))
    parts = saved_parts(call) if call.requires_grad else ()
    saved = [kernel_call.empty(kind) for kind in saved_types(call)] if call.requires_grad else []
    if out.numel():
        _launcher(kernel_call).forward(kernel_call, out, parts, saved)
    return out, saved


def backward(
    call: PoolCall,
    grad: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    saved: Sequence[Tensor],
    slope: bool = False,
) -> Gradients:
    """d answer / d x and, per image and channel, d answer / d parameter, both times `grad`."""
    kernel_call = KernelCall(call, None, call.channels_last) if x is None else KernelCall.of(call, arranged(x))
    return _launcher(kernel_call).backward(
        kernel_call,
        kernel_call.like_answers(grad.to(call.dtype)),
        None if out is None else kernel_call.like_answers(out),
        saved_parts(call),
        [kernel_call.like_answers(part) for part in saved],
        slope,
    )


def kernels(call: PoolCall, x: Tensor) -> Iterator[Callable[[], object]]:
    """Functions that each ask for one of the kernels of such a call and of its gradient."""
    kernel_call = _on(call, x)
    launcher, parts = _launcher(kernel_call), saved_parts(call) if call.requires_grad else ()
    yield lambda: launcher.forward_kernel(kernel_call, answer_type(call.pool, x.dtype), parts)
    if call.requires_grad:
        yield lambda: launcher.backward_kernel(kernel_call, parts, call.learned)


def _on(call: PoolCall, x: Tensor) -> KernelCall:
    return KernelCall.of(call, settled(x) if call.requires_grad and call.pool.positional else arranged(x))


def _launcher(call: KernelCall) -> Launcher:
    return launch_windows if launch_windows.fits(call) else launch_places


def positions(call: PoolCall, saved: Tensor) -> Tensor:
    """For each answer the position on the flattened map that a saved number stands for."""
    of_window = launch_windows.fits(KernelCall(call, None, call.channels_last))
    return argmax_positions(call.place, saved, tuple(call.shape), of_window)
