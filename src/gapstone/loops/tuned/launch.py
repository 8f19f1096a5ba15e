"""Starting a tuned kernel: a table of numbers, and torch's own threads. Cheap: a call on a tiny map is mostly this."""

import ctypes
from typing import Any

import torch

from gapstone.loops.threads import ALONE, gomp_parallel
from gapstone.loops.tuned import arguments as a


def table_of(given: dict[int, int], size: int = a.HOW_MANY) -> Any:
    """A kernel's arguments, for `copy`. `size`: how many the kernel knows, where it is not those of arguments.py."""
    made = (ctypes.c_int64 * size)()
    for at, value in given.items():
        made[at] = value
    return made


def copy(table: Any) -> Any:
    """A call's own table: several threads may call at once."""
    return type(table).from_buffer_copy(table)


def run(kernel: Any, table: Any, tasks: int, work: int) -> None:
    """Run a kernel that reads and writes `work` bytes. It takes its tasks from a counter: a slow thread takes fewer."""
    if tasks > 1 and work > ALONE:
        threads = min(torch.get_num_threads(), tasks)
        parallel = gomp_parallel()
        if threads > 1 and parallel is not None:
            parallel(kernel.address, ctypes.addressof(table), threads, 0)  # ctypes lets go of the GIL
            return
    kernel.call(table)
