"""Tries whether a network takes an image size, on shapes alone and no further than necessary."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.inspecting.forward_passes import MapPosition
from gapstone.inspecting.meta_model import MetaModel
from gapstone.nets.on_meta import batch_norms_alone
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer


def takes(meta: MetaModel, channels: int, train: bool = False) -> Callable[[int, int], bool]:
    """Return a function (H, W) → whether the model takes an image of this size, or two in training mode."""

    def takes_size(h: int, w: int) -> bool:
        return refusal_reason(meta, channels, (h, w), train) is None

    return takes_size


def refusal_reason(meta: MetaModel, channels: int, size: tuple[int, int], train: bool) -> str | None:
    """Return why the model does not take that size; None if it does."""
    try:
        with torch.no_grad(), meta.running(train), _simple_batch_norms(meta, train):
            # two images: in training, batch norm refuses a single value per channel (a 1×1 map of one image)
            out = meta.model(meta.images(2 if train else 1, channels, size))
    except Exception as error:  # networks refuse sizes with different errors
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    empty = [tuple(y.shape) for y in tensors(out) if not y.numel()]
    return f"it gave an empty tensor {empty[0]}" if empty else None


def last_map_cells(
    meta: MetaModel, position: MapPosition, channels: int
) -> Callable[[int, int], tuple[int, ...] | None]:
    """Return a function (H, W) → size of the last map, without its head; None if the network refuses the image size."""

    def cells_of_size(h: int, w: int) -> tuple[int, ...] | None:
        runner = RunToLastMap(position)
        images = meta.images(1, channels, (h, w))
        hook = meta.model.get_submodule(position.path).register_forward_hook(runner.on_exit) if position.path else None
        try:
            # with gradients, as when the calls were numbered: the calls may depend on that
            with torch.enable_grad(), meta.running(), _simple_batch_norms(meta), runner:
                meta.model(images)
        except LastMapReached:
            pass
        except Exception:  # networks refuse sizes with different errors
            return None
        finally:
            if hook is not None:
                hook.remove()
        return runner.cells if runner.cells and min(runner.cells) > 0 else None

    return cells_of_size


def _simple_batch_norms(meta: MetaModel, train: bool = False) -> AbstractContextManager[object]:
    """Skip batch norms (much faster), except in training, where they may refuse an input."""
    return nullcontext() if train or meta.real else batch_norms_alone()


class LastMapReached(Exception):
    """Ends a forward pass when the last map is made."""


class RunToLastMap(Tracer):
    """Ends a forward pass at its last map: the head may refuse sizes that the rest of the network takes."""

    def __init__(self, position: MapPosition) -> None:
        super().__init__()
        self.position, self.count = position, 0
        self.cells: tuple[int, ...] | None = None

    def on_exit(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self._check_reached(tensors(out), 0)

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        name = name_of(func)
        self.count += not isinstance(read_call(name, args, kwargs), ops.Query)
        out = func(*args, **kwargs)
        if not self.position.path and self.count == self.position.call_number and name == self.position.name:
            self._check_reached(tensors(out), self.position.output_index)
        return out

    def _check_reached(self, outputs: list[Tensor], output_index: int) -> None:
        count = self.count
        if len(outputs) > output_index and outputs[output_index].dim() > max(self.position.axes):
            self.cells = tuple(outputs[output_index].shape[axis] for axis in self.position.axes)
            raise LastMapReached
        self.count = count  # reading shapes above counted as calls
