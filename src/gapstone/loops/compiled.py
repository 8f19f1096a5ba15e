"""The CPU loop: any pool from its five functions, compiled by Numba, forward and backward.

Three kernels: over_windows.py (windows of contiguous maps), over_places.py (everything else: lists of positions), and
there, for contiguous maps of 1024 positions and more, whole maps as runs. Numba is imported when first needed (0.3 s).
"""

import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from gapstone.loops import kernel_arguments as a
from gapstone.loops import launch_places, launch_windows, memory
from gapstone.loops.argmax_positions import argmax_positions
from gapstone.loops.kernel_call import KernelCall, KernelWork, position_type
from gapstone.loops.memory_format import COMPUTED, STORAGE, arranged, settled
from gapstone.loops.pool_call import Gradients, PoolCall
from gapstone.loops.precision import answer_type
from gapstone.loops.threads import launch
from gapstone.pools import Definition
from gapstone.pools.definition import looks_at, read_by_backward
from gapstone.regions.places import PositionWeights, Sampled

if TYPE_CHECKING:
    from gapstone.loops.kernels import Kernel

HALVES = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, torch.float64, *HALVES)
NO_FLOAT16 = platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
POWERS = {"exp", "log", "expm1", "log1p", "pow"}


class Launcher(Protocol):
    """What launch_places.py and launch_windows.py offer."""

    def template(self, call: KernelCall) -> tuple[str, bool]:
        """The template, without its direction, and whether it masks places that are not on the map."""
        ...

    def meets(self, call: KernelCall) -> tuple[bool, bool]:
        """Backward, whether a position is written more than once, and whether every position is written."""
        ...

    def work(self, call: KernelCall, backward: bool) -> KernelWork: ...


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
    call, x = _settled(call, x)
    out = call.empty(answer_type(call.pool, x.dtype))
    parts = saved_parts(call) if call.requires_grad else ()
    saved = [call.empty(kind) for kind in saved_types(call)] if call.requires_grad else []
    if out.numel():
        launcher = _launcher(call)
        arguments = {a.X: x.data_ptr(), a.OUT: out.data_ptr(), **_saved_at(parts, saved)}
        _run(call, _kernel(call, launcher, parts), launcher.work(call, False), arguments, x.nbytes + out.nbytes)
    return out, saved


def backward(
    call: PoolCall, grad: Tensor, x: Tensor | None, out: Tensor | None, saved: Sequence[Tensor], slope: bool = False
) -> Gradients:
    """d answer / d x and, per image and channel, d answer / d parameter, both times `grad`."""
    x = None if x is None else arranged(x)
    call = KernelCall._make(call) if x is None else KernelCall.on(call, x)
    parts, launcher = saved_parts(call), _launcher(call)
    grad = call.like_answers(grad.to(call.dtype))
    out = None if out is None else call.like_answers(out)
    saved = [call.like_answers(part) for part in saved]
    add, covers = launcher.meets(call)
    dx = memory.empty(call.shape, call.computed if add else call.dtype, call.channels_last)
    if not covers or not grad.numel():
        dx.zero_()
    slopes = torch.zeros(call.shape[:2], dtype=call.computed) if slope else None
    if grad.numel():
        tensors = {a.X: x, a.GRAD: grad, a.OUT: out, a.DX: dx, a.SLOPES: slopes}
        arguments = {at: 0 if tensor is None else tensor.data_ptr() for at, tensor in tensors.items()}
        arguments |= {a.ADD: int(add), **_saved_at(parts, saved)}
        size = call.numel * call.dtype.itemsize
        _run(call, _kernel(call, launcher, parts, slope), launcher.work(call, True), arguments, size)
    return dx.to(call.dtype), slopes


def _saved_at(parts: Sequence[int], saved: Sequence[Tensor]) -> dict[int, int]:
    return {a.KEPT0 + part: tensor.data_ptr() for part, tensor in zip(parts, saved, strict=True)}


def _run(call: KernelCall, kernel: "Kernel", work: KernelWork, arguments: dict[int, int], size: int) -> None:
    """`size`: bytes that are read and written."""
    channels, parameter = call.shape[1], call.parameter()
    arguments |= {**work.arguments, a.CHANNELS: channels}
    if parameter is not None:
        arguments[a.PARAMETER] = parameter.data_ptr()
        arguments[a.PARAMETER_IMAGE] = channels * call.size if parameter.shape[0] > 1 else 0
    launch(kernel, arguments, work.tasks, size, work.scratch)


def _kernel(call: KernelCall, launcher: Launcher, parts: tuple[int, ...], slope: bool | None = None) -> "Kernel":
    """`parts`: of the state, those that are saved. `slope`: backward, whether that of the parameter is asked for."""
    from gapstone.loops.specialize import KernelKind, kernel

    template, masked = launcher.template(call)
    weighted, forward = isinstance(call.place, PositionWeights), slope is None
    kind = KernelKind(
        f"{template}_{'forward' if forward else 'backward'}", call.pool, STORAGE[call.dtype],
        out=STORAGE[answer_type(call.pool, call.dtype) if forward else call.dtype],
        position="u8" if position_type(call.place) == torch.uint8 else "i32", keep=parts,
        counted=call.pool.count is not None and not weighted, weighted=weighted, masked=masked, slope=bool(slope),
        dx="f32" if forward else STORAGE[call.computed if launcher.meets(call)[0] else call.dtype],
    )  # fmt: skip
    return kernel(kind)


def kernels(call: PoolCall, x: Tensor) -> Iterator[Callable[[], object]]:
    """Functions that each ask for one of the kernels of such a call and of its gradient."""
    call, x = _settled(call, x)
    launcher, parts = _launcher(call), saved_parts(call) if call.requires_grad else ()
    yield lambda: _kernel(call, launcher, parts)
    if call.requires_grad:
        yield lambda: _kernel(call, launcher, parts, call.learned)


def _settled(call: PoolCall, x: Tensor) -> tuple[KernelCall, Tensor]:
    x = settled(x) if call.requires_grad and call.pool.positional else arranged(x)
    return KernelCall.on(call, x), x


def _launcher(call: KernelCall) -> Launcher:
    return launch_windows if launch_windows.fits(call) else launch_places


def positions(call: PoolCall, saved: Tensor) -> Tensor:
    """For each answer the position on the flattened map that a saved number stands for."""
    of_window = launch_windows.fits(KernelCall._make(call))
    return argmax_positions(call.place, saved, tuple(call.shape), of_window)
