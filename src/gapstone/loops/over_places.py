"""Compiled loop over lists of positions: the lanes of a vector are channels; or, of a long whole map, its positions.

Any box, rectangle, label or weight is a list of positions. A block of them is copied (and in contiguous maps turned,
so that channels lie side by side) into a buffer that stays in the first cache; then every pool is a few vector
instructions per position. The states of blocks are merged two by two, as in pairwise summation: a mean over
1024 x 1024 is as accurate as torch's.

These functions are templates: specialize.py binds `k` (the pool's functions, numbers that are known) and the flags.
"""

from typing import Any

from gapstone.loops import kernel_arguments as a
from gapstone.loops.place_blocks import (
    block,
    count_of,
    fill,
    fill_run,
    positions_of,
    pull,
    push,
    put,
    shares,
    spill,
    together,
)  # fmt: skip
from gapstone.loops.vector_memory import number, take

k: Any = None
NEEDS_X = NEEDS_OUT = SLOPE = COUNTED = False


def places_forward(args: Any) -> None:
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    buffer, levels = scratch + number(args, a.BUFFER), scratch + number(args, a.LEVELS)
    table, line = scratch + number(args, a.TABLE), scratch + number(args, a.LINE)
    channels, cells = number(args, a.CHANNELS), number(args, a.CELLS)
    channels_per_task, cells_per_task = number(args, a.CHANNELS_PER_TASK), number(args, a.CELLS_PER_TASK)
    channel_blocks = (channels + channels_per_task - 1) // channels_per_task
    cell_blocks = (cells + cells_per_task - 1) // cells_per_task
    stride = number(args, a.OUT_LANE)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        first_channel = task % channel_blocks * channels_per_task
        first_cell = task // channel_blocks % cell_blocks * cells_per_task
        row = task // channel_blocks // cell_blocks
        image = number(number(args, a.IMAGES), row) if number(args, a.IMAGES) else row
        for cell in range(first_cell, min(first_cell + cells_per_task, cells)):
            positions, count, listed = positions_of(args, row, image, cell, table)
            for c in range(first_channel, min(first_channel + channels_per_task, channels), k.V):
                lanes = min(k.V, channels - c)
                base = number(args, a.X) + image * number(args, a.IMAGE_BYTES) + c * number(args, a.LANE_BYTES)
                p = k.parameters(args, image, c, lanes, line)
                weights, done, start = number(args, a.WEIGHTS) + listed * k.SIZE, 0, 0
                state = k.empty()
                while start < count:
                    size = min(k.BLOCK, count - start)
                    fill(args, base, positions + 8 * start, size, lanes, buffer)
                    state = block(buffer, size, start, 1, k.full_position(0), weights + start * k.SIZE, p)
                    if count > k.BLOCK:
                        push(levels, done, state, p)
                        done += 1
                    start += size
                if count > k.BLOCK:
                    state = pull(levels, done, p)
                if COUNTED:
                    state = k.replace_count(state, k.full(count_of(args, cell, count)))
                at = row * number(args, a.OUT_ROW) + c * stride + cell * number(args, a.OUT_CELL)
                put(args, at, stride, lanes, state, p, line)
        task = take(args + 8 * a.NEXT)


def runs_forward(args: Any) -> None:
    """Whole maps, contiguous and long: one answer per task."""
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    buffer, levels = scratch + number(args, a.BUFFER), scratch + number(args, a.LEVELS)
    line = scratch + number(args, a.LINE)
    length, channels = number(args, a.LENGTH), number(args, a.CHANNELS)
    own = k.counting() + k.full_position(0)
    plane = take(args + 8 * a.NEXT)
    while plane < number(args, a.TASKS):
        base = number(args, a.X) + plane * length * k.ITEM
        p = k.parameters_of(args, plane // channels, plane % channels)
        done = 0
        start = 0
        while start < length:
            rows = min(k.BLOCK, (length - start) // k.V)
            fill_run(base, start, rows, length - start, buffer)
            if rows:
                push(levels, done, block(buffer, rows, start, k.V, own, 0, p), p)
                start += rows * k.V
            else:
                inside = own < k.full_position(length - start)
                push(levels, done, k.chosen(inside, block(buffer, 1, start, k.V, own, 0, p), k.empty()), p)
                start = length
            done += 1
        state = pull(levels, done, p)
        shift = k.V // 2
        while shift:  # the upper half of the lanes onto the lower
            k.save(levels, state)
            k.rotate(levels, shift)
            state = k.merged(state, k.restore(levels), p)
            shift //= 2
        if COUNTED:
            state = k.replace_count(state, k.full(length))
        put(args, plane, 1, 1, state, p, line)
        plane = take(args + 8 * a.NEXT)


def places_backward(args: Any) -> None:
    """One task: some channels of one image, all answers that have a part in it."""
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    buffer, to = scratch + number(args, a.BUFFER), scratch + number(args, a.SPILL)
    table, line = scratch + number(args, a.TABLE), scratch + number(args, a.LINE)
    channels, channels_per_task = number(args, a.CHANNELS), number(args, a.CHANNELS_PER_TASK)
    channel_blocks = (channels + channels_per_task - 1) // channels_per_task
    stride = number(args, a.OUT_LANE)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        first_channel = task % channel_blocks * channels_per_task
        last_channel = min(first_channel + channels_per_task, channels)
        image = task // channel_blocks
        first_row = 0 if number(args, a.IMAGES) else image
        last_row = number(args, a.ROWS) if number(args, a.IMAGES) else image + 1
        for row in range(first_row, last_row):
            if number(args, a.IMAGES) and number(number(args, a.IMAGES), row) != image:
                continue
            for cell in range(number(args, a.CELLS)):
                positions, count, listed = positions_of(args, row, image, cell, table)
                for c in range(first_channel, last_channel, k.V):
                    lanes = min(k.V, channels - c)
                    elements = (image * number(args, a.IMAGE_BYTES) + c * number(args, a.LANE_BYTES)) // k.ITEM
                    p = k.parameters(args, image, c, lanes, line)
                    at = row * number(args, a.OUT_ROW) + c * stride + cell * number(args, a.OUT_CELL)
                    g = k.get_grad(args, at, stride, lanes, line)
                    out = k.get_out(args, at, stride, lanes, line) if NEEDS_OUT else k.full(0)
                    state = k.get_parts(k.empty(), args, at, stride, lanes, line)
                    if COUNTED:
                        state = k.replace_count(state, k.full(count_of(args, cell, count)))
                    total = k.full(0)
                    for start in range(0, count, k.BLOCK):
                        size = min(k.BLOCK, count - start)
                        at_positions = positions + 8 * start
                        if NEEDS_X:
                            fill(args, number(args, a.X) + elements * k.ITEM, at_positions, size, lanes, buffer)
                        weights = number(args, a.WEIGHTS) + (listed + start) * k.SIZE
                        total = total + shares(
                            buffer, to, size, start, 1, k.full_position(0), weights, g, out, state, p
                        )
                        spill(args, number(args, a.DX) + elements * k.DX_ITEM, at_positions, size, lanes, to)
                    if SLOPE:
                        k.write(line, total * g)
                        for lane in range(lanes):
                            there = number(args, a.SLOPES) + (image * channels + c + lane) * k.SIZE
                            k.write(there, k.read_one(there) + k.read_one(line + lane * k.SIZE))
        task = take(args + 8 * a.NEXT)


def runs_backward(args: Any) -> None:
    """Whole maps, contiguous and long."""
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    buffer, to, line = scratch + number(args, a.BUFFER), scratch + number(args, a.SPILL), scratch + number(args, a.LINE)
    length, channels = number(args, a.LENGTH), number(args, a.CHANNELS)
    own = k.counting() + k.full_position(0)
    plane = take(args + 8 * a.NEXT)
    while plane < number(args, a.TASKS):
        base, there = number(args, a.X) + plane * length * k.ITEM, number(args, a.DX) + plane * length * k.DX_ITEM
        p = k.parameters_of(args, plane // channels, plane % channels)
        g = k.one_grad(args, plane)
        out = k.one_out(args, plane) if NEEDS_OUT else k.full(0)
        state = k.one_parts(k.empty(), args, plane)
        if COUNTED:
            state = k.replace_count(state, k.full(length))
        total = k.full(0)
        start = 0
        while start < length:
            rows = min(k.BLOCK, (length - start) // k.V)
            size = max(rows, 1)
            if NEEDS_X:
                fill_run(base, start, rows, length - start, buffer)
            more = shares(buffer, to, size, start, k.V, own, 0, g, out, state, p)
            if rows == 0:
                more = k.word.where(own < k.full_position(length - start), more, k.full(0))
            total = total + more
            for q in range(rows):
                k.write_dx(there + (start + q * k.V) * k.DX_ITEM, k.read(to + q * k.V * k.SIZE))
            if rows == 0:
                for q in range(length - start):
                    k.write_dx(there + (start + q) * k.DX_ITEM, k.read_one(to + q * k.SIZE))
            start += rows * k.V if rows else length
        if SLOPE:
            k.write(line, total * g)
            slope = k.read_one(line)
            for lane in range(1, k.V):
                slope += k.read_one(line + lane * k.SIZE)
            k.write(number(args, a.SLOPES) + plane * k.SIZE, slope)
        plane = take(args + 8 * a.NEXT)


INLINED = ()
HELPERS = (positions_of, count_of, together, fill, fill_run, block, push, pull, put, spill, shares)
