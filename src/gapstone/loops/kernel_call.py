"""A PoolCall as the compiled loop's launchers need it: the map laid out, and what kernels are specialized for."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gapstone.loops import memory
from gapstone.loops.memory_format import COMPUTED, VECTOR_BYTES, is_channels_last, to_channels_last
from gapstone.loops.pool_call import PoolCall
from gapstone.regions.places import Intervals, Labels, Place, Windows


class KernelCall(PoolCall):
    """A call whose map is contiguous or channels-last."""

    @classmethod
    def on(cls, call: PoolCall, x: Tensor) -> "KernelCall":
        """The call on a map that is contiguous or channels-last."""
        return cls._make(call._replace(layout="channels_last" if is_channels_last(x) else "contiguous"))

    @property
    def computed(self) -> torch.dtype:
        return COMPUTED.get(self.dtype, torch.int64)

    @property
    def size(self) -> int:
        """Bytes of a number as it is computed with."""
        return self.computed.itemsize

    @property
    def lanes(self) -> int:
        return VECTOR_BYTES // self.size

    @property
    def answers_channels_last(self) -> bool:
        return self.channels_last and len(self.cells) > 0 and not isinstance(self.place, Labels)

    def empty(self, dtype: torch.dtype) -> Tensor:
        """A tensor of the answer's shape, in the layout that the kernel writes."""
        return memory.empty(self.answer_shape, dtype, self.answers_channels_last)

    def like_answers(self, answers: Tensor) -> Tensor:
        """A tensor of the answer's shape, in the layout that the kernel reads."""
        return to_channels_last(answers) if self.answers_channels_last else answers.contiguous()

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


class KernelWork(NamedTuple):
    """A call as it is cut into tasks."""

    arguments: dict[int, int]
    tasks: int
    scratch: int
    """Bytes that a thread needs."""
    alive: Any
    """What the arguments' addresses point to."""


def position_type(place: Place) -> torch.dtype:
    """The type of a position's number in its cell."""
    if isinstance(place, Intervals) and place.axes is not None:
        sizes = [axis.size for axis in place.axes if isinstance(axis, Windows)]
        if len(sizes) == len(place.axes) and prod(sizes) <= 256:
            return torch.uint8
    return torch.int32
