"""Which windows have tuned kernels: those that networks run.

Each has a kernel of its own, which takes a second to compile; for all others the derived loop has one. Asked on every
call, so nothing heavy is imported here, and nothing is done that torch.compile cannot trace.
"""

import torch

from gapstone.regions.places import Windows

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
BYTES = (torch.uint8, torch.int8)
LARGEST = 13
"""Positions along a side: the rows of a window stay in registers."""
MOST_TAPS = 256
"""A position is kept in one byte."""
BYTE_LANES = 64
"""Bytes in a register. Fewer channels than that are loaded under a mask, which only AVX-512 has for bytes: without it
each byte is loaded by a branch of its own (20 s to compile, and half as fast as the derived loop)."""
MASKED_BYTES = torch.backends.cpu.get_cpu_capability() == "AVX512"
ONE = Windows(1, 1, 1, 0, 0, 1)
Axes = tuple[Windows, ...]


def fits(name: str, dtype: torch.dtype, axes: Axes, keep: bool = False) -> bool:
    """A square window of stride 1 or 2 without dilation; or one along some of the axes only."""
    if dtype not in FLOATS and (name != "max" or dtype not in BYTES or len(axes) == 3):
        return False
    size, stride, taps = 1, 1, 1
    for axis in axes:
        taps *= axis.size
        if axis.step != 1 or axis.size > LARGEST or axis.stride > 2:
            return False
        if (axis.size, axis.stride) == (1, 1):
            continue
        if (size, stride) != (1, 1) and (axis.size, axis.stride) != (size, stride):
            return False
        size, stride = axis.size, axis.stride
    return (size, stride) != (1, 1) and not (keep and name == "max" and taps > MOST_TAPS)


def three(axes: Axes) -> tuple[Windows, Windows, Windows]:
    deep, high, wide = (ONE,) * (3 - len(axes)) + axes
    return deep, high, wide
