"""Windows of contiguous maps, forward: a register holds sixteen answers of a row and walks down the plane.

A row of x is reduced across its window's columns once, as loads that lie a column apart (no shuffles: they would wait
for each other), and the last K rows stay in registers, so each is used by all K windows it is in. Two short planes
share a register. In max without `exact` a NaN is only noticed, not minded: the caller then runs the exact kernel.

What comes next is asked for early, in the order of memory: walking down alone reached 75 % of a copy's speed, so it is
95 % (3x3, stride 2, 205 MB).
"""

from typing import Any

from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
EDGE = DEEP = KEEP = MEAN = PAIRED = False
KH = SH = SW = NEW = V = ITEM = 0


def row(args: Any, rows: Any, x: Any, y: Any, c: Any, first: Any, last: Any, masks: Any) -> Any:
    """One more row of x into the rows that windows are made of."""
    width, gap = number(args, a.W), number(args, a.PLANE_BYTES)
    if y < 0 or y >= number(args, a.H):
        return k.push_blank(rows)
    at = x + (y * width + c) * ITEM
    if DEEP:
        if first >= last:
            return k.push_blank(rows)
        slice_bytes, step = number(args, a.SLICE_BYTES), number(args, a.DD)
        rows = k.push(rows, at + first * step * slice_bytes, gap, masks, first)
        for d in range(first + 1, last):
            rows = k.join(rows, at + d * step * slice_bytes, gap, masks, d)
        return rows
    return k.push(rows, at, gap, masks, 0)


def walk(args: Any, x: Any, out: Any, kept: Any, deep: Any, first: Any, last: Any, i: Any, stop: Any, j: Any,
         bad: Any) -> Any:  # fmt: skip
    """One strip of answers, from row i down to stop."""
    wide, gap = number(args, a.OW), number(args, a.OUT_BYTES)
    c = j * SW - number(args, a.BEFORE_W)
    masks = k.masks(c, number(args, a.W))
    there = k.there(j, wide)
    taps = k.first_taps(c)
    rows = k.no_rows(bad)
    y = i * SH - number(args, a.BEFORE_H)
    for r in range(KH - NEW):
        rows = row(args, rows, x, y + r, c, first, last, masks)
    ahead = x + stop * SH * number(args, a.W) * ITEM + j // V * (stop - i) * 64 * SH * SW
    while i < stop:
        for n in range(SH * SW):
            k.prefetch(ahead + 64 * n)
        ahead += 64 * SH * SW
        y = i * SH - number(args, a.BEFORE_H)
        for r in range(KH - NEW, KH):
            rows = row(args, rows, x, y + r, c, first, last, masks)
        total = k.total(rows)
        at = i * wide + j
        if MEAN:
            by = (
                number(args, a.INVERSES)
                + number(number(args, a.CLASSES), (deep * number(args, a.OH) + i) * number(args, a.CLASS_STEP))
                + 4 * j
            )
            total = k.times(total, by)
        if KEEP:
            if EDGE or y < 0 or first > 0:
                total = k.placed(total, taps, y, first)
            k.put_positions(kept + at, gap // ITEM, total, there)
        k.put(out + at * ITEM, gap, total, there)
        i += 1
    return k.bad(rows)


def rows_forward(args: Any) -> None:
    wide, high, deep = number(args, a.OW), number(args, a.OH), number(args, a.OD)
    bands, band_rows = number(args, a.BANDS), number(args, a.BAND_ROWS)
    planes, group = number(args, a.PLANES), 2 if PAIRED else 1
    bad = k.fine()
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands * band_rows
        o = task // bands % deep
        plane = task // bands // deep * group
        if PAIRED:  # of an odd number the last one goes with the one before
            plane = min(plane, planes - 2)
        stop = min(band + band_rows, high)
        start = o * number(args, a.SD) - number(args, a.BEFORE_D)
        step = number(args, a.DD)
        first, last = 0, 1
        if DEEP:
            first = 0 if start >= 0 else (step - 1 - start) // step
            last = min(number(args, a.KD), (number(args, a.D) - start + step - 1) // step)
        x = number(args, a.X) + plane * number(args, a.PLANE_BYTES) + start * number(args, a.SLICE_BYTES)
        at = (plane * deep + o) * high * wide
        out = number(args, a.OUT) + at * ITEM
        kept = number(args, a.KEPT) + at
        for j in range(0, wide, V):
            c = j * SW - number(args, a.BEFORE_W)
            if not PAIRED and c >= 0 and c + number(args, a.REACH) <= number(args, a.W) and j + V <= wide:
                bad = k.walk_inside(args, x, out, kept, o, first, last, band, stop, j, bad)
            else:
                bad = k.walk_edge(args, x, out, kept, o, first, last, band, stop, j, bad)
        task = take(args + 8 * a.NEXT)
    k.notice(args + 8 * a.BAD, bad)


INLINED = (row,)
