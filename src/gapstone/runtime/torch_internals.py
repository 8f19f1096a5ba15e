"""Private names of torch: each is looked up once, and each has a fallback for a torch that lacks it.

The fallbacks are slower and give the same results. No other file uses such names (`tests/test_house.py`).
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
"""The fallback for each name."""


def find(path: str) -> Any:
    """The object with a dotted name; None if there is none."""
    value: Any = torch
    parts = path.split(".")
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            try:
                import_module(".".join(parts[:number]))
            except ImportError:
                # some attributes of nn.Module exist only in its instances
                return getattr(nn.Module(), part, None) if value is nn.Module else None
        value = getattr(value, part, None)
    return value


FOUND: dict[str, Any] = {name: find(name) for name in WITHOUT}


def missing() -> dict[str, str]:
    """The names that this torch lacks, with their fallbacks; `gapstone doctor` prints it."""
    return {name: WITHOUT[name] for name, value in FOUND.items() if value is None}


# looked up once, because a pool of a tiny map takes only 5 µs
_level: Callable[[], Any] | None = FOUND["torch._C._functorch.maybe_current_level"]
_dispatching: Callable[[], int] | None = FOUND["torch._C._len_torch_dispatch_stack"]
_watching: Callable[[], int] | None = FOUND["torch._C._len_torch_function_stack"]
_tracing: Callable[[], bool] = FOUND["torch._C._is_tracing"] or torch.jit.is_tracing  # type: ignore[attr-defined]
_forward_ad: Any = None if FOUND["torch.autograd.forward_ad._current_level"] is None else torch.autograd.forward_ad


def unwatched(x: Tensor) -> bool:
    """Whether nothing intercepts torch's calls on x: no mode, tracer, transform of torch.func or forward derivative."""
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
    """Whether torch.jit.trace is recording calls."""
    return not torch.compiler.is_compiling() and _tracing()


def exporting() -> bool:
    """Whether calls are recorded for a place without gapstone's operators.

    torch.export (and so ONNX, .pt2 and AOTInductor) and torch.jit.trace do that.
    """
    return torch.compiler.is_exporting() or tracing()


def transformed(*values: object) -> bool:
    """Whether the values are inside torch.vmap, torch.func.grad or another transform of torch.func."""
    if _level is not None:
        return _level() is not None
    return any(isinstance(value, Tensor) and _wrapped(value) for value in values)


def _wrapped(x: Tensor) -> bool:
    try:
        x.data_ptr()
    except RuntimeError:
        return True
    return False


def forward_mode(*values: object) -> bool:
    """Whether torch.autograd.forward_ad may be differentiating one of the values."""
    if _forward_ad is not None:
        level: int = _forward_ad._current_level
        return level >= 0
    tensors = [value for value in values if isinstance(value, Tensor)]
    unpacked: Any = torch.autograd.forward_ad.unpack_dual
    return any(unpacked(tensor).tangent is not None for tensor in tensors)


def unseen_by_modes() -> AbstractContextManager[Any]:
    """A context in which no TorchFunctionMode sees torch's calls."""
    disable = FOUND["torch._C.DisableTorchFunction"]
    return nullcontext() if disable is None else disable()


def function_modes() -> int | None:
    """How many TorchFunctionModes are active; None where this torch does not tell."""
    return None if _watching is None else _watching()


def snapshot(x: Tensor) -> int | Tensor | None:
    """What `changed` needs later to detect that x was changed in place."""
    if x.is_inference():
        return None
    return x.detach().clone() if FOUND["torch.Tensor._version"] is None else x._version


def changed(x: Tensor, before: int | Tensor | None) -> bool:
    """Whether x was changed in place since its `snapshot`; False for inference tensors, which do not record it."""
    if before is None:
        return False
    if not isinstance(before, Tensor):
        return x._version != before
    if before.shape != x.shape or before.dtype != x.dtype:
        return True
    # tensors on the meta device have no numbers
    return not x.is_meta and not torch.equal(before.nan_to_num(), x.detach().nan_to_num())


def hooks(module: nn.Module) -> list[dict[int, Any]]:
    """A module's dictionaries of forward hooks; none if this torch does not show them."""
    if FOUND["torch.nn.Module._forward_hooks"] is None:
        return []
    return [module._forward_hooks, module._forward_pre_hooks]


def any_number_of_images() -> AbstractContextManager[Any]:
    """A context in which torch.export does not conclude from an example's size other than 1 that it is never 1."""
    patch = FOUND["torch.fx.experimental._config.patch"]
    return nullcontext() if patch is None else patch(backed_size_oblivious=True)


@lru_cache
def openmp() -> Callable[..., None] | None:
    """GOMP_parallel of the OpenMP library that torch ships on Linux; None if there is none."""
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
