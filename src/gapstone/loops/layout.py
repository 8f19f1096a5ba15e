"""How maps and answers lie in memory, and one call's facts in one value."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gapstone.loops import memory
from gapstone.pools import Definition
from gapstone.regions.places import Labels, Place

Parameters = tuple[Tensor | float, ...]

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
BYTES = {"f32": 4, "f64": 8, "i64": 8}
LANES = {torch.float32: 32, torch.float64: 16, torch.int64: 16}
"""Numbers in a vector: two AVX-512 registers. One leaves the arithmetic waiting for the one before."""


def is_channels_last(x: Tensor) -> bool:
    """Channels of a position side by side: torch's memory format, and a transposed (N, L, C)."""
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
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.contiguous()


def settled(x: Tensor) -> Tensor:
    """As `arranged`, where positions are kept: what they stand for depends on the layout, and the backward is told only
    whether x itself was channels-last.
    """
    return x if is_channels_last(x) else x.contiguous()


@dataclass
class Call:
    name: str
    pool: Definition
    x: Tensor | None
    shape: tuple[int, ...]
    spatial: tuple[int, ...]
    dtype: torch.dtype
    place: Place
    parameters: Parameters
    rows: int
    """Answers along the first axis: images, or rectangles."""
    cells: tuple[int, ...]
    position: torch.dtype
    channels_last: bool = field(init=False)

    def __post_init__(self) -> None:
        self.channels_last = self.x is not None and is_channels_last(self.x)

    @property
    def computed(self) -> torch.dtype:
        return COMPUTED.get(self.dtype, torch.int64)

    @property
    def lanes(self) -> int:
        return LANES[self.computed]

    @property
    def size(self) -> int:
        return self.computed.itemsize

    @property
    def answers_channels_last(self) -> bool:
        return self.channels_last and len(self.cells) > 0 and not isinstance(self.place, Labels)

    def is_channels_last(self, answers: Tensor) -> bool:
        return bool(self.cells) and not isinstance(self.place, Labels) and is_channels_last(answers)

    def empty(self, cells: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return memory.empty((self.rows, self.shape[1], *cells), dtype, self.answers_channels_last)

    def like_answers(self, answers: Tensor) -> Tensor:
        """In the layout that the kernel's answers have."""
        if self.answers_channels_last:
            return answers.movedim(1, -1).contiguous().movedim(-1, 1)
        return answers.contiguous()

    def like_x(self, dtype: torch.dtype, zeros: bool) -> Tensor:
        made = memory.empty(self.shape, dtype, self.channels_last)
        return made.zero_() if zeros else made

    def parameter(self) -> Tensor | None:
        """(1 or N, C), in the type that is computed with."""
        if not self.parameters:
            return None
        channels = self.shape[1]
        (given,) = self.parameters
        if not isinstance(given, Tensor):
            return torch.full((1, channels), given, dtype=self.computed)
        given = given.detach().to(self.computed)
        if given.dim() < 2:
            given = given.expand(1, channels)
        return given.expand(given.shape[0], channels).contiguous()
