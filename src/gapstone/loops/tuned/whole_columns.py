"""Whole channels-last maps, forward: a lane per channel.

Positions go in blocks, and of a block the channels go in pieces of a few registers, whose sums wait in a room on the
stack for the next block: x is read in the order it lies in, but for 64 positions. Blocks' sums are added in float64.
"""

from typing import Any

from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
REFERENCED = MASKED = GIVEN = FOUR = False
ITEM = WIDE = LANES = 0
BLOCK = 64
WAITING = 24  # bytes of room per channel


def pillar(positions: Any, x: Any, gap: Any, first: Any, stop: Any, factors: Any, there: Any) -> Any:
    """Positions first to stop - 1 of some channels that lie side by side."""
    state = k.nothing()
    q = first
    if FOUR:
        while q + 4 <= stop:
            if MASKED:
                state = k.take_four(
                    state, x + number(positions, q) * gap, x + number(positions, q + 1) * gap,
                    x + number(positions, q + 2) * gap, x + number(positions, q + 3) * gap, q, there,
                )  # fmt: skip
            else:
                at = x + q * gap
                state = k.take_four(state, at, at + gap, at + 2 * gap, at + 3 * gap, q, there)
            q += 4
    while q < stop:  # pieces of 8: a chain of 15 additions has a third of the error of one of 64
        piece_stop, part = min(q + 8, stop), k.without_sums(state)
        while q < piece_stop:
            at = number(positions, q) if MASKED else q
            part = k.take(part, x + at * gap, q, factors, there)
            q += 1
        state = k.with_sums(part, state)
    return k.closed(state)


def piece(args: Any, room: Any, image: Any, c: Any, last: Any, begin: Any, first: Any, stop: Any, end: Any) -> None:
    """One block of positions, of begin to end, of one piece of an image's channels."""
    channels = number(args, a.CHANNELS)
    own = image * channels + c
    there = k.on(last - c)
    p = k.no_parameter()
    if GIVEN:
        period = number(args, a.PERIOD)
        at = number(args, a.PARAMETER)
        p = k.one_number(at) if period == 1 else k.numbers(at + 4 * (own % period), there)
    x = number(args, a.X) + (image * channels * number(args, a.LENGTH) + c) * ITEM
    gap, positions = channels * ITEM, number(args, a.POSITIONS)
    totals = k.none() if first == begin else k.restored(room)
    factors = k.no_factors()
    if REFERENCED:
        totals = k.raised(totals, k.pillar_see(positions, x, gap, first, stop, factors, there), first - begin, p)
        factors = k.factors(totals, p)
    totals = k.joined(totals, k.pillar_add(positions, x, gap, first, stop, factors, there))
    if stop < end:
        k.save(room, totals)
        return
    to, at = own * ITEM, own * 4
    k.put(
        totals, k.count(end - begin), p, number(args, a.OUT) + to, number(args, a.SECOND) + to,
        number(args, a.KEPT0) + at, number(args, a.KEPT1) + at, there, args + 8 * a.BAD,
    )  # fmt: skip


def columns_forward(args: Any) -> None:
    room, channels, per_task = k.room(), number(args, a.CHANNELS), number(args, a.PER_TASK)
    ranges = (channels + per_task - 1) // per_task
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        image, start = task // ranges, task % ranges * per_task
        last = min(start + per_task, channels)
        begin, end = 0, number(args, a.LENGTH)
        if MASKED:
            begins = number(args, a.BEGINS) + image * number(args, a.BEGINS_ROW)
            begin, end = number(begins, 0), number(begins, 1)
        first = begin
        while first == begin or first < end:  # at least once, though there be no position
            stop, c = min(first + BLOCK, end), start
            while c + WIDE <= last:
                k.piece_wide(args, room + (c - start) * WAITING, image, c, last, begin, first, stop, end)
                c += WIDE
            while c < last:
                k.piece_edge(args, room + (c - start) * WAITING, image, c, last, begin, first, stop, end)
                c += LANES
            first += BLOCK
        task = take(args + 8 * a.NEXT)
