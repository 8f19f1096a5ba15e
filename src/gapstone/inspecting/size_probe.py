"""Asking a network whether it takes a size, many times over: on shapes alone, and no further than need be."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.inspecting.forward_passes import Last
from gapstone.inspecting.meta_model import MetaModel
from gapstone.nets.on_meta import batch_norms_alone
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer


def takes(meta: MetaModel, channels: int, train: bool = False) -> Callable[[int, int], bool]:
    """(H, W) → whether the whole model takes images of this size; in training mode, two of them."""

    def works(h: int, w: int) -> bool:
        return refusal(meta, channels, (h, w), train) is None

    return works


def refusal(meta: MetaModel, channels: int, size: tuple[int, int], train: bool) -> str | None:
    """Why it does not take that size; None if it does."""
    try:
        with torch.no_grad(), meta.running(train), _quick(meta, train):
            # two: batch norm that learns refuses a single value per channel, which a 1×1 map of one image is
            out = meta.model(meta.images(2 if train else 1, channels, size))
    except Exception as error:  # each network has its own way to refuse
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    empty = [tuple(y.shape) for y in tensors(out) if not y.numel()]
    return f"it gave an empty tensor {empty[0]}" if empty else None


def cells(meta: MetaModel, last: Last, channels: int) -> Callable[[int, int], tuple[int, ...] | None]:
    """(H, W) → the cells of the last map, whatever the head says of them; None where the network refuses the size."""

    def of(h: int, w: int) -> tuple[int, ...] | None:
        until = Until(last)
        images = meta.images(1, channels, (h, w))
        hook = meta.model.get_submodule(last.path).register_forward_hook(until.left) if last.path else None
        try:
            # with gradients, as when the calls were numbered: what is called may depend on it
            with torch.enable_grad(), meta.running(), _quick(meta), until:
                meta.model(images)
        except LastMapReached:
            pass
        except Exception:  # each network has its own way to refuse
            return None
        finally:
            if hook is not None:
                hook.remove()
        return until.cells if until.cells and min(until.cells) > 0 else None

    return of


def _quick(meta: MetaModel, train: bool = False) -> AbstractContextManager[object]:
    """In training, batch norm is left as it is, since it may refuse what it is given."""
    return nullcontext() if train or meta.real else batch_norms_alone()


class LastMapReached(Exception):
    """The last map has been made."""


class Until(Tracer):
    """Lets a forward pass run until its last map is made, since the head may refuse what the network does not."""

    def __init__(self, last: Last) -> None:
        super().__init__()
        self.last, self.count = last, 0
        self.cells: tuple[int, ...] | None = None

    def left(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self._reached(tensors(out), 0)

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        name = name_of(func)
        self.count += not isinstance(read_call(name, args, kwargs), ops.Query)
        out = func(*args, **kwargs)
        if not self.last.path and self.count == self.last.number and name == self.last.name:
            self._reached(tensors(out), self.last.which)
        return out

    def _reached(self, made: list[Tensor], which: int) -> None:
        count = self.count
        if len(made) > which and made[which].dim() > max(self.last.axes):
            self.cells = tuple(made[which].shape[axis] for axis in self.last.axes)
            raise LastMapReached
        self.count = count  # a shape that is asked for is a call, too
