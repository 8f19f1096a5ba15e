"""Runs a network up to its last map: its own forward pass is ended by an exception where the map is made."""

import inspect
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointFunction

from gapstone.cutting.adapters import TokenGrid
from gapstone.tracing.provenance import UnaryCall
from gapstone.tracing.tape import Slot, leaves, replaced

NAMESPACES: dict[str, Any] = {"F": F, "torch": torch, "Tensor": Tensor}


@final
class MapReached(BaseException):
    """Raised as `MapReached(map)` when the map is made. Not an Exception, so that the network's `except` ignores it.

    It has no `__init__`: Dynamo cannot trace exceptions that define one.
    """

    def __str__(self) -> str:
        return "this network has a new head and ends at its map: use what swap_head returned"


@final
class Tap:
    """A hook on the module that returns the map (forward hook) or takes it (forward pre-hook)."""

    def __init__(self) -> None:
        self.map: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor | None = None) -> None:
        x = args[0] if out is None else out
        check_not_checkpointed()
        if not torch.compiler.is_exporting():
            raise MapReached(x)
        self.map = x  # torch.export loses track of modules that are left by an exception


def check_not_checkpointed() -> None:
    """Raise RuntimeError if the map is made inside a re-entrant checkpoint, where it has no gradient."""
    if not torch.compiler.is_compiling() and not torch.is_grad_enabled() and _checkpointed():
        raise RuntimeError(
            "the map is made inside torch.utils.checkpoint(…, use_reentrant=True), where it has no gradient until "
            "that returns, and the new head takes it there: give it use_reentrant=False"
        )


def _checkpointed() -> bool:
    """Tell whether this runs in a re-entrant checkpoint: without gradients, the backbone would silently not train."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not CheckpointFunction.forward.__code__:
        frame = frame.f_back
    return frame is not None


@final
class Trunk(nn.Module):
    """(N, C, H, W) → the last map (N, C, h, w) of a network whose head was removed.

    `net` keeps its class, its names and its weights. Its forward pass ends where the map is made, so that later code
    (auxiliary outputs, a view that fixes the size) does not run. Only during an export does the rest run; the graph
    then drops it.
    """

    def __init__(self, net: nn.Module, tap: Tap, then: nn.Sequential) -> None:
        super().__init__()
        self.net, self.tap, self.then = net, tap, then

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):  # one call_module node: torch.fx cannot trace the exception
            traced: Any = x.tracer
            return traced.create_proxy("call_module", traced.path_of_module(self), (x,), {})
        for layer in self.then:
            if isinstance(layer, TokenGrid):
                layer.checked(x)
        features: Tensor = self.then(self._run_to_map(x))
        return features

    def _run_to_map(self, x: Tensor) -> Tensor:
        try:
            self.net(x)
        except MapReached as reached:
            tapped: Tensor = reached.args[0]
            return tapped
        map, self.tap.map = self.tap.map, None
        if map is None:
            raise RuntimeError(
                f"{type(self.net).__name__} answered without making the map that its new head stands on: its way "
                f"through its modules is not the one it went when the head was swapped"
            )
        return map


@final
class TrunkAndHead(nn.Module):
    """A trunk and a head, for networks that the head cannot be put into."""

    def __init__(self, features: Trunk, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@final
class Replay(nn.Module):
    """Repeats a function that the network calls between its last module and its map, such as DenseNet's ReLU."""

    def __init__(self, where: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.where, self.name, self.args, self.kwargs = where, name, args, kwargs

    @classmethod
    def of(cls, call: UnaryCall) -> "Replay | None":
        """Return the call as a module; None for a function without a public name, or one that takes other tensors."""
        name = getattr(call.function, "__name__", "")
        where = next((key for key, space in NAMESPACES.items() if getattr(space, name, None) is call.function), None)
        args, kwargs = replaced((call.args, call.kwargs), lambda value: Slot(0) if value is call.taken else value)
        if where is None or any(isinstance(part, Tensor) for part in leaves((args, kwargs))):
            return None
        return cls(where, name, args, kwargs)

    def forward(self, x: Tensor) -> Tensor:
        args, kwargs = replaced((self.args, self.kwargs), lambda value: x if isinstance(value, Slot) else value)
        out: Tensor = getattr(NAMESPACES[self.where], self.name)(*args, **kwargs)
        return out

    def extra_repr(self) -> str:
        more = [str(part) for part in self.args[1:]] + [f"{key}={value}" for key, value in self.kwargs.items()]
        return f"{self.where}.{self.name}({', '.join(['x', *more])})"
