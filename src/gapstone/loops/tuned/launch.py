"""Starting a tuned kernel: a table of numbers, and torch's own threads. Cheap: a call on a tiny map is mostly this."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import threads
from gapstone.loops.kernels import Kernel
from gapstone.loops.memory import empty
from gapstone.loops.tuned import window_arguments as a


@dataclass(frozen=True, eq=False)
class LaunchPlan:
    """What is the same for every map of a shape: looked up, not made, by all calls but the first."""

    kernel: Kernel
    table: Any
    tasks: int
    work: int
    result: tuple[int, ...]
    """The shape of what is written."""
    alive: Any
    """What the table's addresses point to."""


def table_of(given: dict[int, int], size: int = a.HOW_MANY) -> Any:
    """A kernel's arguments, for `copy`. `size`: how many arguments the kernel has."""
    made = (ctypes.c_int64 * size)()
    for at, value in given.items():
        made[at] = value
    return made


def copy(table: Any) -> Any:
    """A call's own table: several threads may call at once."""
    return type(table).from_buffer_copy(table)


def run(kernel: Any, table: Any, tasks: int, work: int) -> None:
    """Run a kernel that reads and writes `work` bytes."""
    threads.run(kernel, ctypes.addressof(table), threads.threads_for(tasks, work))


def forward(
    plan_of: Callable[[bool], LaunchPlan], x: Tensor, keep: bool, out: Tensor | None, by_channels: bool
) -> tuple[Tensor, list[Tensor]]:
    """The answers over windows and, of a maximum, in a byte each where in its window it was.

    `plan_of(exact)`: first the kernel that only notices NaN; where it saw one, the kernel that minds them.
    """
    made = plan_of(False)
    if out is None:
        out = empty(made.result, x.dtype, by_channels)
    elif tuple(out.shape) != made.result or out.dtype != x.dtype or not _lies(out, by_channels):
        raise ValueError(
            f"out: a {'channels-last' if by_channels else 'contiguous'} {x.dtype} tensor of shape {made.result} is "
            f"written to, not one of {out.dtype}, shape {tuple(out.shape)} and strides {out.stride()}."
        )
    kept = [empty(made.result, torch.uint8, by_channels)] if keep else []
    if not out.numel():
        return out, kept
    while True:
        table = copy(made.table)
        table[a.X], table[a.OUT] = x.data_ptr(), out.data_ptr()
        if keep:
            table[a.KEPT] = kept[0].data_ptr()
        run(made.kernel, table, made.tasks, made.work)
        if not table[a.BAD]:
            return out, kept
        made = plan_of(True)


def _lies(out: Tensor, by_channels: bool) -> bool:
    return out.movedim(1, -1).is_contiguous() if by_channels else out.is_contiguous()
