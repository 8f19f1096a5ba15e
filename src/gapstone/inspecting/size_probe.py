"""Asking a network whether it takes a size, many times over: on shapes alone, and no further than need be."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gapstone.inspecting.dry import Dry
from gapstone.inspecting.passes import Last
from gapstone.inspecting.reach import UNCOUNTED
from gapstone.maps.tape import tensors


def takes(dry: Dry, channels: int, train: bool = False) -> Callable[[int, int], bool]:
    """(H, W) → whether the whole model takes images of this size; in training mode, two of them."""

    def works(h: int, w: int) -> bool:
        return refusal(dry, channels, (h, w), train) is None

    return works


def refusal(dry: Dry, channels: int, size: tuple[int, int], train: bool) -> str | None:
    """Why it does not take that size; None if it does."""
    try:
        with torch.no_grad(), dry.running(train), Quick(dry):
            # two: batch norm that learns refuses a single value per channel, which a 1×1 map of one image is
            out = dry.model(dry.images(2 if train else 1, channels, size))
    except Exception as error:  # each network has its own way to refuse
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    empty = [tuple(y.shape) for y in tensors(out) if not y.numel()]
    return f"it gave an empty tensor {empty[0]}" if empty else None


def cells(dry: Dry, last: Last, channels: int) -> Callable[[int, int], tuple[int, ...] | None]:
    """(H, W) → the cells of the last map, whatever the head says of them; None where the network refuses the size."""

    def of(h: int, w: int) -> tuple[int, ...] | None:
        until = Until(last)
        images = dry.images(1, channels, (h, w))
        hook = dry.model.get_submodule(last.path).register_forward_hook(until.left) if last.path else None
        try:
            # with gradients, as when the calls were numbered: what is called may depend on it
            with torch.enable_grad(), dry.running(), Quick(dry), until:
                dry.model(images)
        except LastMapReached:
            pass
        except Exception:  # each network has its own way to refuse
            return None
        finally:
            if hook is not None:
                hook.remove()
        return until.cells if until.cells and min(until.cells) > 0 else None

    return of


class LastMapReached(Exception):
    """The last map has been made."""


class Until(TorchFunctionMode):
    """Lets a forward pass run until its last map is made, since the head may refuse what the network does not."""

    def __init__(self, last: Last) -> None:
        super().__init__()
        self.last, self.count = last, 0
        self.cells: tuple[int, ...] | None = None

    def left(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self._reached(tensors(out), 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        self.count += name not in UNCOUNTED
        out = func(*args, **(kwargs or {}))
        if not self.last.path and self.count == self.last.number and name == self.last.name:
            self._reached(tensors(out), self.last.which)
        return out

    def _reached(self, made: list[Tensor], which: int) -> None:
        count = self.count
        if len(made) > which and made[which].dim() > max(self.last.axes):
            self.cells = tuple(made[which].shape[axis] for axis in self.last.axes)
            raise LastMapReached
        self.count = count  # a shape that is asked for is a call, too


class Quick(TorchFunctionMode):
    """Batch norm that only keeps the shape: on shapes alone torch takes it apart in Python, 6 of 7 parts of the time of
    a ResNet's forward pass. In training it is left as it is, since it may refuse what it is given.
    """

    def __init__(self, dry: Dry) -> None:
        super().__init__()
        self.real = dry.real is not None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.batch_norm and not self.real:
            training = args[5] if len(args) > 5 else kwargs.get("training", False)
            x = args[0] if args else kwargs["input"]
            if not training:
                return torch.empty_like(x)
        return func(*args, **kwargs)
