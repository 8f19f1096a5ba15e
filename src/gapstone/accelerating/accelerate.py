"""`accelerate` and `accelerated`: every module of a network, changed or left, with the reason."""

import copy
import gc
import logging
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from gapstone.accelerating.namespaces import POOLS, TORCH_POOLS, pool_of
from gapstone.accelerating.rebound_classes import accelerated_class, calls_of, install, left_in, original
from gapstone.console.formatting import cell, count_noun

M = TypeVar("M", bound=nn.Module)

LOG = logging.getLogger("gapstone")

STAYS = {
    nn.FractionalMaxPool2d: "its windows are random",
    nn.FractionalMaxPool3d: "its windows are random",
    nn.LPPool1d: "torch's formula differs from gapstone's lp where sums are negative",
    nn.LPPool2d: "torch's formula differs from gapstone's lp where sums are negative",
    nn.LPPool3d: "torch's formula differs from gapstone's lp where sums are negative",
    nn.MaxUnpool1d: "it is no pool",
    nn.MaxUnpool2d: "it is no pool",
    nn.MaxUnpool3d: "it is no pool",
}
MEANS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


@dataclass(frozen=True)
class AcceleratedModule:
    module: str
    """Its name in the model; "" is the model itself."""
    kind: str
    what: str
    """The calls that changed, or why it was left."""


@dataclass(frozen=True, repr=False)
class Acceleration:
    """What `accelerate` changed in a model, and what it left and why; printed, a table."""

    changed: tuple[AcceleratedModule, ...]
    left: tuple[AcceleratedModule, ...]

    def __str__(self) -> str:
        tables = [_table("changed", self.changed), _table("left", self.left)]
        return "\n".join(table for table in tables if table) or "no pools"

    def __repr__(self) -> str:
        changed = len(self.changed)
        return f"Acceleration({count_noun(changed, 'module')} changed, {len(self.left):,} left)"

    def _repr_html_(self) -> str:
        return cell(str(self))


def accelerate(model: M, inplace: bool = False, channels_last: bool = False, undo: bool = False) -> M:
    """The same network, its pools by gapstone where that is faster: layers, and calls such as `F.max_pool2d`.

    Examples:
        >>> fast = gs.accelerate(torchvision.models.resnet18())
        >>> print(gs.accelerated(fast))  # what was changed, what was left and why
        >>> model = gs.accelerate(fast, inplace=True, channels_last=True)
        >>> model = gs.accelerate(fast, inplace=True, undo=True)  # as it was

    Weights, state_dict, mode, hooks and attributes stay, and so do the answers: maxima to the bit, means to the
    rounding of the last digits. Modules get a subclass of their class (`isinstance` holds, `type(m) is nn.MaxPool2d`
    does not). deepcopy, pickle and torch.save work; a pickle needs gapstone to be opened, a state_dict does not.
    Accelerate first, then torch.compile.

    Args:
        model: any nn.Module. Calling it twice changes nothing more.
        inplace: change the model that is given; else a deep copy.
        channels_last: also `model.to(memory_format=torch.channels_last)`, where convolutions and pools of images
            are faster: the larger gain for networks of 2-d convolutions.
        undo: give back the original classes (the memory format stays).

    Returns:
        The model, or its accelerated copy.

    Raises:
        TypeError: what is no nn.Module; a model that cannot be copied.
    """
    _check("accelerate", model)
    if not inplace:
        model = _copied(model)
    for module in model.modules():
        _undo(module) if undo else _change(module)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    report = accelerated(model)
    if undo:
        gc.collect()  # classes that nothing uses any more go, and with them the names that they read
    LOG.info(
        "accelerate(%s): %d modules changed, %d left; gs.accelerated(model) lists them",
        type(model).__name__,
        len(report.changed),
        len(report.left),
    )
    return model


def accelerated(model: nn.Module) -> Acceleration:
    """What is accelerated in a model, and what is not and why.

    Examples:
        >>> report = gs.accelerated(gs.accelerate(torchvision.models.resnet18()))
        >>> [row.module for row in report.changed], [row.module for row in report.left]
        (['maxpool'], ['avgpool'])
        >>> print(report)

    Args:
        model: any nn.Module, accelerated or not.

    Returns:
        A report with `changed` and `left`, which prints as a table.
    """
    _check("accelerated", model)
    changed: list[AcceleratedModule] = []
    left: list[AcceleratedModule] = []
    for name, module in model.named_modules():
        calls, reasons = _state(module)
        kind = type(module).__name__
        changed += [AcceleratedModule(name, kind, ", ".join(calls))] if calls else []
        left += [AcceleratedModule(name, kind, reason) for reason in reasons]
    return Acceleration(tuple(changed), tuple(left))


def _check(called: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        hint = " Give the model, not its class." if isinstance(model, type) else " Give the nn.Module itself."
        raise TypeError(f"{called}({type(model).__name__}): needs an nn.Module.{hint}")


# ---- one module


def _change(module: nn.Module) -> None:
    if isinstance(module, GraphModule):
        _rename(module, POOLS)
    elif not _fixed(module) and (kind := _fast(module)[0]) and calls_of(kind):
        module.__class__ = install(kind)


def _undo(module: nn.Module) -> None:
    if isinstance(module, GraphModule):
        _rename(module, TORCH_POOLS)
    elif (kind := original(type(module))) is not type(module):
        module.__class__ = kind


def _calls(module: GraphModule, functions: dict[Any, Any]) -> list[Node]:
    """The calls of these functions in a torch.fx graph."""
    return [node for node in module.graph.nodes if node.op == "call_function" and node.target in functions]


def _rename(module: GraphModule, functions: dict[Any, Any]) -> None:
    """Calls of the functions that are keys become calls of those that are values."""
    if nodes := _calls(module, functions):
        for node in nodes:
            node.target = functions[node.target]
        module.recompile()


def _fast(module: nn.Module) -> tuple[type | None, list[str]]:
    """The class that the module may have; or why there is none."""
    try:
        return accelerated_class(type(module)), []
    except TypeError as error:  # a class may refuse to have subclasses
        return None, [f"its class cannot be changed: {error}"]


def _fixed(module: nn.Module) -> str | None:
    """Why the class cannot be changed."""
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by TorchScript: accelerate before torch.jit.script or trace"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    if getattr(module, "return_indices", False):
        return "returns indices, int64 as MaxUnpool needs them"
    if type(module) in MEANS and set(_tuple(module.output_size)) == {1}:
        return "one mean per map: torch's own is at the memory's limit"
    return None


def _tuple(size: Any) -> tuple[Any, ...]:
    return tuple(size) if isinstance(size, tuple | list) else (size,)


def _state(module: nn.Module) -> tuple[list[str], list[str]]:
    """The calls that are gapstone's, and the reasons why others are not."""
    kind = type(module)
    if isinstance(module, GraphModule):
        left = [f"{node.name}: not accelerated" for node in _calls(module, POOLS)]
        return [node.name for node in _calls(module, TORCH_POOLS)], left
    left = [reason for known, reason in STAYS.items() if isinstance(module, known)]
    left += [
        f"self.{name} is torch's {getattr(value, '__name__', value)}, held as an attribute"
        for name, value in vars(module).items()
        if name != "forward" and pool_of(value)
    ]
    if calls := calls_of(kind):
        return calls, left + left_in(kind)
    if isinstance(module, torch.jit.ScriptModule):
        return [], [*left, str(_fixed(module))] if "Pool" in module.original_name else left
    fast, refused = _fast(module)
    if fast is not None and calls_of(fast):
        left.append(_fixed(module) or "not accelerated")
    return [], left + refused + (left_in(fast) if fast else [])


def _copied(model: M) -> M:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise TypeError(
            f"accelerate({type(model).__name__}): the model cannot be copied ({error}); "
            f"change it itself with inplace=True."
        ) from error


def _table(title: str, rows: tuple[AcceleratedModule, ...]) -> str:
    if not rows:
        return ""
    cells: list[tuple[Any, ...]] = [(row.module or "(model)", row.kind, row.what) for row in rows]
    widths = [max(len(cell[i]) for cell in cells) for i in (0, 1)]
    lines = [f"  {name:{widths[0]}}  {kind:{widths[1]}}  {what}" for name, kind, what in cells]
    return "\n".join([f"{title} ({len(rows)})", *lines])
