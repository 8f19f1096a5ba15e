"""Whole contiguous maps, backward: dx is written once, in the order it lies in, sixteen maps at a time.

What a map's positions share (gem: the root's slope, 1 / top) is computed for sixteen at once, then told to each row.
"""

from typing import Any

from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
POSITIONS = MASKED = NEEDS_X = GIVEN = SLOPE = False
ITEM = WIDE = LANES = BLOCK = 0
PARTS, TOLD, NUMBERS, COUNTS = 0, 1024, 1408, 1536  # where things lie in the room


def sweep(dx: Any, x: Any, mask: Any, count: Any, told: Any) -> Any:
    """`count` positions of one row; the sum of what their slopes have of their own."""
    slope = k.no_slope()
    q = 0
    while q + WIDE <= count:
        slope = k.give(slope, dx + q * ITEM, x + q * ITEM, mask + q, told)
        q += WIDE
    while q < count:
        slope = k.give_some(slope, dx + q * ITEM, x + q * ITEM, mask + q, count - q, told)
        q += WIDE
    return k.slope_of(slope)


def group(args: Any, room: Any, first: Any, many: Any) -> None:
    """Maps first to first + many - 1, at most sixteen."""
    length, channels = number(args, a.LENGTH), number(args, a.CHANNELS)
    to, at, on = first * ITEM, first * 4, k.on(many)
    p = k.no_parameter()
    if GIVEN:
        for r in range(many):
            k.copy(room + NUMBERS + 4 * r, number(args, a.PARAMETER) + 4 * ((first + r) % number(args, a.PERIOD)))
        p = k.numbers(room + NUMBERS, on)
    counts = k.count(length)
    if MASKED:
        for r in range(many):
            k.copy_count(room + COUNTS + 8 * r, number(args, a.COUNTS) + 8 * ((first + r) // channels))
        counts = k.counted(room + COUNTS)
    known = k.known(
        number(args, a.GRAD) + to, number(args, a.SECOND_GRAD) + to, number(args, a.OUT) + to,
        number(args, a.KEPT0) + at, number(args, a.KEPT1) + at, on,
    )  # fmt: skip
    k.notice(known, on, args + 8 * a.BAD)
    k.save_told(room + TOLD, k.told(known, counts, p))
    total = k.no_total()
    for r in range(many, LANES):
        k.save_nothing(room + PARTS + 64 * r)
    for start in range(0, length, BLOCK):
        count = min(BLOCK, length - start)
        for r in range(many):
            there = ((first + r) * length + start) * ITEM
            mask = start
            if MASKED:
                mask += number(args, a.MASK) + (first + r) // channels * number(args, a.MASK_ROW)
            told = k.told_of(room + TOLD, r)
            k.save(
                room + PARTS + 64 * r, k.sweep(number(args, a.DX) + there, number(args, a.X) + there, mask, count, told)
            )
        if SLOPE:
            total = k.joined(total, k.across(room + PARTS))
    if POSITIONS:
        for r in range(many):
            place = k.place(number(args, a.KEPT0) + at + 4 * r)
            if place >= 0 and place < length:
                winner = number(args, a.DX) + ((first + r) * length + place) * ITEM
                k.put_winner(winner, number(args, a.SECOND_GRAD) + to + r * ITEM, k.told_of(room + TOLD, r))
    if SLOPE:
        k.put_slopes(number(args, a.SLOPES) + at, known, total, counts, p, on)


def rows_backward(args: Any) -> None:
    room, maps, per_task = k.room(), number(args, a.MAPS), number(args, a.PER_TASK)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        stop = min((task + 1) * per_task, maps)
        for first in range(task * per_task, stop, LANES):
            k.group(args, room, first, min(LANES, stop - first))
        task = take(args + 8 * a.NEXT)
