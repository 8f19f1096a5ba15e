"""Every border of a binary picture: Suzuki and Abe's algorithm 1 (CVGIP 30, 1985), which is what OpenCV's contours are.

Compiled by Numba. Components are 8-connected, holes 4-connected.
"""

import numpy as np
from numpy.typing import NDArray

from gapstone.loops.numba_cache import compiled, kept

FRAME = 1  # the number of the picture's own frame, as in the paper; the first border found is 2


@kept
@compiled
def borders(
    binary: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
    """What there is to know of N borders, in the order they are met row by row. binary: (H, W).

    Returns their first and last columns and rows, (N, 4) as x0, y0, x1, y1, all inclusive; the areas (N,) of the
    polygons through the centres of their pixels, 0 for a line; which of them have nothing around them (N,); and the
    index (N,) that puts them in the order of OpenCV's RETR_TREE.
    """
    height, width = binary.shape
    f = np.zeros((height + 2, width + 2), np.int32)  # a rim of zeros: a component may touch the picture's edge
    for y in range(height):
        for x in range(width):
            f[y + 1, x + 1] = binary[y, x]
    # the 8 neighbours, counterclockwise from the right as one sees a picture, its rows going down
    down = np.array([0, -1, -1, -1, 0, 1, 1, 1])
    right = np.array([1, 1, 0, -1, -1, -1, 0, 1])

    most = height * width + FRAME + 1
    boxes, areas = np.empty((most, 4), np.int32), np.empty(most, np.float64)
    hole, parent = np.empty(most, np.bool_), np.empty(most, np.int32)
    hole[FRAME], parent[FRAME] = True, 0  # the frame counts as the border of a hole
    number = FRAME
    for i in range(1, height + 1):
        last = FRAME  # the border met last in this row
        for j in range(1, width + 1):
            if f[i, j] == 0:
                continue
            outer = f[i, j] == 1 and f[i, j - 1] == 0
            if outer or (f[i, j] >= 1 and f[i, j + 1] == 0):
                number += 1
                if not outer and f[i, j] > 1:
                    last = f[i, j]
                hole[number] = not outer
                parent[number] = parent[last] if hole[last] != outer else last
                boxes[number, 0] = boxes[number, 2] = j - 1
                boxes[number, 1] = boxes[number, 3] = i - 1
                twice = 0
                # the first neighbour that is set, clockwise from the zero that was found
                start = 4 if outer else 0
                first = -1
                for turn in range(8):
                    k = (start - turn) % 8
                    if f[i + down[k], j + right[k]]:
                        first = k
                        break
                if first < 0:
                    f[i, j] = -number
                else:
                    i1, j1 = i + down[first], j + right[first]
                    i3, j3, behind = i, j, first  # where we are, and the direction of where we came from
                    while True:
                        beside = False  # the pixel to the right was looked at, and is zero
                        k = behind
                        while True:
                            k = (k + 1) % 8
                            if f[i3 + down[k], j3 + right[k]]:
                                break
                            if k == 0:
                                beside = True
                        if beside:
                            f[i3, j3] = -number
                        elif f[i3, j3] == 1:
                            f[i3, j3] = number
                        i4, j4 = i3 + down[k], j3 + right[k]
                        twice += j3 * i4 - j4 * i3
                        boxes[number, 0] = min(boxes[number, 0], j4 - 1)
                        boxes[number, 1] = min(boxes[number, 1], i4 - 1)
                        boxes[number, 2] = max(boxes[number, 2], j4 - 1)
                        boxes[number, 3] = max(boxes[number, 3], i4 - 1)
                        if i4 == i and j4 == j and i3 == i1 and j3 == j1:
                            break
                        i3, j3, behind = i4, j4, (k + 4) % 8
                areas[number] = abs(twice) / 2
            if f[i, j] != 1:
                last = abs(f[i, j])
    found = slice(FRAME + 1, number + 1)
    return boxes[found], areas[found], parent[found] == FRAME, _tree_order(parent[: number + 1])


@compiled
def _tree_order(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Parents before children, and of siblings the one found last first. Index 0 is the first after the frame."""
    sibling, child = np.zeros(len(parent), np.int32), np.zeros(len(parent), np.int32)
    for k in range(FRAME + 1, len(parent)):
        sibling[k] = child[parent[k]]
        child[parent[k]] = k
    order = np.empty(len(parent) - FRAME - 1, np.int32)
    k = child[FRAME]
    for place in range(len(order)):
        order[place] = k - FRAME - 1
        if child[k]:
            k = child[k]
        else:
            while not sibling[k] and k != FRAME:
                k = parent[k]
            k = sibling[k]
    return order
