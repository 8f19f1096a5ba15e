"""How maps and answers lie in memory: contiguous, or channels-last; and the types of their numbers."""

import torch
from torch import Tensor

from gapstone.loops import memory

STORAGE = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
COMPUTED = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float64: torch.float64,
}
"""The type that the numbers of a map are computed with; int64 for all others."""

VECTOR_BYTES = 128
"""Of a vector in compiled loops: two AVX-512 registers. With one, each addition waits for the one before."""


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a position lie side by side: torch's memory format, and a transposed (N, L, C)."""
    if x.is_contiguous():
        return False
    if x.dim() in memory.FORMATS:  # in a fifth of the time of the general test
        return x.is_contiguous(memory_format=memory.FORMATS[x.dim()])
    return x.movedim(1, -1).is_contiguous()


def arranged(x: Tensor) -> Tensor:
    """x as it is, contiguous or channels-last; other strides are copied to the nearer of the two."""
    if x.is_contiguous() or is_channels_last(x):
        return x
    if x.stride(1) < min(x.stride()[2:]):
        return to_channels_last(x)
    return x.contiguous()


def settled(x: Tensor) -> Tensor:
    """As `arranged`, where positions are saved: what they stand for depends on the layout, and the backward is told
    only whether x itself was channels-last.
    """
    return x if is_channels_last(x) else x.contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """The same numbers, channels last in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def laid_out(out: Tensor, channels_last: bool) -> Tensor:
    """An answer or a gradient in the layout of the map it belongs to."""
    if not channels_last or out.dim() < 3:
        return out.contiguous()
    if out.dim() in memory.FORMATS:
        return out.contiguous(memory_format=memory.FORMATS[out.dim()])
    return to_channels_last(out)
