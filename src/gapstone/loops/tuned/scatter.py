"""Large windows of contiguous maps, backward: every answer's gradient goes where its maximum was, one by one.

dx[position] += g. With 169 taps, comparing all of them with a position kept (rows_back.py) takes 2x this.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gapstone.loops import vector_memory, vectors
from gapstone.loops.kernel_code import bound
from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None


@dataclass(frozen=True)
class Scatter:
    """All that a kernel of scatter.py is compiled for."""

    op: str = "max"
    paired: bool = False

    lanes = 16

    def bind(self, tag: str) -> Any:
        words: Any = ModuleType("k")
        words.read, words.write = vector_memory.reader("f32", "f32", 0), vector_memory.writer("f32")
        words.read_byte = vector_memory.reader("u8", "i32", 0)
        words.full, _ = vectors.lanes_of("f32", self.lanes)
        return bound(scatter_backward, {**globals(), "k": words}, f"scatter_backward_{tag}")


def scatter_backward(args: Any) -> None:
    wide, high, width = number(args, a.OW), number(args, a.OH), number(args, a.W)
    down, right = number(args, a.STRIDE_H) * width * 4, number(args, a.STRIDE_W) * 4
    plane_bytes, answers = number(args, a.PLANE_BYTES), wide * high
    taps = number(args, a.CLASSES)
    zeros, zero = k.full(0), np.float32(0)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        dx = number(args, a.DX) + task * plane_bytes
        grad, kept = number(args, a.GRAD) + task * answers * 4, number(args, a.KEPT) + task * answers
        end = dx + plane_bytes
        at = dx
        while at + 64 <= end:
            k.write(at, zeros)
            at += 64
        while at < end:
            k.write(at, zero)
            at += 4
        row = dx - (number(args, a.BEFORE_H) * width + number(args, a.BEFORE_W)) * 4
        for _ in range(high):
            corner = row
            for _ in range(wide):
                at = corner + number(taps, k.read_byte(kept))
                if at >= dx and at < end:  # whatever was kept, nothing outside is written
                    k.write(at, k.read(at) + k.read(grad))
                corner += right
                kept += 1
                grad += 4
            row += down
        task = take(args + 8 * a.NEXT)
