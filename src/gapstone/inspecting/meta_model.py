"""Runs a network on shapes alone: as a copy on the meta device, which holds no values and needs no memory."""

import copy
import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gapstone.console.formatting import first_line
from gapstone.runtime import torch_internals

CANNOT = "cannot run on shapes alone"


@dataclass
class MetaModel:
    """The module that is run instead of a user's model.

    >>> meta = to_meta(model, channels=3, size=(224, 224))
    >>> with meta.running():
    ...     meta.model(meta.images(1, 3, (224, 224)))
    """

    model: nn.Module
    """The copy, or with `real` the user's model itself."""
    device: torch.device
    real: str | None = None
    """Why it must run on values (zeros); None: on shapes."""
    creates: bool = False
    """Whether tensors that the model creates must be put on the meta device, too."""

    def images(self, count: int, channels: int, size: tuple[int, int]) -> Tensor:
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        return torch.zeros(count, channels, *size, device=self.device, dtype=dtype)

    @contextmanager
    def running(self, train: bool = False) -> Iterator[None]:
        """Set the state of torch and of the model for a run, and restore it afterwards."""
        fastpath = torch.backends.mha.get_fastpath_enabled()
        modes = [(module, module.training) for module in self.model.modules()]
        saved = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if self.real else []
        requires_grad = [(p, p.requires_grad) for p in self.model.parameters()]
        torch.backends.mha.set_fastpath_enabled(False)  # a fused call, whose parts cannot be counted
        try:
            with (
                warnings.catch_warnings(),
                torch.random.fork_rng(),
                torch.device("meta") if self.creates else nullcontext(),
            ):
                warnings.simplefilter("ignore")  # about zeros, and about gradients
                for parameter, _ in requires_grad:  # frozen parameters count as trained
                    parameter.requires_grad_(parameter.is_floating_point())
                with suppress(NotImplementedError):  # an exported program has no modes
                    self.model.train(train)
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
            for module, training in modes:
                module.training = training
            for parameter, required in requires_grad:
                parameter.requires_grad_(required)
            with torch.no_grad():
                for buffer, value in saved:
                    buffer.copy_(value)


def to_meta(model: nn.Module, channels: int, size: tuple[int, int]) -> MetaModel:
    """Return the model in a form that runs: on shapes, or on zeros if it needs values.

    Raises:
        ValueError: If it takes no images of this size in either form.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"inspect({type(model).__name__}): what happens inside a scripted or traced model cannot be seen; inspect "
            f"the module that it was made of"
        )
    if any(is_lazy(t) for t in chain(model.parameters(), model.buffers())):
        raise ValueError(
            f"inspect({type(model).__name__}): it has lazy layers without a shape yet; run it once on an image, then "
            f"inspect it"
        )
    first_error: Exception | None = None
    for creates in (False, True):
        try:
            meta = MetaModel(_copy(model), torch.device("meta"), creates=creates)
            with torch.no_grad(), meta.running():
                meta.model(meta.images(1, channels, size))
        except Exception as error:  # networks need values, or refuse sizes, with different errors
            first_error = first_error or error
            continue
        return meta
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    assert first_error is not None
    meta = MetaModel(model, device, real=f"it {CANNOT} ({type(first_error).__name__}: {first_line(first_error)})")
    try:
        if device.type == "meta":
            raise first_error
        with torch.no_grad(), meta.running():
            meta.model(meta.images(1, channels, size))
    except Exception as error:
        raise ValueError(
            f"inspect({type(model).__name__}, size={size[0]}×{size[1]}, channels={channels}): it does not take such "
            f"images ({type(error).__name__}: {first_line(error)}); give the size and channels that it takes"
        ) from error
    return meta


def _copy(model: nn.Module) -> nn.Module:
    """Copy the modules with their tensors on the meta device."""
    memo: dict[int, Any] = {}
    attributes = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    for tensor in chain(model.parameters(), model.buffers(), attributes):
        meta_tensor = torch.empty_like(tensor, device="meta", requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            meta_tensor = nn.Parameter(meta_tensor, requires_grad=False)
        memo[id(tensor)] = meta_tensor
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        for hooks in torch_internals.hooks(module):
            for key in [key for key, hook in hooks.items() if _is_user_function(hook)]:
                del hooks[key]
    return copied


def _is_user_function(hook: Any) -> bool:
    """Tell whether a hook is a user's function: it would be called with shapes dozens of times.

    Methods are copied with their object, and torch's own hooks (pruning, spectral norm) compute weights.
    """
    while isinstance(hook, functools.partial):
        hook = hook.func
    return isinstance(hook, FunctionType) and not hook.__module__.startswith("torch.")
