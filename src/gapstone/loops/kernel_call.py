"""A PoolCall as the compiled loop's launchers need it: the map laid out, and what kernels are specialized for."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from gapstone.loops import memory
from gapstone.loops.memory_format import COMPUTED, is_channels_last, to_channels_last
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import Definition
from gapstone.regions.places import Intervals, Labels, Place, Windows

LANES = {torch.float32: 32, torch.float64: 16, torch.int64: 16}
"""Numbers in a vector: two AVX-512 registers. With one, each addition waits for the one before."""


@dataclass
class KernelCall:
    """A call whose map is contiguous or channels-last; `x` is None in a backward that does not read it."""

    call: PoolCall
    x: Tensor | None
    channels_last: bool

    @classmethod
    def of(cls, call: PoolCall, x: Tensor) -> "KernelCall":
        """The call on a map that is contiguous or channels-last."""
        return cls(call, x, is_channels_last(x))

    @property
    def pool(self) -> Definition:
        return self.call.pool

    @property
    def place(self) -> Place:
        return self.call.place

    @property
    def shape(self) -> tuple[int, ...]:
        return self.call.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.call.dtype

    @cached_property
    def spatial(self) -> tuple[int, ...]:
        return self.call.spatial

    @cached_property
    def rows(self) -> int:
        return self.call.rows

    @cached_property
    def cells(self) -> tuple[int, ...]:
        return self.call.cells

    @property
    def position(self) -> torch.dtype:
        """The type of saved positions."""
        return position_type(self.place)

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

    def empty(self, dtype: torch.dtype) -> Tensor:
        """A tensor of the answer's shape, in the layout that the kernel writes."""
        return memory.empty((self.rows, self.shape[1], *self.cells), dtype, self.answers_channels_last)

    def like_answers(self, answers: Tensor) -> Tensor:
        """A tensor of the answer's shape, in the layout that the kernel reads."""
        return to_channels_last(answers) if self.answers_channels_last else answers.contiguous()

    def like_x(self, dtype: torch.dtype, zeros: bool) -> Tensor:
        """A tensor of the map's shape, in its layout."""
        made = memory.empty(self.shape, dtype, self.channels_last)
        return made.zero_() if zeros else made

    def parameter(self) -> Tensor | None:
        """(1 or N, C), in the type that is computed with."""
        if not self.call.parameters:
            return None
        channels = self.shape[1]
        (given,) = self.call.parameters
        if not isinstance(given, Tensor):
            return torch.full((1, channels), given, dtype=self.computed)
        given = given.detach().to(self.computed)
        if given.dim() < 2:
            given = given.expand(1, channels)
        return given.expand(given.shape[0], channels).contiguous()


def position_type(place: Place) -> torch.dtype:
    """The type of a position's number in its cell."""
    if (
        isinstance(place, Intervals)
        and place.axes is not None
        and all(isinstance(axis, Windows) for axis in place.axes)
    ):
        taps = prod(axis.size for axis in place.axes if isinstance(axis, Windows))
        return torch.uint8 if taps <= 256 else torch.int32
    return torch.int32
