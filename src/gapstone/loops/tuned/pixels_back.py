"""Windows of channels-last maps, backward: every position gathers from the windows that look at it.

    max:   dx[y, u] = sum over windows (a, b) of  grad[a, b]  where  kept[a, b] = y - a SH + before, u - b SW + before
    mean:  dx[y, u] = sum over windows (a, b) of  grad[a, b] / how many positions (a, b) has

Each dx is written once, by one thread. GW x SW positions side by side are made together: which window sees which of
them is known when the kernel is compiled; which rows of windows do is not.
"""

from typing import Any

from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
DEEP = MEAN = MASKED = False
KH = KW = SH = SW = DH = GW = V = ITEM = REACH_H = BEHIND = 0


def block(args: Any, dx: Any, grad: Any, kept: Any, first_d: Any, last_d: Any, z: Any, y: Any, j: Any) -> None:
    """All channels of the positions that begin where window j of a row does. z, y: places in the window of cell 0."""
    channels, high, wide = number(args, a.CHANNELS), number(args, a.OH), number(args, a.OW)
    pixel = channels * ITEM
    u = j * SW - number(args, a.BEFORE_W)
    first = max(0, (y - REACH_H + SH) // SH)
    last = min(high, y // SH + 1)
    j -= BEHIND
    dx += u * pixel
    c = 0
    while c < channels:
        if not MASKED:
            c = min(c, channels - V)
        mask = k.there(c, channels)
        blank = number(args, a.BLANK) + c * ITEM
        total = k.nothing()
        for d in range(first_d, last_d):
            deep = z - d * number(args, a.SD)
            if DEEP and deep % number(args, a.DD) != 0:
                continue
            for i in range(first, last):
                below = y - i * SH
                if DH > 1 and below % DH != 0:
                    continue
                at = ((d * high + i) * wide + j) * channels + c
                if MEAN:
                    inverses = number(args, a.INVERSES) + number(number(args, a.CLASSES), d * high + i)
                    total = k.add_means(total, grad + at * ITEM, pixel, blank, inverses, j, wide, mask)
                else:
                    place = (deep // number(args, a.DD) * KH + below // DH) * KW
                    total = k.add_places(total, grad + at * ITEM, kept + at, pixel, blank, place, j, wide, mask)
        k.prefetch(dx + c * ITEM + number(args, a.W) * pixel, grad + (((last * wide) + j) * channels + c) * ITEM, pixel)
        k.put(dx + c * ITEM, pixel, total, u, number(args, a.W), mask)
        c += V


def pixels_backward(args: Any) -> None:
    deep, high, wide, bands = number(args, a.D), number(args, a.H), number(args, a.W), number(args, a.BANDS)
    channels, windows, blocks = number(args, a.CHANNELS), number(args, a.OW), number(args, a.GROUPS)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands
        o = task // bands % deep
        image = task // bands // deep
        z = o + number(args, a.BEFORE_D)
        first_d, last_d = 0, 1
        if DEEP:
            reach = (number(args, a.KD) - 1) * number(args, a.DD) + 1
            first_d = max(0, (z - reach + number(args, a.SD)) // number(args, a.SD))
            last_d = min(number(args, a.OD), z // number(args, a.SD) + 1)
        answers = image * number(args, a.OD) * number(args, a.OH) * windows * channels
        grad, kept = number(args, a.GRAD) + answers * ITEM, number(args, a.KEPT) + answers
        for row in range(band * high // bands, (band + 1) * high // bands):
            dx = number(args, a.DX) + ((image * deep + o) * high + row) * wide * channels * ITEM
            y = row + number(args, a.BEFORE_H)
            for j in range(0, blocks, GW):
                u = j * SW - number(args, a.BEFORE_W)
                if u >= 0 and u + GW * SW <= wide and j >= BEHIND and j + GW <= windows:
                    k.block_inside(args, dx, grad, kept, first_d, last_d, z, y, j)
                else:
                    k.block_edge(args, dx, grad, kept, first_d, last_d, z, y, j)
        task = take(args + 8 * a.NEXT)
