"""Windows of channels-last maps, forward: a register holds sixteen channels of a pixel.

    out[i, j] = max over r < KH, s < KW of x[i SH - before + r DH, j SW - before + s DW]

GH x GW neighbouring answers are made together and share what they look at (3 x 3: 16 loads for 4 answers, not 36).
Blocks at the edge of the map read a pixel of blanks where there is none. In max without `exact` a NaN is only noticed,
not minded: the caller then runs the exact kernel.
"""

from typing import Any

from gapstone.loops.tuned import window_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
DEEP = KEEP = MEAN = MASKED = EDGE = False
SH = SW = GH = GW = V = ITEM = REACH_H = REACH_W = 0


def block(args: Any, x: Any, out: Any, kept: Any, o: Any, first: Any, last: Any, i: Any, j: Any, bad: Any) -> Any:
    """All channels of GH x GW answers."""
    high, wide, channels = number(args, a.H), number(args, a.W), number(args, a.CHANNELS)
    y, u = i * SH - number(args, a.BEFORE_H), j * SW - number(args, a.BEFORE_W)
    pixel = channels * ITEM
    row, out_row = wide * pixel, number(args, a.OW) * pixel
    x += y * row + u * pixel
    at = (i * number(args, a.OW) + j) * channels
    c = 0
    while c < channels:
        if not MASKED:  # the last register begins earlier: some channels are done twice, the same
            c = min(c, channels - V)
        blank = number(args, a.BLANK) + c * ITEM
        mask = k.there(c, channels)
        k.prefetch(x + c * ITEM, row, pixel, out + (at + c) * ITEM, out_row)
        if DEEP:
            total = k.no_window(bad)
            for d in range(first, last):
                slice_at = x + d * number(args, a.DD) * number(args, a.SLICE_BYTES) + c * ITEM
                total = k.behind(total, k.window(slice_at, row, pixel, blank, y, u, high, wide, mask, k.bad(total)), d)
        else:
            total = k.window(x + c * ITEM, row, pixel, blank, y, u, high, wide, mask, bad)
        bad = k.bad(total)
        if MEAN:
            classes = number(args, a.CLASSES) + 8 * (o * number(args, a.OH) + i)
            total = k.times(total, classes, number(args, a.INVERSES) + 4 * j)
        if KEEP:
            if EDGE or DEEP:
                total = k.placed(total, first, y, u)
            k.put_positions(kept + at + c, out_row // ITEM, channels, total, mask)
        k.put(out + (at + c) * ITEM, out_row, pixel, total, mask)
        c += V
    return bad


def pixels_forward(args: Any) -> None:
    high, wide, deep, bands = number(args, a.OH), number(args, a.OW), number(args, a.OD), number(args, a.BANDS)
    last_y, last_u = number(args, a.H) - REACH_H, number(args, a.W) - REACH_W
    bad = k.fine()
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands
        o = task // bands % deep
        image = task // bands // deep
        start = o * number(args, a.SD) - number(args, a.BEFORE_D)
        first, last = 0, 1
        if DEEP:
            step = number(args, a.DD)
            first = 0 if start >= 0 else (step - 1 - start) // step
            last = min(number(args, a.KD), (number(args, a.D) - start + step - 1) // step)
        x = number(args, a.X) + image * number(args, a.PLANE_BYTES) + start * number(args, a.SLICE_BYTES)
        at = (image * deep + o) * high * wide * number(args, a.CHANNELS)
        out, kept = number(args, a.OUT) + at * ITEM, number(args, a.KEPT) + at
        i, stop = band * high // bands, (band + 1) * high // bands
        while i < stop:
            i = min(i, stop - GH)
            y = i * SH - number(args, a.BEFORE_H)
            # the first blocks look for NaN everywhere, those after them only in what is new
            rows_inside = i > 0 and y >= 0 and y <= last_y
            j = 0
            while j < wide:
                j = min(j, wide - GW)
                u = j * SW - number(args, a.BEFORE_W)
                if rows_inside and j > 0 and u >= 0 and u <= last_u:
                    bad = k.block_inside(args, x, out, kept, o, first, last, i, j, bad)
                else:
                    bad = k.block_edge(args, x, out, kept, o, first, last, i, j, bad)
                j += GW
            i += GH
        task = take(args + 8 * a.NEXT)
    k.notice(args + 8 * a.BAD, bad)
