"""PoolCall: one call of a pool, as every loop is given it; and Loop: what every loop answers."""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gapstone.loops.memory_format import is_channels_last
from gapstone.pools import Definition
from gapstone.regions.places import Intervals, Labels, Place, PositionWeights, Rectangles

Parameters = tuple[Tensor | float, ...]
Layout = Literal["contiguous", "channels_last", "strided"]
LoopName = Literal["native", "tuned", "compiled", "reference"]


class PoolCall(NamedTuple):  # a tuple is made and hashed in C: one is made for every call
    """All that a loop needs besides the numbers of the map. Arguments are checked, parameters are in their range."""

    pool: Definition
    place: Place
    shape: tuple[int, ...]
    """Of the map: (N, C, *spatial)."""
    dtype: torch.dtype
    device: str
    """The type of the device: "cpu"."""
    layout: Layout
    parameters: Parameters = ()
    requires_grad: bool = False
    """A gradient will be asked for: the loop saves what its backward needs."""

    @classmethod
    def of(
        cls, pool: Definition, x: Tensor, place: Place, parameters: Parameters = (), requires_grad: bool = False
    ) -> "PoolCall":
        """The call of this pool on the map `x`."""
        return cls(pool, place, x.shape, x.dtype, x.device.type, _layout(x), parameters, requires_grad)

    @classmethod
    def for_reference(cls, pool: Definition, x: Tensor, place: Place, parameters: Parameters = ()) -> "PoolCall":
        """The same for what asks for no layout; inside torch.vmap nobody can say it."""
        return cls(pool, place, x.shape, x.dtype, x.device.type, "strided", parameters)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.pool.name

    @property
    def spatial(self) -> tuple[int, ...]:
        """The sizes of the map's spatial axes."""
        return tuple(self.shape[2:])

    @property
    def numel(self) -> int:
        """How many numbers the map has."""
        return prod(self.shape)

    @property
    def is_floating_point(self) -> bool:
        """Whether the map's dtype is floating point."""
        return self.dtype.is_floating_point

    @property
    def channels_last(self) -> bool:
        """Whether the channels of a position lie side by side."""
        return self.layout == "channels_last"

    @property
    def over_whole_map(self) -> bool:
        """Whether all positions of the map belong to one answer."""
        return isinstance(self.place, Intervals) and self.place.axes is None

    @property
    def without_cells(self) -> bool:
        """Whether the answer is (N, C), without an axis for cells or labels."""
        return self.over_whole_map or isinstance(self.place, PositionWeights) or self._one_label

    @property
    def _one_label(self) -> bool:
        return isinstance(self.place, Labels) and self.place.whole

    @property
    def rows(self) -> int:
        """The length of the answer's first axis: images, or rectangles."""
        return self.place.images.shape[0] if isinstance(self.place, Rectangles) else self.shape[0]

    @property
    def cells(self) -> tuple[int, ...]:
        """The answer's axes after (N, C)."""
        place = self.place
        if isinstance(place, Rectangles):
            return tuple(starts.shape[1] for starts in place.starts)
        if isinstance(place, Labels) and not place.whole:
            return (place.count,)
        if isinstance(place, Intervals) and place.axes is not None:
            return tuple(axis.cells for axis in place.axes)
        return ()

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """(N, C, *cells)."""
        return (self.rows, self.shape[1], *self.cells)

    @property
    def learned(self) -> bool:
        """Whether a gradient of a parameter will be asked for."""
        return any(isinstance(value, Tensor) and value.requires_grad for value in self.parameters)

    def key(self) -> "PoolCall":
        """The call without the numbers in its tensors: equal for calls that need the same kernels."""
        place, parameters = self.place, self.parameters
        if isinstance(place, Intervals) and not any(isinstance(value, Tensor) for value in parameters):
            return self
        kinds: tuple[object, ...] = tuple(
            (value.dim(), value.requires_grad) if isinstance(value, Tensor) else value for value in parameters
        )
        where = place if isinstance(place, Intervals) else type(place)
        return self._replace(place=where, parameters=kinds)  # type: ignore[arg-type]


def _layout(x: Tensor) -> Layout:
    if x.is_contiguous():
        return "contiguous"
    return "channels_last" if is_channels_last(x) else "strided"


Gradients = tuple[Tensor | None, Tensor | None]
"""d answer / d x and, per image and channel, d answer / d parameter; both times the gradient of the answer."""


class Loop(Protocol):
    """What a module must offer to run pools: reference.py, compiled.py, tuned/dispatch.py."""

    def forward(self, call: PoolCall, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The answers, and what the backward needs besides x and the answers (`call.requires_grad`)."""
        ...

    def backward(
        self, call: PoolCall, grad: Tensor, x: Tensor | None, out: Tensor | None, saved: Sequence[Tensor], slope: bool
    ) -> Gradients:
        """The gradients; x and out are given where `needs` asks for them. `slope`: of the parameter, too."""
        ...

    def needs(self, call: PoolCall, slope: bool) -> tuple[bool, bool]:
        """Whether the backward reads x, and the answers."""
        ...

    def saved_types(self, call: PoolCall) -> list[torch.dtype]:
        """The types of the saved tensors; each has the answer's shape."""
        ...


class KernelLoop(Loop, Protocol):
    """A loop that has kernels, which save something for the backward: compiled.py, tuned/dispatch.py."""

    def positions(self, call: PoolCall, saved: Tensor) -> Tensor:
        """For each answer the position on the flattened map that a saved number stands for."""
        ...

    def kernels(self, call: PoolCall, x: Tensor) -> Iterator[Callable[[], object]]:
        """Functions that each ask for one of the kernels of a call and of its gradient."""
        ...
