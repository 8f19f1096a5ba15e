"""Steps of the kernels over lists of positions: a block of them is read, folded, merged, and written.

Templates, as the kernels in over_places.py are: specialize.py binds `k` and the flags.
"""

from typing import Any

from gapstone.loops import kernel_arguments as a
from gapstone.loops.vector_memory import number
from gapstone.loops.vectors import added, scaled

k: Any = None
TERMS = MEAN = WEIGHTED = NEEDS_X = SLOPE = False


def positions_of(args: Any, row: Any, image: Any, cell: Any, table: Any) -> Any:
    """Where the positions of an answer are listed, how many there are, and which is the first of its weights."""
    if number(args, a.LISTS):
        at = number(args, a.LISTS) + 8 * (image * number(args, a.LISTS_ROW) + cell)
        first = number(at, 0)
        return number(args, a.POSITIONS) + 8 * first, number(at, 1) - first, first
    cells1, cells2 = number(args, a.CELLS1), number(args, a.CELLS2)
    own = row * number(args, a.BOXES_ROW)
    c2 = cell % cells2
    c1 = cell // cells2 % cells1
    c0 = cell // cells2 // cells1
    c0 += own * (number(args, a.CELLS) // cells1 // cells2)
    c1 += own * cells1
    c2 += own * cells2
    length1, length2 = number(args, a.LENGTH1), number(args, a.LENGTH2)
    step0, step1, step2 = number(args, a.STEP0), number(args, a.STEP1), number(args, a.STEP2)
    i, stop0 = number(number(args, a.STARTS0), c0), number(number(args, a.STOPS0), c0)
    start1, stop1 = number(number(args, a.STARTS1), c1), number(number(args, a.STOPS1), c1)
    start2, stop2 = number(number(args, a.STARTS2), c2), number(number(args, a.STOPS2), c2)
    count = 0
    while i < stop0:
        j = start1
        while j < stop1:
            line, o = (i * length1 + j) * length2, start2
            while o < stop2:
                k.write(table + 8 * count, line + o)
                count += 1
                o += step2
            j += step1
        i += step0
    return table, count, 0


def count_of(args: Any, cell: Any, count: Any) -> Any:
    """What a mean divides by."""
    if number(args, a.COUNTS0) == 0:
        return count
    cells1, cells2 = number(args, a.CELLS1), number(args, a.CELLS2)
    n = number(number(args, a.COUNTS2), cell % cells2) * number(number(args, a.COUNTS1), cell // cells2 % cells1)
    return n * number(number(args, a.COUNTS0), cell // cells2 // cells1)


def together(positions: Any, q: Any, count: Any, position_bytes: Any) -> Any:
    """Whether 8 positions lie side by side."""
    return position_bytes == k.ITEM and q + 8 <= count and number(positions, q + 7) - number(positions, q) == 7


def fill(args: Any, base: Any, positions: Any, count: Any, lanes: Any, buffer: Any) -> None:
    """Copy a block: for each position its channels side by side."""
    lane_bytes, position_bytes = number(args, a.LANE_BYTES), number(args, a.POSITION_BYTES)
    if lanes == k.V and lane_bytes == k.ITEM:
        for q in range(count):
            k.write(buffer + q * k.V * k.SIZE, k.read_x(base + number(positions, q) * position_bytes))
        return
    q = 0
    while q < count:
        source, to = base + number(positions, q) * position_bytes, buffer + q * k.V * k.SIZE
        lane, more = 0, 1
        if together(positions, q, count, position_bytes):
            more = 8
            while lane + 8 <= lanes:
                k.turn_in(source + lane * lane_bytes, lane_bytes, to + lane * k.SIZE, k.V * k.SIZE)
                lane += 8
        while lane < lanes:
            for i in range(more):
                there = source + lane * lane_bytes + i * position_bytes
                k.write(to + (i * k.V + lane) * k.SIZE, k.read_one_x(there))
            lane += 1
        q += more


def fill_run(base: Any, start: Any, rows: Any, rest: Any, buffer: Any) -> None:
    """Copy a block of a whole map: rows of vectors, or the rest that is less than a vector."""
    for q in range(rows):
        k.write(buffer + q * k.V * k.SIZE, k.read_x(base + (start + q * k.V) * k.ITEM))
    if rows == 0:
        for q in range(rest):
            k.write(buffer + q * k.SIZE, k.read_one_x(base + (start + q) * k.ITEM))


def block(buffer: Any, count: Any, first: Any, step: Any, line: Any, weights: Any, p: Any) -> Any:
    """The state of a block in the buffer. Position q of a lane is number first + q step + that lane's `line`."""
    state = k.empty()
    if TERMS:
        if MEAN:
            total, size = k.full(0), k.full(0)
            for q in range(count):
                x = k.read(buffer + q * k.V * k.SIZE)
                if WEIGHTED:
                    w = k.read_one(weights + q * k.SIZE)
                    total = total + x * w
                    size = size + w
                else:
                    total = total + x
            if not WEIGHTED:
                size = k.full(count)
            reference = total / size
            # once more: of equal numbers the mean is that number, to the last digit
            total = k.full(0)
            for q in range(count):
                off = k.read(buffer + q * k.V * k.SIZE) - reference
                if WEIGHTED:
                    off = off * k.read_one(weights + q * k.SIZE)
                total = total + off
            reference = reference + total / size
        else:
            reference = state[0]
            for q in range(count):
                reference = k.word.maximum(reference, k.keyed(k.read(buffer + q * k.V * k.SIZE), p))
        sums = k.no_sums()
        # pieces of 8: a chain of 24 additions has a third of the error of one of 128
        for start in range(0, count, k.PIECE):
            part = k.no_sums()
            for q in range(start, min(start + k.PIECE, count)):
                more = k.termed(k.read(buffer + q * k.V * k.SIZE), reference, p)
                if WEIGHTED:
                    more = scaled(more, k.read_one(weights + q * k.SIZE))
                part = added(part, more)
            sums = added(sums, part)
        return (reference, *sums)
    for start in range(0, count, k.PIECE):
        part = k.empty()
        for q in range(start, min(start + k.PIECE, count)):
            more = k.lifted(k.read(buffer + q * k.V * k.SIZE), k.full_position(first + q * step) + line, p)
            if WEIGHTED:
                more = scaled(more, k.read_one(weights + q * k.SIZE))
            part = k.merged(part, more, p)
        state = k.merged(state, part, p)
    return state


def push(levels: Any, done: Any, state: Any, p: Any) -> None:
    """Add a block's state to those of earlier blocks: two of one level become one of the next."""
    level = levels
    while done & 1:
        state = k.merged(k.restore(level), state, p)
        level += k.STATE_BYTES
        done >>= 1
    k.save(level, state)


def pull(levels: Any, done: Any, p: Any) -> Any:
    """The state of all blocks."""
    state = k.empty()
    level = levels
    some = False
    while done:
        if done & 1:
            state = k.merged(k.restore(level), state, p) if some else k.restore(level)
            some = True
        level += k.STATE_BYTES
        done >>= 1
    return state


def put(args: Any, at: Any, stride: Any, lanes: Any, state: Any, p: Any, line: Any) -> None:
    """Write an answer, and what is saved of its state."""
    k.put_out(args, at, stride, lanes, k.answer(state, p), line)
    k.put_parts(state, args, at, stride, lanes, line)


def put_lanes(args: Any, at: Any, stride: Any, lanes: Any, value: Any, line: Any) -> None:
    """Write the lanes of a vector, `stride` elements apart, to the memory that begins at argument `k.ADDRESS`."""
    to = number(args, k.ADDRESS) + at * k.BYTES
    if stride == 1 and lanes == k.V:
        k.write_there(to, value)
        return
    k.write(line, value)
    for lane in range(lanes):
        k.write_there(to + lane * stride * k.BYTES, k.read_one_own(line + lane * k.OWN))


def get_lanes(args: Any, at: Any, stride: Any, lanes: Any, line: Any) -> Any:
    """Read the lanes of a vector, `stride` elements apart."""
    source = number(args, k.ADDRESS) + at * k.BYTES
    if stride == 1 and lanes == k.V:
        return k.read_there(source)
    for lane in range(lanes):
        k.write(line + lane * k.OWN, k.read_one_there(source + lane * stride * k.BYTES))
    return k.read_own(line)


def get_one(args: Any, at: Any) -> Any:
    """Read one number into every lane."""
    return k.full(k.read_one_there(number(args, k.ADDRESS) + at * k.BYTES))


def put_part(state: Any, args: Any, at: Any, stride: Any, lanes: Any, line: Any) -> Any:
    k.put(args, at, stride, lanes, state[k.PART], line)
    return state


def get_part(state: Any, args: Any, at: Any, stride: Any, lanes: Any, line: Any) -> Any:
    return k.replace(state, k.get(args, at, stride, lanes, line))


def get_one_part(state: Any, args: Any, at: Any) -> Any:
    return k.replace(state, k.get_one(args, at))


def spill(args: Any, base: Any, positions: Any, count: Any, lanes: Any, buffer: Any) -> None:
    """Write a block of dx to its positions, or add it to what is there."""
    lane_bytes = number(args, a.LANE_BYTES) // k.ITEM * k.DX_ITEM
    position_bytes = number(args, a.POSITION_BYTES) // k.ITEM * k.DX_ITEM
    add = number(args, a.ADD)
    if lanes == k.V and lane_bytes == k.DX_ITEM:
        for q in range(count):
            to = base + number(positions, q) * position_bytes
            d = k.read(buffer + q * k.V * k.SIZE)
            k.write_dx(to, k.read_dx(to) + d if add else d)
        return
    q = 0
    while q < count:
        to, source = base + number(positions, q) * position_bytes, buffer + q * k.V * k.SIZE
        lane, more = 0, 1
        if not add and together(positions, q, count, number(args, a.POSITION_BYTES)):
            more = 8
            while lane + 8 <= lanes:
                k.turn_out(source + lane * k.SIZE, k.V * k.SIZE, to + lane * lane_bytes, lane_bytes)
                lane += 8
        while lane < lanes:
            for i in range(more):
                there = to + lane * lane_bytes + i * position_bytes
                d = k.read_one(source + (i * k.V + lane) * k.SIZE)
                k.write_dx(there, k.read_one_dx(there) + d if add else d)
            lane += 1
        q += more


def shares(buffer: Any, to: Any, count: Any, first: Any, step: Any, line: Any, weights: Any, g: Any, out: Any,
           state: Any, p: Any) -> Any:  # fmt: skip
    """dx of a block, written to `to`; returns the sum of its slopes."""
    total = k.full(0)
    for begin in range(0, count, k.PIECE):
        part = k.full(0)
        for q in range(begin, min(begin + k.PIECE, count)):
            x = k.read(buffer + q * k.V * k.SIZE) if NEEDS_X else k.full(0)
            i = k.full_position(first + q * step) + line
            d = g * k.shared(x, i, out, state, p)
            if WEIGHTED:
                d = d * k.read_one(weights + q * k.SIZE)
            k.write(to + q * k.V * k.SIZE, d)
            if SLOPE:
                slope = k.sloped(x, i, out, state, p)
                if WEIGHTED:
                    slope = slope * k.read_one(weights + q * k.SIZE)
                part = part + slope
        total = total + part
    return total
