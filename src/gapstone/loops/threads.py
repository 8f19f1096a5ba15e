"""Kernels on torch's own threads: no second pool, and torch.set_num_threads counts, call by call.

torch brings OpenMP's `GOMP_parallel` along on Linux. Numba's own parallel loops would load a second OpenMP, which ends
every forked DataLoader worker. Where torch has none (macOS, Windows), kernels run on the calling thread.
"""

from typing import Any

import numpy as np
import torch

from gapstone.loops import kernel_arguments as a
from gapstone.runtime.torch_internals import openmp

ALONE = 1 << 16  # bytes of work below which one thread is as fast: starting a second takes 3 µs


def threads_for(tasks: int, work: int) -> int:
    """How many threads to start for so many tasks, that read and write so many bytes."""
    if tasks < 2 or work < ALONE or openmp() is None:
        return 1
    return min(torch.get_num_threads(), tasks)


def run(kernel: Any, address: int, threads: int) -> None:
    """Run a kernel on its table of arguments; it takes its tasks from a counter, so a slow thread takes fewer."""
    parallel = openmp()
    if threads > 1 and parallel is not None:
        parallel(kernel.address, address, threads, 0)  # ctypes lets go of the GIL
    else:
        kernel.call(address)


def launch(kernel: Any, arguments: dict[int, int], tasks: int, work: int, scratch_bytes: int) -> None:
    """Run a kernel that reads and writes `work` bytes, with scratch for each of its threads."""
    threads = threads_for(tasks, work)
    scratch_bytes = -(-scratch_bytes // 64) * 64
    scratch = torch.empty(threads * scratch_bytes + 64, dtype=torch.uint8)
    table = np.zeros(a.HOW_MANY, np.int64)
    begin = -(-scratch.data_ptr() // 64) * 64
    arguments = {**arguments, a.TASKS: tasks, a.SCRATCH: begin, a.SCRATCH_BYTES: scratch_bytes}
    table[list(arguments)] = list(arguments.values())
    run(kernel, table.ctypes.data, threads)
