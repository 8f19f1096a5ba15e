"""Large windows of channels-last maps, backward: every answer's gradient goes where its maximum was, one by one.

dx[position] += g. With 81 taps, comparing all of them with a position kept (pixels_back.py) takes 2x this.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gapstone.loops import vector_memory
from gapstone.loops.kernel_code import bound
from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None


@dataclass(frozen=True)
class PixelScatter:
    """All that a kernel of this file is compiled for."""

    op: str = "max"

    def bind(self, tag: str) -> Any:
        words: Any = ModuleType("k")
        words.read, words.write = vector_memory.reader("f32", "f32", 0), vector_memory.writer("f32")
        words.read_byte = vector_memory.reader("u8", "i32", 0)
        return bound(pixel_scatter, {**globals(), "k": words}, f"pixel_scatter_{tag}")


def pixel_scatter(args: Any) -> None:
    wide, high, width, height = number(args, a.OW), number(args, a.OH), number(args, a.W), number(args, a.H)
    channels, blocks, taps = number(args, a.CHANNELS), number(args, a.BANDS), number(args, a.CLASSES)
    down, right = number(args, a.STRIDE_H) * width * channels * 4, number(args, a.STRIDE_W) * channels * 4
    zero = np.float32(0)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        image, block = task // blocks, task % blocks
        first = block * channels // blocks
        several = (block + 1) * channels // blocks - first
        dx = number(args, a.DX) + image * number(args, a.PLANE_BYTES)
        end = dx + number(args, a.PLANE_BYTES)
        for pixel in range(height * width):
            for c in range(first, first + several):
                k.write(dx + (pixel * channels + c) * 4, zero)
        row = dx - (number(args, a.BEFORE_H) * width + number(args, a.BEFORE_W)) * channels * 4
        at = image * high * wide * channels
        for _ in range(high):
            corner = row
            for _ in range(wide):
                grad, kept = number(args, a.GRAD) + (at + first) * 4, number(args, a.KEPT) + at + first
                for c in range(several):
                    to = corner + number(taps, k.read_byte(kept + c)) + (first + c) * 4
                    if to >= dx and to < end:  # whatever was kept, nothing outside is written
                        k.write(to, k.read(to) + k.read(grad + c * 4))
                corner += right
                at += channels
            row += down
        task = take(args + 8 * a.NEXT)
