"""torch's names that are not promised to stay: each is looked for once, and has something that is done without it.

Without them things are slower, and as right as before. No other file uses such names (`tests/test_house.py`).
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode  # as torch.utils.flop_counter has it

WITHOUT = {
    "torch._C._functorch.maybe_current_level": "tensors inside torch.func are told by having no memory of their own",
    "torch._C._len_torch_dispatch_stack": "every pool goes through torch's dispatcher",
    "torch._C._len_torch_function_stack": "every pool goes through torch's dispatcher",
    "torch._C._is_tracing": "torch.jit.is_tracing is asked, which takes longer",
    "torch.autograd.forward_ad._current_level": "every tensor is asked for its tangent",
    "torch._C.DisableTorchFunction": "images of different sizes are answered one by one where a gapstone pool is met",
    "torch.Tensor._version": "maps are copied to see whether a network changes them in place",
    "torch.nn.Module._forward_hooks": "inspect runs a network's own hooks, too",
    "torch.fx.experimental._config.patch": "torch.export writes down that there is more than one image",
    "torch._C.__file__": "compiled loops run on one thread",
}
"""By name what is done without it."""


def find(path: str) -> Any:
    """What stands under a dotted name; None where there is nothing."""
    found: Any = torch
    parts = path.split(".")
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                import_module(".".join(parts[:number]))
            except ImportError:
                # of a module of nn.Module's instances: an attribute that only they have
                return getattr(nn.Module(), part, None) if found is nn.Module else None
        found = getattr(found, part, None)
    return found


FOUND: dict[str, Any] = {name: find(name) for name in WITHOUT}


def missing() -> dict[str, str]:
    """The names that this torch lacks, and what is done without them; `gapstone doctor` prints it."""
    return {name: WITHOUT[name] for name, found in FOUND.items() if found is None}


# looked up once: a pool of a tiny map takes 5 µs
_level: Callable[[], Any] | None = FOUND["torch._C._functorch.maybe_current_level"]
_dispatching: Callable[[], int] | None = FOUND["torch._C._len_torch_dispatch_stack"]
_watching: Callable[[], int] | None = FOUND["torch._C._len_torch_function_stack"]
_tracing: Callable[[], bool] = FOUND["torch._C._is_tracing"] or torch.jit.is_tracing  # type: ignore[attr-defined]
_forward_ad: Any = None if FOUND["torch.autograd.forward_ad._current_level"] is None else torch.autograd.forward_ad


def unwatched(x: Tensor) -> bool:
    """Whether nobody sees torch's calls on x: no mode, no tracer, no transform of torch.func, no forward derivative."""
    return (
        _dispatching is not None
        and _watching is not None
        and not _dispatching()
        and not _watching()
        and not _tracing()
        and (not transformed(x) if _level is None else _level() is None)
        and (not forward_mode(x) if _forward_ad is None else _forward_ad._current_level < 0)
    )


def tracing() -> bool:
    """Whether torch.jit.trace writes down what is called."""
    return not torch.compiler.is_compiling() and _tracing()


def written_down() -> bool:
    """Whether the calls are kept for somewhere else, where gapstone's operators are not: torch.export (so ONNX, .pt2,
    AOTInductor) and torch.jit.trace.
    """
    return torch.compiler.is_exporting() or tracing()


def transformed(*values: Any) -> bool:
    """Inside torch.vmap, torch.func.grad and their like."""
    if _level is not None:
        return _level() is not None
    return any(isinstance(value, Tensor) and _wrapped(value) for value in values)


def _wrapped(x: Tensor) -> bool:
    try:
        x.data_ptr()
    except RuntimeError:
        return True
    return False


def forward_mode(*values: Any) -> bool:
    """Whether torch.autograd.forward_ad may be at work on one of these."""
    if _forward_ad is not None:
        level: int = _forward_ad._current_level
        return level >= 0
    tensors = [value for value in values if isinstance(value, Tensor)]
    unpacked: Any = torch.autograd.forward_ad.unpack_dual
    return any(unpacked(tensor).tangent is not None for tensor in tensors)


def unseen_by_modes() -> AbstractContextManager[Any]:
    """Inside, no mode is told of torch's calls."""
    found = FOUND["torch._C.DisableTorchFunction"]
    return nullcontext() if found is None else found()


def snapshot(x: Tensor) -> int | Tensor | None:
    """What `changed` needs to say later whether x was changed in place."""
    if x.is_inference():
        return None
    return x.detach().clone() if FOUND["torch.Tensor._version"] is None else x._version


def changed(x: Tensor, before: int | Tensor | None) -> bool:
    """Whether x was changed in place since its `snapshot` (of inference tensors nobody can say: no)."""
    if before is None:
        return False
    if not isinstance(before, Tensor):
        return x._version != before
    if before.shape != x.shape or before.dtype != x.dtype:
        return True
    # of shapes alone there are no numbers that could differ
    return not x.is_meta and not torch.equal(before.nan_to_num(), x.detach().nan_to_num())


def hooks(module: nn.Module) -> list[dict[int, Any]]:
    """A module's forward hooks, to be taken out of it; none where this torch does not show them."""
    if FOUND["torch.nn.Module._forward_hooks"] is None:
        return []
    return [module._forward_hooks, module._forward_pre_hooks]


def any_number_of_images() -> AbstractContextManager[Any]:
    """Inside, torch.export does not take sizes that are not 1 in the example for "never 1"."""
    patch = FOUND["torch.fx.experimental._config.patch"]
    return nullcontext() if patch is None else patch(backed_size_oblivious=True)


@lru_cache
def openmp() -> Callable[..., None] | None:
    """GOMP_parallel of the OpenMP that torch brings along on Linux; None where it has none."""
    file = FOUND["torch._C.__file__"]
    if file is None:
        return None
    try:
        function = ctypes.CDLL(file).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function
