"""Which image sizes a network takes, found by asking it, on shapes alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

Works = Callable[[int, int], bool]
"""Whether (H, W) is taken."""

STEPS = (2, 4, 6, 7, 8, 12, 14, 16, 24, 28, 32, 48, 56, 64, 96, 112, 128, 192, 224, 256)
"""What sides must be a multiple of, in the networks there are: patches, windows, and their products with strides."""
FAR = 4096
NEAR = (1, 2, 3)
"""Above the smallest side: networks that cut off what does not fill a cell show it here."""


@dataclass(frozen=True)
class InputSizes:
    """The sizes that were taken when asked.

    >>> print(InputSizes("sides", (33, 33)))
    any side ≥ 33 px
    """

    kind: Literal["sides", "steps", "only"]
    smallest: tuple[int, int]
    """(H, W)"""
    largest: int | None = None
    """Of "sides": the largest; None: no end was found."""
    step: int = 1
    """Of "steps": sides go from the smallest in steps of so many pixels."""
    less: int = 0
    more: int = 0
    """Of "steps": up to so many pixels below and above each of them are taken, too."""
    squares: bool = False
    """Height and width must be the same."""

    @property
    def everything(self) -> bool:
        """From the smallest side on."""
        return self.kind == "sides" and self.largest is None and not self.squares

    def __str__(self) -> str:
        h, w = self.smallest
        if self.kind == "only":
            return f"{h}×{w} px only"
        alike = ", squares only" * self.squares
        if self.kind == "sides":
            return (f"any side ≥ {h} px" if self.largest is None else f"sides {h}–{self.largest} px") + alike
        least = f" from {h}×{w} px on" if h > self.step else ""
        steps = f"multiples of {self.step} px{least}" if h % self.step == 0 else f"{h}×{w} px and {self.step} px steps"
        beside = f", up to {self.less} px less" * (self.less > 0) + f", up to {self.more} px more" * (self.more > 0)
        return f"{steps}{beside or ' only' * (not least)}{alike}"


def legal_sizes(works: Works, size: tuple[int, int]) -> InputSizes:
    """Of a network that takes `size` (H, W).

    Not every size is asked: the ends are found by halving, then sides close to the smallest and halfway up; for
    "steps", the steps that networks have.
    """
    taken = cache(works)
    side = next((n for n in dict.fromkeys((max(size), min(size))) if taken(n, n)), None)
    if side is None:  # a size of its own that is no square
        return InputSizes("only", size)

    def square(n: int) -> bool:
        return n > 0 and taken(n, n)

    near, far = (side + 1, side + 2, side + 3, side + 17), 2 * side + 65
    if all(square(n) for n in (*near, far)):
        smallest = _smallest(square, side)
        return InputSizes("sides", (smallest, smallest), squares=not taken(side, side + 1))
    low, high = _last(square, side, -1, 1), _last(square, side, 1, 1)
    for step in STEPS:
        if step > high - low and square(side + step) and square(side + 2 * step):
            below = (side - 1) // step  # steps down from this side, to no less than 1 px

            def nth(k: int, step: int = step, below: int = below) -> int:
                return side - (below + 1 - k) * step

            def at(k: int) -> bool:
                return square(nth(k))

            first = nth(_smallest(at, below + 1))
            wide = taken(side, side + step)
            return InputSizes("steps", (first, first), None, step, side - low, high - side, squares=not wide)
    if low == high:
        return InputSizes("only", (side, side))
    beside = side + 1 if high > side else side - 1
    return InputSizes("sides", (low, low), high, squares=not taken(side, beside))


def _smallest(works: Callable[[int], bool], good: int) -> int:
    """The smallest whole number from which on, up to `good`, all work that are asked."""
    bad, high = 0, good
    if works(1):  # most do, padded as they are
        high = 1
    while True:
        while high - bad > 1:
            middle = (high + bad) // 2
            high, bad = (middle, bad) if works(middle) else (high, middle)
        more = [high + n for n in NEAR] + [high + (good - high) // 2]
        refused = [n for n in more if n < good and not works(n)]
        if not refused:
            return high
        bad, high = max(refused), good


def alike(cells: Callable[[int], tuple[int, ...] | None], side: int, stride: int) -> tuple[int, int]:
    """The smallest and the largest side whose last map has as many cells as that of `side`: `stride` sides, mostly."""
    wanted = cells(side)

    def same(n: int) -> bool:
        return n > 0 and cells(n) == wanted

    low = _last(same, side, -1, stride)
    high = low + stride - 1
    return low, high if same(high) and not same(high + 1) else _last(same, side, 1, stride)


def _last(same: Callable[[int], bool], start: int, direction: int, reach: int) -> int:
    """The last in a direction that is the same as the first; looked for within `reach`, then twice as far, …"""
    while reach < FAR and same(start + direction * reach):
        reach *= 2
    low, high = 0, reach  # steps: the same, and not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if same(start + direction * middle) else (low, middle)
    return start + direction * low
