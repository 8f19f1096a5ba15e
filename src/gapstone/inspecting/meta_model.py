"""A network that is run on shapes alone: a copy on the meta device, which holds no numbers and costs no memory."""

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

from gapstone.runtime import torch_internals

CANNOT = "cannot run on shapes alone"


@dataclass
class MetaModel:
    """What is run in the place of a user's model.

    >>> meta = to_meta(model, channels=3, size=(224, 224))
    >>> with meta.running():
    ...     meta.model(meta.images(1, 3, (224, 224)))
    """

    model: nn.Module
    """The copy, or (`real`) the user's model itself."""
    device: torch.device
    real: str | None = None
    """Why it runs on numbers (zeros) after all."""
    creates: bool = False
    """Tensors that the model makes of nothing go to the meta device, too."""

    def images(self, count: int, channels: int, size: tuple[int, int]) -> Tensor:
        kind = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        return torch.zeros(count, channels, *size, device=self.device, dtype=kind)

    @contextmanager
    def running(self, train: bool = False) -> Iterator[None]:
        """The state of torch and of the model in which it is run; all as before afterwards."""
        fast = torch.backends.mha.get_fastpath_enabled()
        modes = [(module, module.training) for module in self.model.modules()]
        saved = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if self.real else []
        learns = [(p, p.requires_grad) for p in self.model.parameters()]
        torch.backends.mha.set_fastpath_enabled(False)  # one fused call, in which nothing can be counted
        try:
            with (
                warnings.catch_warnings(),
                torch.random.fork_rng(),
                torch.device("meta") if self.creates else nullcontext(),
            ):
                warnings.simplefilter("ignore")  # of zeros, and of gradients that nobody asked for
                for parameter, _ in learns:  # what a frozen one costs while it learns is asked, too
                    parameter.requires_grad_(parameter.is_floating_point())
                with suppress(NotImplementedError):  # an exported program has no modes
                    self.model.train(train)
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, training in modes:
                module.training = training
            for parameter, learned in learns:
                parameter.requires_grad_(learned)
            with torch.no_grad():
                for buffer, was in saved:
                    buffer.copy_(was)


def to_meta(model: nn.Module, channels: int, size: tuple[int, int]) -> MetaModel:
    """The model as it can be run: on shapes; or, where it asks for numbers, as it is.

    Raises ValueError where it takes no images of this size either way.
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
    first: Exception | None = None
    for creates in (False, True):
        try:
            meta = MetaModel(_copy(model), torch.device("meta"), creates=creates)
            with torch.no_grad(), meta.running():
                meta.model(meta.images(1, channels, size))
        except Exception as error:  # each network has its own way to ask for numbers, or to refuse a size
            first = first or error
            continue
        return meta
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    assert first is not None
    meta = MetaModel(model, device, real=f"it {CANNOT} ({type(first).__name__}: {_line(first)})")
    try:
        if device.type == "meta":
            raise first
        with torch.no_grad(), meta.running():
            meta.model(meta.images(1, channels, size))
    except Exception as error:
        raise ValueError(
            f"inspect({type(model).__name__}, size={size[0]}×{size[1]}, channels={channels}): it does not take such "
            f"images ({type(error).__name__}: {_line(error)}); give the size and channels that it takes"
        ) from error
    return meta


def _copy(model: nn.Module) -> nn.Module:
    """The same modules around tensors that have shapes and no numbers."""
    memo: dict[int, Any] = {}
    plain = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    for tensor in chain(model.parameters(), model.buffers(), plain):
        shaped = torch.empty_like(tensor, device="meta", requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            shaped = nn.Parameter(shaped, requires_grad=False)
        memo[id(tensor)] = shaped
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        for hooks in torch_internals.hooks(module):
            for key in [key for key, hook in hooks.items() if _is_users(hook)]:
                del hooks[key]
    return copied


def _is_users(hook: Any) -> bool:
    """A function is not copied: it would be told of shapes, dozens of times. Methods are, with what they belong to,
    and torch's own hooks (pruning, spectral norm) compute weights.
    """
    while isinstance(hook, functools.partial):
        hook = hook.func
    return isinstance(hook, FunctionType) and not hook.__module__.startswith("torch.")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]
