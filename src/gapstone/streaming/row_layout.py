"""Where the rows and columns of the image stand in a tensor, and how a recorded call is played band by band."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gapstone.tracing.operations import Operation
from gapstone.tracing.tape import Slot, leaves


class StreamError(ValueError):
    """A network, or an image, that cannot be streamed; says which layer, why, and what to do."""


@dataclass(frozen=True)
class RowLayout:
    """Dimensions of a tensor that are rows and columns of the image; the same one where they lie in one (tokens)."""

    rows: int
    columns: int
    width: int = 1
    """Positions of a row in the dimension of rows: more than one where columns lie in it, too."""

    @property
    def folded(self) -> bool:
        return self.rows == self.columns

    def at(self, axes: Iterable[int]) -> "RowLayout":
        """The same in other dimensions."""
        rows, columns = axes
        return RowLayout(rows, columns, self.width)

    @property
    def axes(self) -> tuple[int, int]:
        return self.rows, self.columns

    def from_end(self, rank: int) -> tuple[int, int]:
        """The same, counted from the last dimension: what is added to each other must agree in it."""
        return rank - self.rows, rank - self.columns

    def are_last(self, rank: int) -> bool:
        return self.axes == (rank - 2, rank - 1)


class Played(Enum):
    """How a call is played."""

    ONCE = "it has nothing of a position: once, when its inputs are known"
    ROWS = "each row by itself"
    SHAPED = "each row by itself; the size that the call names is the band's"
    WINDOW = "windows over neighbouring rows"
    POOL = "all positions become one number each"
    NORM = "each position by a mean and a variance of all"


@dataclass(frozen=True)
class RowPlace:
    """What a rule says of a call: how it is played, and the layout of what it gives (None: nothing of a position)."""

    played: Played
    layout: RowLayout | None


@dataclass(frozen=True, eq=False)
class RowCall:
    """A call of the recorded pass; tensors of the pass are slots in its arguments."""

    number: int
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operation: Operation
    module: str
    """The layer in which it was made, as an error names it."""
    played: Played
    slots: tuple[int, ...]
    """Of the tensors it gave."""
    maps: tuple[int, ...]
    """Slots of its inputs that have rows."""

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(x.number for x in leaves((self.args, self.kwargs)) if isinstance(x, Slot)))


@dataclass(frozen=True)
class SlotFacts:
    """A tensor of the recorded pass."""

    shape: torch.Size
    dtype: torch.dtype
    layout: RowLayout | None
    level: int
    """How many passes must have gone before it is known."""

    @property
    def rows(self) -> int:
        assert self.layout is not None
        return self.shape[self.layout.rows]


@dataclass(frozen=True)
class GivenCall:
    """What a rule is asked about: a call as it was made."""

    operation: Operation
    args: Sequence[Any]
    kwargs: dict[str, Any]
    maps: Sequence[tuple[Tensor, RowLayout]]
    """Inputs with rows."""
    others: Sequence[Tensor]
    """Inputs without."""
    outs: Sequence[Tensor]

    @property
    def x(self) -> Tensor:
        return self.maps[0][0]

    @property
    def layout(self) -> RowLayout:
        return self.maps[0][1]

    @property
    def out(self) -> Tensor:
        return self.outs[0]
