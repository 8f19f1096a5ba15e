"""A place as an operator's arguments, and what only the numbers in its tensors can tell."""

from collections.abc import Sequence

from torch import Tensor

from gapstone.regions.places import Cells, Divisor, Intervals, Labels, Place, PositionWeights, Rectangles, Windows
from gapstone.regions.region import seen

WHOLE, BOXES, RECTANGLES, LABELS, WEIGHTS = range(5)
DIVISORS: tuple[Divisor, ...] = ("positions", "padded", "window")  # any other is a number of its own
PER_AXIS = 7


def encode(place: Place) -> tuple[list[int], list[Tensor]]:
    """Numbers, the first of which says what follows; and tensors."""
    if isinstance(place, Rectangles):
        return [RECTANGLES], [place.images, *place.starts, *place.stops]
    if isinstance(place, Labels):
        return [LABELS, place.count, int(place.whole)], [place.labels]
    if isinstance(place, PositionWeights):
        return [WEIGHTS], [place.weights]
    assert isinstance(place, Intervals)
    if place.axes is None:
        return [WHOLE], []
    divisor = place.divisor
    numbers = [BOXES, DIVISORS.index(divisor), 0] if isinstance(divisor, str) else [BOXES, len(DIVISORS), divisor]
    for axis in place.axes:
        if isinstance(axis, Cells):
            numbers += [0, axis.cells, axis.length, 0, 0, 0, 0]
        else:
            numbers += [1, axis.cells, axis.size, axis.stride, axis.before, axis.after, axis.step]
    return numbers, []


def decode(numbers: Sequence[int], places: Sequence[Tensor]) -> Place:
    kind = numbers[0]
    if kind == RECTANGLES:
        half = len(places) // 2
        return Rectangles(places[0], tuple(places[1 : 1 + half]), tuple(places[1 + half :]))
    if kind == LABELS:
        return Labels(places[0], numbers[1], bool(numbers[2]))
    if kind == WEIGHTS:
        return PositionWeights(places[0])
    if kind == WHOLE:
        return Intervals(None)
    rules = [numbers[i : i + PER_AXIS] for i in range(3, len(numbers), PER_AXIS)]
    axes = tuple(Windows(*rule[1:]) if rule[0] else Cells(rule[1], rule[2]) for rule in rules)
    divisor: Divisor = DIVISORS[numbers[1]] if numbers[1] < len(DIVISORS) else numbers[2]
    return Intervals(axes, divisor)


def check(place: Place, shape: tuple[int, ...]) -> None:
    """Before any number in a tensor becomes an address. Where nobody can look, nothing becomes one."""
    # of a mask there is one label
    if (
        isinstance(place, Labels)
        and not place.whole
        and place.labels.numel()
        and seen((place.labels < place.count).all()) is False
    ):
        largest = int(place.labels.max())
        raise ValueError(f"Segments: a label is {largest}, and count={place.count} allows 0 to {place.count - 1}.")
    if isinstance(place, Rectangles) and len(place.images):
        if seen(((place.images >= 0) & (place.images < shape[0])).all()) is False:
            low, high = int(place.images.min()), int(place.images.max())
            raise ValueError(f"Boxes: image numbers go from {low} to {high}, and there are {shape[0]} images.")
        for axis, (starts, stops) in enumerate(zip(place.starts, place.stops, strict=True)):
            if seen((starts >= 0).all() & (stops <= shape[2 + axis]).all()) is False:
                raise ValueError(f"Boxes: a cell leaves the map of {shape[2 + axis]} positions along axis {axis}.")
