"""Components of a map at every threshold, in one pass: pixels join from the highest down, union–find keeps the boxes.

Compiled by Numba; `boxes.sweep` imports this file when it is first asked.
"""

import numpy as np
from numpy.typing import NDArray

from gapstone.loops.numba_cache import compiled, kept

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
X0, Y0, X1, Y1, AREA = range(5)


@compiled
def by_level(fractions: Floats, cuts: Floats) -> tuple[NDArray[np.int32], Integers]:
    """Pixels sorted by how many cuts they are above, most first, and where each number's run ends: starts[level].

    Pixels above exactly `level` cuts stand at order[starts[level + 1] : starts[level]]. They are counted into their
    places: sorting the values themselves would take most of the time.
    """
    values, many = fractions.ravel(), len(cuts)
    levels = np.empty(len(values), np.int32)
    starts = np.zeros(many + 2, np.int64)
    level = 0
    for i in range(len(values)):
        v = values[i]
        # neighbours are mostly at the same level, so look there before searching
        if (level and not cuts[level - 1] < v) or (level < many and cuts[level] < v):
            level = np.searchsorted(cuts, v)  # how many are below v
        levels[i] = level
        starts[level] += 1
    for level in range(many, -1, -1):
        starts[level] += starts[level + 1]
    order = np.empty(starts[1], np.int32)  # without the pixels that are above no cut
    put = starts.copy()
    for i in range(len(values)):
        level = levels[i]
        if level:
            order[put[level + 1]] = i
            put[level + 1] += 1
    return order, starts


@compiled
def root(up: NDArray[np.int32], k: int) -> int:
    while up[k] != k:
        up[k] = up[up[k]]  # halves the way for whoever comes next
        k = up[k]
    return k


@compiled
def before(facts: NDArray[np.int32], peaks: Floats, a: int, b: int) -> bool:
    """Component a comes before b: the rule of `boxes.box`."""
    if facts[a, AREA] != facts[b, AREA]:
        return bool(facts[a, AREA] > facts[b, AREA])
    if peaks[a] != peaks[b]:
        return bool(peaks[a] > peaks[b])
    for k in (Y0, X0, Y1, X1):
        if facts[a, k] != facts[b, k]:
            return bool(facts[a, k] < facts[b, k])
    return False


@compiled
def best_iou(facts: NDArray[np.int32], k: int, truths: Floats) -> float:
    best = 0.0
    x0, y0, x1, y1 = facts[k, X0], facts[k, Y0], facts[k, X1], facts[k, Y1]
    for t in range(len(truths)):
        width = min(x1, truths[t, 2]) - max(x0, truths[t, 0])
        height = min(y1, truths[t, 3]) - max(y0, truths[t, 1])
        if width > 0 and height > 0:
            both = width * height
            size = (truths[t, 2] - truths[t, 0]) * (truths[t, 3] - truths[t, 1])
            best = max(best, both / ((x1 - x0) * (y1 - y0) + size - both))
    return best


@kept
@compiled
def grow(fractions: Floats, cuts: Floats, eight: bool, truths: Floats) -> tuple[Floats, Integers, Integers, Floats]:
    """At each cut: box and area of the largest component, how many there are, the best IoU of any with any truth.

    fractions (H, W) in [0, 1]; cuts (T,) ascending; truths (G, 4). Returns (T, 4), (T,), (T,), (T,).
    """
    height, width = fractions.shape
    order, starts = by_level(fractions, cuts)
    values = fractions.ravel()
    # a component is founded by a pixel none of whose neighbours is in: at most every other one in each direction, with
    # 4 neighbours every other pixel. What is never written is never given memory.
    most = ((height + 1) // 2) * ((width + 1) // 2) + 1 if eight else (height * width + 1) // 2 + 1
    up, peaks = np.empty(most, np.int32), np.empty(most)
    facts = np.empty((most, 5), np.int32)
    live = np.empty(most, np.int32)
    across = width + 2
    joined = np.zeros((height + 2) * across, np.int32)  # the component of each pixel; 0: not in yet, and a rim
    steps = np.array([-across - 1, -across, -across + 1, -1, 1, across - 1, across, across + 1])
    if not eight:
        steps = steps[np.array([1, 3, 4, 6])]
    founded, living, number, largest = 0, 0, 0, 0

    many = len(cuts)
    boxes, areas = np.zeros((many, 4)), np.zeros(many, np.int64)
    components, best = np.zeros(many, np.int64), np.zeros(many)
    for level in range(many, 0, -1):
        for place in range(starts[level + 1], starts[level]):
            i = order[place]
            y, x = i // width, i % width
            here = (y + 1) * across + x + 1
            mine, last = 0, 0
            for step in steps:
                there = joined[here + step]
                if there == 0 or there == last:
                    continue
                last = there
                other = root(up, there)
                if mine == 0:
                    mine = other
                elif mine != other:  # this pixel is the bridge: the smaller one becomes part of the larger
                    if facts[mine, AREA] < facts[other, AREA]:
                        mine, other = other, mine
                    up[other] = mine
                    facts[mine, X0] = min(facts[mine, X0], facts[other, X0])
                    facts[mine, Y0] = min(facts[mine, Y0], facts[other, Y0])
                    facts[mine, X1] = max(facts[mine, X1], facts[other, X1])
                    facts[mine, Y1] = max(facts[mine, Y1], facts[other, Y1])
                    facts[mine, AREA] += facts[other, AREA]
                    peaks[mine] = max(peaks[mine], peaks[other])
                    number -= 1
            if mine == 0:
                founded += 1
                number += 1
                mine = founded
                up[mine], peaks[mine] = mine, values[i]
                facts[mine, X0], facts[mine, Y0], facts[mine, X1], facts[mine, Y1] = x, y, x + 1, y + 1
                facts[mine, AREA] = 1
                live[living] = mine
                living += 1
            else:
                facts[mine, X0] = min(facts[mine, X0], x)
                facts[mine, Y0] = min(facts[mine, Y0], y)
                facts[mine, X1] = max(facts[mine, X1], x + 1)
                facts[mine, Y1] = max(facts[mine, Y1], y + 1)
                facts[mine, AREA] += 1
                peaks[mine] = max(peaks[mine], values[i])
            joined[here] = mine
            # whatever changes only moves forward, so comparing it with the first so far is enough; if that one has just
            # become part of this one, this one has more pixels
            if largest == 0 or before(facts, peaks, mine, largest):
                largest = mine
        t = level - 1
        components[t] = number
        if largest:
            for k in range(4):
                boxes[t, k] = facts[largest, k]
            areas[t] = facts[largest, AREA]
        if len(truths):
            kept = 0
            for place in range(living):
                k = live[place]
                if up[k] == k:
                    live[kept] = k
                    kept += 1
                    best[t] = max(best[t], best_iou(facts, k, truths))
            living = kept
    return boxes, areas, components, best
