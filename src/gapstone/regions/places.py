"""What every region becomes: boxes that are products of intervals, a list of rectangles, or a label per position."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

Divisor = Literal["positions", "padded", "window"] | int


class Windows(NamedTuple):  # a tuple is hashed in C: plans are looked up by it, on every call
    """Intervals that slide along an axis: cell i has the positions i stride - before + t step, t < size, on the map."""

    cells: int
    size: int
    stride: int
    before: int
    after: int
    step: int

    def spans(self, length: int) -> tuple[list[int], list[int]]:
        """Per cell where it begins and where it ends, on the map or beyond; both ascending."""
        starts = [i * self.stride - self.before for i in range(self.cells)]
        return starts, [s + (self.size - 1) * self.step + 1 for s in starts]

    def bounds(self, length: int) -> tuple[list[int], list[int]]:
        """Per cell the first position on the map and the end; an end that is no larger than the first: no position."""
        starts, stops = self.spans(length)
        # dilated windows that begin before the map meet it one after the other, not in ascending order
        return [s if s >= 0 else s + -(s // self.step) * self.step for s in starts], [min(s, length) for s in stops]

    def padded(self, length: int) -> list[int]:
        """Per cell how many of its places lie on the map or its padding (not in what hangs over beyond)."""
        ends = [length + self.after + self.before - i * self.stride for i in range(self.cells)]
        return [min(self.size, -(-end // self.step)) for end in ends]

    @property
    def most(self) -> int:
        """Positions in the largest cell."""
        return self.size


class Cells(NamedTuple):
    """The axis cut into `cells` parts: cell i of g is [floor(i L / g), ceil((i + 1) L / g))."""

    cells: int
    length: int
    step: int = 1

    def bounds(self, length: int) -> tuple[list[int], list[int]]:
        g = self.cells
        return [i * length // g for i in range(g)], [-(-(i + 1) * length // g) for i in range(g)]

    def spans(self, length: int) -> tuple[list[int], list[int]]:
        return self.bounds(length)

    @property
    def most(self) -> int:
        return max(stop - start for start, stop in zip(*self.bounds(self.length), strict=True))


Axis = Windows | Cells


@dataclass(frozen=True)
class Intervals:
    """Every combination of one interval per axis. `axes` None: the whole map, and the answer has no spatial axes."""

    axes: tuple[Axis, ...] | None
    divisor: Divisor = "positions"


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Boxes of their own for each answer: `starts[a]`, `stops[a]` (R, cells) along axis a, of image `images` (R,)."""

    images: Tensor
    starts: tuple[Tensor, ...]
    stops: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Labels:
    """A label per position, (N or 1, *spatial) int64; positions of label k belong to answer k, of -1 to none."""

    labels: Tensor
    count: int
    whole: bool = False
    """One label only, and the answer has no axis for it."""


@dataclass(frozen=True, eq=False)
class PositionWeights:
    """A weight per position, (N or 1, *spatial), floating point; a position of weight 0 is not looked at."""

    weights: Tensor


@dataclass(frozen=True, eq=False)
class Sampled:
    """Values read between positions, of image `images` (R,) at `points[a]` (R, n) along axis a; pooled by `boxes`."""

    images: Tensor
    points: tuple[Tensor, ...]
    boxes: Intervals


def spread(per_cell: Tensor, axis: int, axes: int) -> Tensor:
    """(R, cells of one axis) → (R, 1, …, cells, …), which broadcasts with the cells of all `axes`."""
    return per_cell.view(len(per_cell), 1, *(per_cell.shape[1] if a == axis else 1 for a in range(axes)))


Place = Intervals | Rectangles | Labels | PositionWeights | Sampled
