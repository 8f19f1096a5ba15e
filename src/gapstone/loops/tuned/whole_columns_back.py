"""Whole channels-last maps, backward: a lane per channel; dx is written once, a block of positions after the other."""

from typing import Any

from gapstone.loops.tuned import whole_arguments as a
from gapstone.loops.vector_memory import number, take

k: Any = None
POSITIONS = MASKED = NEEDS_X = GIVEN = SLOPE = False
ITEM = WIDE = LANES = BLOCK = 0
WAITING = 28  # bytes of room per channel: its factors, up to five numbers, and its slope so far, float64


def piece(args: Any, room: Any, image: Any, c: Any, last: Any, first: Any, stop: Any) -> None:
    """One block of positions, first to stop - 1, of some of an image's channels."""
    channels, length = number(args, a.CHANNELS), number(args, a.LENGTH)
    own = image * channels + c
    at, there = own * 4, k.on(last - c)
    if first == 0:
        k.save_total(room, k.no_total())
        k.save_factors(room, factors_from(args, image, own, there))
    factors, total = k.restored(room), k.total_of(room)
    place = k.place(number(args, a.KEPT0) + at, there)
    base, gap = (image * channels * length + c) * ITEM, channels * ITEM
    x, dx = number(args, a.X) + base, number(args, a.DX) + base
    mask = number(args, a.MASK) + image * number(args, a.MASK_ROW)
    slope = k.no_slope()
    for q in range(first, stop):
        slope = k.give(slope, dx + q * gap, x + q * gap, mask + q, q, place, factors, there)
    if SLOPE:
        total = k.joined(total, slope)
        k.save_total(room, total)
        if stop == length:
            known = known_from(args, own, there)
            k.put_slopes(number(args, a.SLOPES) + at, known, total, k.count(length), parameter(args, own, there), there)


def parameter(args: Any, own: Any, there: Any) -> Any:
    p = k.no_parameter()
    if GIVEN:
        at, period = number(args, a.PARAMETER), number(args, a.PERIOD)
        p = k.one_number(at) if period == 1 else k.numbers(at + 4 * (own % period), there)
    return p


def known_from(args: Any, own: Any, there: Any) -> Any:
    to, at = own * ITEM, own * 4
    return k.known(
        number(args, a.GRAD) + to, number(args, a.SECOND_GRAD) + to, number(args, a.OUT) + to,
        number(args, a.KEPT0) + at, number(args, a.KEPT1) + at, there,
    )  # fmt: skip


def factors_from(args: Any, image: Any, own: Any, there: Any) -> Any:
    count = number(number(args, a.COUNTS), image) if MASKED else number(args, a.LENGTH)
    known = known_from(args, own, there)
    k.notice(known, there, args + 8 * a.BAD)
    return k.factors(known, k.count(count), parameter(args, own, there))


def columns_backward(args: Any) -> None:
    room, channels, per_task = k.room(), number(args, a.CHANNELS), number(args, a.PER_TASK)
    ranges, length = (channels + per_task - 1) // per_task, number(args, a.LENGTH)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        image, start = task // ranges, task % ranges * per_task
        last = min(start + per_task, channels)
        for first in range(0, length, BLOCK):
            stop, c = min(first + BLOCK, length), start
            while c + WIDE <= last:
                k.piece_wide(args, room + (c - start) * WAITING, image, c, last, first, stop)
                c += WIDE
            while c < last:
                k.piece_edge(args, room + (c - start) * WAITING, image, c, last, first, stop)
                c += LANES
        task = take(args + 8 * a.NEXT)
