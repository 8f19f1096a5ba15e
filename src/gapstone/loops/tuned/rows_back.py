"""Windows of contiguous maps, backward: a register holds sixteen columns of dx and walks down the plane.

A row of windows adds to the KH rows of dx that it looks at; these stay in registers until no more windows look at
them, and are then written, once. Of stride 2, the even and the odd columns have a register each.
"""

from typing import Any

from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
DEEP = KEEP = MEAN = PAIRED = False
KH = SH = SW = V = ITEM = BEHIND = 0


def walk(args: Any, dx: Any, grad: Any, kept: Any, z: Any, first: Any, last: Any, band: Any, stop: Any, q: Any) -> Any:
    """One strip of dx, the rows that begin with window rows band to stop - 1."""
    wide, high, width, height = number(args, a.OW), number(args, a.OH), number(args, a.W), number(args, a.H)
    answers, gap = number(args, a.OUT_BYTES), number(args, a.PLANE_BYTES)
    column = q * SW - number(args, a.BEFORE_W)
    masks = k.masks(q, wide)
    there = k.there(column, width)
    rows = k.zeros()
    ahead = dx + (stop * SH * width) * ITEM + q // V * (stop - band) * 64 * SH * SW
    for i in range(max(0, band - (KH - 1) // SH), stop):
        if i < high:
            if MEAN:
                for o in range(first, last):
                    at = (o * high + i) * wide + q
                    by = (
                        number(args, a.INVERSES)
                        + number(number(args, a.CLASSES), (o * high + i) * number(args, a.CLASS_STEP))
                        + 4 * q
                    )
                    rows = k.spread(rows, grad + at * ITEM, answers, by, masks)
            else:
                for o in range(first, last):
                    at = (o * high + i) * wide + q
                    d = z + number(args, a.BEFORE_D) - o * number(args, a.SD)
                    rows = k.return_to(rows, grad + at * ITEM, answers, kept + at, answers // ITEM, masks, d)
        if i >= band:
            for n in range(SH * SW):
                k.prefetch(ahead + 64 * n)
            ahead += 64 * SH * SW
        for r in range(SH):
            y = i * SH - number(args, a.BEFORE_H) + r
            if i >= band and y >= 0 and y < height:
                k.put(dx + (y * width + column) * ITEM, gap, rows, there)
            rows = k.shift(rows)


def rows_backward(args: Any) -> None:
    wide, width, deep = number(args, a.OW), number(args, a.W), number(args, a.D)
    bands, band_rows, groups = number(args, a.BANDS), number(args, a.BAND_ROWS), number(args, a.GROUPS)
    columns = (width + number(args, a.BEFORE_W) + SW - 1) // SW
    planes, together = number(args, a.PLANES), 2 if PAIRED else 1
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands * band_rows
        z = task // bands % deep
        plane = task // bands // deep * together
        if PAIRED:  # of an odd number the last one goes with the one before
            plane = min(plane, planes - 2)
        stop = min(band + band_rows, groups)
        first, last = 0, 1
        if DEEP:  # the windows along depth that look at slice z
            there = z + number(args, a.BEFORE_D)
            first = max(0, (there - number(args, a.KD)) // number(args, a.SD) + 1)
            last = min(number(args, a.OD), there // number(args, a.SD) + 1)
        dx = number(args, a.DX) + plane * number(args, a.PLANE_BYTES) + z * number(args, a.SLICE_BYTES)
        grad = number(args, a.GRAD) + plane * number(args, a.OUT_BYTES)
        kept = number(args, a.KEPT) + plane * number(args, a.OUT_BYTES) // ITEM
        for q in range(0, columns, V):
            column = q * SW - number(args, a.BEFORE_W)
            if not PAIRED and q >= BEHIND and q + V <= wide and column >= 0 and column + V * SW <= width:
                k.walk_inside(args, dx, grad, kept, z, first, last, band, stop, q)
            else:
                k.walk_edge(args, dx, grad, kept, z, first, last, band, stop, q)
        task = take(args + 8 * a.NEXT)
