"""A network up to its last map, as it is written: its forward pass ends where the map is made."""

import inspect
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointFunction

from gapstone.swapping.adapters import TokenGrid
from gapstone.tracing.tape import Slot, leaves, replaced

NAMESPACES: dict[str, Any] = {"F": F, "torch": torch, "Tensor": Tensor}


@final
class MapReached(BaseException):
    """`Reached(map)`: the map is made. Not an Exception: the network's own `except` clauses have nothing to do with it.

    No `__init__` of its own: Dynamo traces no exception that has one.
    """

    def __str__(self) -> str:
        return "this network has a new head and ends at its map: use what swap_head returned"


@final
class Tap:
    """A hook on the module that gives the map (forward), or takes it (forward-pre)."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor | None = None) -> None:
        x = args[0] if out is None else out
        check_not_checkpointed()
        if not torch.compiler.is_exporting():
            raise MapReached(x)
        self.seen = x  # torch.export loses count of its modules where one is left by an exception


def check_not_checkpointed() -> None:
    """Raises RuntimeError where the map is made in a place that has no gradients."""
    if not torch.compiler.is_compiling() and not torch.is_grad_enabled() and _checkpointed():
        raise RuntimeError(
            "the map is made inside torch.utils.checkpoint(…, use_reentrant=True), where it has no gradient until "
            "that returns, and the new head takes it there: give it use_reentrant=False"
        )


def _checkpointed() -> bool:
    """Inside a re-entrant checkpoint, whose function runs without gradients: the body would silently not train."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not CheckpointFunction.forward.__code__:
        frame = frame.f_back
    return frame is not None


@final
class Trunk(nn.Module):
    """(N, C, H, W) → the last map (N, C, h, w) of a network whose head was cut off.

    `net` keeps its class, its names and its weights. Its forward pass begins as ever and ends where the map is made, so
    what it would do after that (auxiliary outputs, a view that fixes the size) is not done. Only while it is exported,
    the rest runs, and the graph drops it.
    """

    def __init__(self, net: nn.Module, tap: Tap, then: nn.Sequential) -> None:
        super().__init__()
        self.net, self.tap, self.then = net, tap, then

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):  # one call in a graph of torch.fx: no exception gets out of its layers
            traced: Any = x.tracer
            return traced.create_proxy("call_module", traced.path_of_module(self), (x,), {})
        for layer in self.then:
            if isinstance(layer, TokenGrid):
                layer.checked(x)
        found: Tensor = self.then(self._reached(x))
        return found

    def _reached(self, x: Tensor) -> Tensor:
        try:
            self.net(x)
        except MapReached as reached:
            found: Tensor = reached.args[0]
            return found
        seen, self.tap.seen = self.tap.seen, None
        if seen is None:
            raise RuntimeError(
                f"{type(self.net).__name__} answered without making the map that its new head stands on: its way "
                f"through its modules is not the one it went when the head was swapped"
            )
        return seen


@final
class TrunkAndHead(nn.Module):
    """Logits of a head on the features of a network that could not take it in itself."""

    def __init__(self, features: Trunk, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@final
class Replay(nn.Module):
    """A function that the network calls between its last module and its map: DenseNet's ReLU."""

    def __init__(self, where: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.where, self.name, self.args, self.kwargs = where, name, args, kwargs

    @classmethod
    def of(cls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], taken: Tensor) -> "Replay | None":
        """None for a function that cannot be named."""
        name = getattr(function, "__name__", "")
        where = next((where for where, space in NAMESPACES.items() if getattr(space, name, None) is function), None)
        held = [replaced(part, lambda one: Slot(0) if one is taken else one) for part in (args, kwargs)]
        if where is None or any(isinstance(part, Tensor) for part in leaves(held)):
            return None
        return cls(where, name, held[0], held[1])

    def forward(self, x: Tensor) -> Tensor:
        args, kwargs = (replaced(part, lambda one: x if isinstance(one, Slot) else one) for part in self._parts())
        out: Tensor = getattr(NAMESPACES[self.where], self.name)(*args, **kwargs)
        return out

    def _parts(self) -> tuple[Any, Any]:
        return self.args, self.kwargs

    def extra_repr(self) -> str:
        more = [str(part) for part in self.args[1:]] + [f"{key}={value}" for key, value in self.kwargs.items()]
        return f"{self.where}.{self.name}({', '.join(['x', *more])})"
