"""Determines which image sizes a network takes, by running it on shapes alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

TakesSize = Callable[[int, int], bool]
"""(H, W) → whether the network takes images of this size."""

STEPS = (2, 4, 6, 7, 8, 12, 14, 16, 24, 28, 32, 48, 56, 64, 96, 112, 128, 192, 224, 256)
"""Steps of sides in existing networks: of patches, of windows, and their products with strides."""
FAR = 4096
NEAR = (1, 2, 3)
"""Offsets from the smallest side that are tried: networks that need whole cells may refuse some of them."""


@dataclass(frozen=True)
class InputSizes:
    """The sizes that a network takes, as far as they were tried.

    >>> print(InputSizes("sides", (33, 33)))
    any side ≥ 33 px
    """

    kind: Literal["sides", "steps", "only"]
    smallest: tuple[int, int]
    """(H, W)"""
    largest: int | None = None
    """For "sides": the largest side; None if no limit was found."""
    step: int = 1
    """For "steps": the distance of sides in px, from the smallest on."""
    less: int = 0
    more: int = 0
    """For "steps": sides up to `less` px below and `more` px above each step are also taken."""
    squares: bool = False
    """Whether height and width must be equal."""

    @property
    def everything(self) -> bool:
        """Whether all sizes from the smallest side on are taken."""
        return self.kind == "sides" and self.largest is None and not self.squares

    def __str__(self) -> str:
        h, w = self.smallest
        if self.kind == "only":
            return f"{h}×{w} px only"
        squares = ", squares only" * self.squares
        if self.kind == "sides":
            return (f"any side ≥ {h} px" if self.largest is None else f"sides {h}–{self.largest} px") + squares
        least = f" from {h}×{w} px on" if h > self.step else ""
        steps = f"multiples of {self.step} px{least}" if h % self.step == 0 else f"{h}×{w} px and {self.step} px steps"
        beside = f", up to {self.less} px less" * (self.less > 0) + f", up to {self.more} px more" * (self.more > 0)
        return f"{steps}{beside or ' only' * (not least)}{squares}"


def legal_sizes(takes: TakesSize, size: tuple[int, int]) -> InputSizes:
    """Return the sizes that a network takes which takes `size` (H, W).

    Only some sizes are tried: limits are found by bisection, then sides close to the smallest and halfway to `size`;
    for "steps", those in `STEPS`.
    """
    takes_cached = cache(takes)
    side = next((n for n in dict.fromkeys((max(size), min(size))) if takes_cached(n, n)), None)
    if side is None:  # a single size that is not a square
        return InputSizes("only", size)

    def takes_square(n: int) -> bool:
        return n > 0 and takes_cached(n, n)

    near, far = (side + 1, side + 2, side + 3, side + 17), 2 * side + 65
    if all(takes_square(n) for n in (*near, far)):
        smallest = _smallest_working(takes_square, side)
        return InputSizes("sides", (smallest, smallest), squares=not takes_cached(side, side + 1))
    low, high = _farthest_equal(takes_square, side, -1, 1), _farthest_equal(takes_square, side, 1, 1)
    for step in STEPS:
        if step > high - low and takes_square(side + step) and takes_square(side + 2 * step):
            steps_below = (side - 1) // step  # steps from this side down to at least 1 px

            def nth_side(k: int, step: int = step, steps_below: int = steps_below) -> int:
                return side - (steps_below + 1 - k) * step

            def takes_nth(k: int) -> bool:
                return takes_square(nth_side(k))

            first = nth_side(_smallest_working(takes_nth, steps_below + 1))
            squares = not takes_cached(side, side + step)
            return InputSizes("steps", (first, first), None, step, side - low, high - side, squares)
    if low == high:
        return InputSizes("only", (side, side))
    beside = side + 1 if high > side else side - 1
    return InputSizes("sides", (low, low), high, squares=not takes_cached(side, beside))


def _smallest_working(takes: Callable[[int], bool], working: int) -> int:
    """Return the smallest n so that all tried numbers from n to `working` work."""
    refused_side, high = 0, working
    if takes(1):  # most networks take 1 px, because of their padding
        high = 1
    while True:
        while high - refused_side > 1:
            middle = (high + refused_side) // 2
            high, refused_side = (middle, refused_side) if takes(middle) else (high, middle)
        probes = [high + n for n in NEAR] + [high + (working - high) // 2]
        refused = [n for n in probes if n < working and not takes(n)]
        if not refused:
            return high
        refused_side, high = max(refused), working


def sides_with_equal_maps(cells: Callable[[int], tuple[int, ...] | None], side: int, stride: int) -> tuple[int, int]:
    """Return the smallest and the largest side with as many cells as `side`: usually a range of `stride` sides."""
    count = cells(side)

    def same(n: int) -> bool:
        return n > 0 and cells(n) == count

    low = _farthest_equal(same, side, -1, stride)
    high = low + stride - 1
    return low, high if same(high) and not same(high + 1) else _farthest_equal(same, side, 1, stride)


def _farthest_equal(same: Callable[[int], bool], start: int, direction: int, reach: int) -> int:
    """Return the last number in a direction that is the same as `start`: within `reach`, then twice as far, …"""
    while reach < FAR and same(start + direction * reach):
        reach *= 2
    low, high = 0, reach  # steps: the same, and not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if same(start + direction * middle) else (low, middle)
    return start + direction * low
