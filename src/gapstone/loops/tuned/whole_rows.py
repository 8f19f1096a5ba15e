"""Whole contiguous maps, forward: a row of numbers per map, sixteen maps at a time.

Each row is swept into one vector; sixteen of these are turned into one with a lane per map, so what follows the sums
(roots, logarithms, writing) is done for sixteen maps at once. Long rows go in blocks, whose sums are added in float64.
With a reference, a block is swept twice, the second time from the first cache.
"""

from typing import Any

from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
REFERENCED = MASKED = GIVEN = False
ITEM = WIDE = LANES = BLOCK = 0
PARTS, SEEN, FACTORS, NUMBERS, COUNTS = 0, 4096, 5120, 5376, 5504  # where things lie in the room


def sweep(x: Any, mask: Any, first: Any, count: Any, factors: Any) -> Any:
    """`count` positions of one row, from x on; the first has the number `first`."""
    wide, narrow = k.wide_nothing(), k.nothing()
    if MASKED:  # the mask goes on, with zeros, to a whole number of vectors
        for q in range(0, count, WIDE):
            wide = k.take_wide(wide, x + q * ITEM, mask + q, first + q, factors)
        return k.folded(wide, narrow)
    if (
        REFERENCED
    ):  # short rows in one loop: each loads some thirty constants before it begins, as much work as 49 positions
        done = 0
        if count >= 4 * WIDE:
            done = count // WIDE * WIDE
            for q in range(0, done, WIDE):
                wide = k.take_wide(wide, x + q * ITEM, 0, first + q, factors)
        for q in range(done, count, WIDE):
            wide = k.take_some(wide, x + q * ITEM, first + q, count - q, factors)
        return k.folded(wide, narrow)
    q = 0
    while q + WIDE <= count:
        wide = k.take_wide(wide, x + q * ITEM, 0, first + q, factors)
        q += WIDE
    while q + LANES <= count:
        narrow = k.take(narrow, x + q * ITEM, first + q, factors)
        q += LANES
    if q < count:
        narrow = k.take_some(narrow, x + q * ITEM, first + q, count - q, factors)
    return k.folded(wide, narrow)


def group(args: Any, room: Any, first: Any, many: Any) -> None:
    """Maps first to first + many - 1, at most sixteen."""
    length, channels, on = number(args, a.LENGTH), number(args, a.CHANNELS), k.on(many)
    p = k.no_parameter()
    if GIVEN:
        for r in range(many):
            k.copy(room + NUMBERS + 4 * r, number(args, a.PARAMETER) + 4 * ((first + r) % number(args, a.PERIOD)))
        p = k.numbers(room + NUMBERS, on)
    for r in range(many, LANES):
        k.save_nothing_add(room + PARTS + 64 * r)
        if REFERENCED:
            k.save_nothing_see(room + SEEN + 64 * r)
    factors = k.no_factors()
    totals = k.none()
    for start in range(0, length, BLOCK):
        count = min(BLOCK, length - start)
        x = number(args, a.X) + (first * length + start) * ITEM
        mask = number(args, a.MASK) + start
        if REFERENCED:
            for r in range(many):
                k.save_see(room + SEEN + 64 * r, k.sweep_see(x + r * length * ITEM, mask, start, count, factors))
            totals = k.raised(totals, k.across_see(room + SEEN), start, p)
            k.save_factors(room + FACTORS, k.factors(totals, p))
        for r in range(many):
            if REFERENCED:
                factors = k.factors_of(room + FACTORS, r)
            if MASKED:
                mask = number(args, a.MASK) + (first + r) // channels * number(args, a.MASK_ROW) + start
            k.save_add(room + PARTS + 64 * r, k.sweep_add(x + r * length * ITEM, mask, start, count, factors))
        totals = k.joined(totals, k.across_add(room + PARTS))
    if MASKED:
        for r in range(many):
            k.copy_count(room + COUNTS + 8 * r, number(args, a.COUNTS) + 8 * ((first + r) // channels))
        counts = k.counted(room + COUNTS)
    else:
        counts = k.count(length)
    to, at = first * ITEM, first * 4
    k.put(
        totals, counts, p, number(args, a.OUT) + to, number(args, a.SECOND) + to, number(args, a.KEPT0) + at,
        number(args, a.KEPT1) + at, on, args + 8 * a.BAD,
    )  # fmt: skip


def each_group(args: Any) -> None:
    """All maps, sixteen at a time."""
    room, maps, per_task = k.room(), number(args, a.MAPS), number(args, a.PER_TASK)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        stop = min((task + 1) * per_task, maps)
        for first in range(task * per_task, stop, LANES):
            k.group(args, room, first, min(LANES, stop - first))
        task = take(args + 8 * a.NEXT)
