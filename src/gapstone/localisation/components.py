"""Components of a map at every threshold, in one pass: pixels are added from the highest down, with union–find.

Compiled by Numba; `cam_boxes.sweep` imports this module when it is first called.
"""

import numpy as np
from numpy.typing import NDArray

from gapstone.loops.numba_cache import compiled, kept

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
X0, Y0, X1, Y1, AREA = range(5)


@compiled
def sort_by_level(fractions: Floats, cuts: Floats) -> tuple[NDArray[np.int32], Integers]:
    """Sort pixels by their level, the number of cuts that they exceed, highest first (a counting sort).

    Returns `order` and `starts`: the pixels of a level are order[starts[level + 1] : starts[level]]. Sorting the values
    themselves would take most of the time.
    """
    values, cut_count = fractions.ravel(), len(cuts)
    levels = np.empty(len(values), np.int32)
    starts = np.zeros(cut_count + 2, np.int64)
    level = 0
    for i in range(len(values)):
        v = values[i]
        # neighbours usually have the same level: try it before searching
        if (level and not cuts[level - 1] < v) or (level < cut_count and cuts[level] < v):
            level = np.searchsorted(cuts, v)  # number of cuts below v
        levels[i] = level
        starts[level] += 1
    for level in range(cut_count, -1, -1):
        starts[level] += starts[level + 1]
    order = np.empty(starts[1], np.int32)  # without the pixels of level 0
    next_index = starts.copy()
    for i in range(len(values)):
        level = levels[i]
        if level:
            order[next_index[level + 1]] = i
            next_index[level + 1] += 1
    return order, starts


@compiled
def find_root(parents: NDArray[np.int32], k: int) -> int:
    """Return the component that k was merged into, and shorten the path to it."""
    while parents[k] != k:
        parents[k] = parents[parents[k]]  # path halving
        k = parents[k]
    return k


@compiled
def comes_before(extents: NDArray[np.int32], peaks: Floats, a: int, b: int) -> bool:
    """Tell whether component a comes before b in the order of `cam_boxes.box`."""
    if extents[a, AREA] != extents[b, AREA]:
        return bool(extents[a, AREA] > extents[b, AREA])
    if peaks[a] != peaks[b]:
        return bool(peaks[a] > peaks[b])
    for k in (Y0, X0, Y1, X1):
        if extents[a, k] != extents[b, k]:
            return bool(extents[a, k] < extents[b, k])
    return False


@compiled
def best_iou(extents: NDArray[np.int32], k: int, truths: Floats) -> float:
    """Return the highest IoU of the box of component k with any true box."""
    best = 0.0
    x0, y0, x1, y1 = extents[k, X0], extents[k, Y0], extents[k, X1], extents[k, Y1]
    for t in range(len(truths)):
        width = min(x1, truths[t, 2]) - max(x0, truths[t, 0])
        height = min(y1, truths[t, 3]) - max(y0, truths[t, 1])
        if width > 0 and height > 0:
            intersection = width * height
            size = (truths[t, 2] - truths[t, 0]) * (truths[t, 3] - truths[t, 1])
            best = max(best, intersection / ((x1 - x0) * (y1 - y0) + size - intersection))
    return best


@kept
@compiled
def grow(fractions: Floats, cuts: Floats, eight: bool, truths: Floats) -> tuple[Floats, Integers, Integers, Floats]:
    """Find the components above each cut.

    Args:
        fractions: (H, W) in [0, 1].
        cuts: (T,) thresholds, ascending.
        eight: Whether pixels that touch at a corner are neighbours.
        truths: (G, 4) true boxes.

    Returns:
        For each cut: box (T, 4) and area (T,) of the largest component, number of components (T,), and the best IoU of
        any component with any true box (T,).
    """
    height, width = fractions.shape
    order, starts = sort_by_level(fractions, cuts)
    values = fractions.ravel()
    # a component starts with a pixel without added neighbours: at most every other pixel in each direction, or with 4
    # neighbours every other pixel. Array elements that are never written take no memory.
    capacity = ((height + 1) // 2) * ((width + 1) // 2) + 1 if eight else (height * width + 1) // 2 + 1
    parents, peaks = np.empty(capacity, np.int32), np.empty(capacity)
    extents = np.empty((capacity, 5), np.int32)
    roots = np.empty(capacity, np.int32)
    stride = width + 2
    labels = np.zeros((height + 2) * stride, np.int32)  # component of each pixel; 0: not added, or the border
    steps = np.array([-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1])
    if not eight:
        steps = steps[np.array([1, 3, 4, 6])]
    created, root_count, count, largest = 0, 0, 0, 0

    cut_count = len(cuts)
    boxes, areas = np.zeros((cut_count, 4)), np.zeros(cut_count, np.int64)
    components, best = np.zeros(cut_count, np.int64), np.zeros(cut_count)
    for level in range(cut_count, 0, -1):
        for index in range(starts[level + 1], starts[level]):
            i = order[index]
            y, x = i // width, i % width
            centre = (y + 1) * stride + x + 1
            own, previous = 0, 0
            for step in steps:
                neighbour = labels[centre + step]
                if neighbour == 0 or neighbour == previous:
                    continue
                previous = neighbour
                other = find_root(parents, neighbour)
                if own == 0:
                    own = other
                elif own != other:  # this pixel connects two components: merge the smaller into the larger
                    if extents[own, AREA] < extents[other, AREA]:
                        own, other = other, own
                    parents[other] = own
                    extents[own, X0] = min(extents[own, X0], extents[other, X0])
                    extents[own, Y0] = min(extents[own, Y0], extents[other, Y0])
                    extents[own, X1] = max(extents[own, X1], extents[other, X1])
                    extents[own, Y1] = max(extents[own, Y1], extents[other, Y1])
                    extents[own, AREA] += extents[other, AREA]
                    peaks[own] = max(peaks[own], peaks[other])
                    count -= 1
            if own == 0:
                created += 1
                count += 1
                own = created
                parents[own], peaks[own] = own, values[i]
                extents[own, X0], extents[own, Y0], extents[own, X1], extents[own, Y1] = x, y, x + 1, y + 1
                extents[own, AREA] = 1
                roots[root_count] = own
                root_count += 1
            else:
                extents[own, X0] = min(extents[own, X0], x)
                extents[own, Y0] = min(extents[own, Y0], y)
                extents[own, X1] = max(extents[own, X1], x + 1)
                extents[own, Y1] = max(extents[own, Y1], y + 1)
                extents[own, AREA] += 1
                peaks[own] = max(peaks[own], values[i])
            labels[centre] = own
            # a changed component only moves forward in the order, so a comparison with the largest is enough; if the
            # largest was just merged into this component, this one has more pixels
            if largest == 0 or comes_before(extents, peaks, own, largest):
                largest = own
        t = level - 1
        components[t] = count
        if largest:
            for k in range(4):
                boxes[t, k] = extents[largest, k]
            areas[t] = extents[largest, AREA]
        if len(truths):
            survivors = 0
            for index in range(root_count):
                k = roots[index]
                if parents[k] == k:
                    roots[survivors] = k
                    survivors += 1
                    best[t] = max(best[t], best_iou(extents, k, truths))
            root_count = survivors
    return boxes, areas, components, best
