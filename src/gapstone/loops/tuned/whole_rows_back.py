"""Whole contiguous maps, backward: dx is written once, in the order it lies in, sixteen maps at a time.

What a map's positions share (gem: the root's slope, 1 / top) is computed for sixteen at once, then used row by row.
"""

from typing import Any

from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.vector_memory import number

k: Any = None
POSITIONS = MASKED = NEEDS_X = GIVEN = SLOPE = False
ITEM = WIDE = LANES = BLOCK = 0
PARTS, FACTORS, NUMBERS, COUNTS = 0, 1024, 1408, 1536  # where things lie in the room


def sweep(dx: Any, x: Any, mask: Any, count: Any, factors: Any) -> Any:
    """`count` positions of one row; the sum of what their slopes have of their own."""
    slope = k.no_slope()
    q = 0
    while q + WIDE <= count:
        slope = k.give(slope, dx + q * ITEM, x + q * ITEM, mask + q, factors)
        q += WIDE
    while q < count:
        slope = k.give_some(slope, dx + q * ITEM, x + q * ITEM, mask + q, count - q, factors)
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
    k.save_factors(room + FACTORS, k.factors(known, counts, p))
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
            factors = k.factors_of(room + FACTORS, r)
            k.save(
                room + PARTS + 64 * r,
                k.sweep(number(args, a.DX) + there, number(args, a.X) + there, mask, count, factors),
            )
        if SLOPE:
            total = k.joined(total, k.across(room + PARTS))
    if POSITIONS:
        for r in range(many):
            place = k.place(number(args, a.KEPT0) + at + 4 * r)
            if place >= 0 and place < length:
                winner = number(args, a.DX) + ((first + r) * length + place) * ITEM
                k.put_winner(winner, number(args, a.SECOND_GRAD) + to + r * ITEM, k.factors_of(room + FACTORS, r))
    if SLOPE:
        k.put_slopes(number(args, a.SLOPES) + at, known, total, counts, p, on)
