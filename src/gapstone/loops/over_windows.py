"""Compiled loop over windows of contiguous maps: the lanes of a vector are answers that lie side by side.

A band of a plane's rows is copied into scratch with its padding, and split into phases: the columns (and rows) that
stride 2 makes every second tap read lie side by side. So tap t of answer l is at t's offset + l, for every stride,
dilation and padding; lanes run on over the ends of rows (what they compute there is not looked at), and a row of 7
costs no more than its share. A table says which places are on the map.

What is stored for each answer (the answer, its gradient, parts of its state) has a slot of scratch, in the order of
lanes: `k.SLOT`, `k.OWN` bytes a number. In memory it begins at argument `k.ADDRESS` and has `k.BYTES` bytes a number.

These functions are templates: specialize.py binds `k` (the pool's functions, numbers that are known) and the flags.
"""

from typing import Any

from gapstone.loops import kernel_arguments as a
from gapstone.loops.vector_memory import number, take
from gapstone.loops.vectors import added

k: Any = None
fill_rows: Any = None
spill_rows: Any = None
move_row: Any = None
ITEM = 0
TERMS = MEAN = MASKED = NEEDS_X = NEEDS_OUT = SLOPE = COUNTED = False
OUT_SLOT = 5  # backward; forward the answer has slot 0, as its gradient backward, and part i of the state slot i + 1


def copy_row(source: Any, to: Any, count: Any) -> None:
    """Numbers side by side, from a type of `k.FROM` bytes to one of `k.TO`."""
    done = 0
    while done + k.V <= count:
        k.write(to + done * k.TO, k.read(source + done * k.FROM))
        done += k.V
    while done + 8 <= count:
        k.write(to + done * k.TO, k.read_8(source + done * k.FROM))
        done += 8
    while done < count:
        k.write(to + done * k.TO, k.read_one(source + done * k.FROM))
        done += 1


def move_rows(args: Any, plane: Any, scratch: Any, band: Any, rows: Any) -> None:
    """`move_row` of each row of one slice of one plane, whose numbers have `ITEM` bytes."""
    height, width, q = number(args, a.H), number(args, a.W), number(args, a.Q)
    stride, strides = number(args, a.SW), number(args, a.SH)
    phase_bytes = number(args, a.PHASE_ROWS) * number(args, a.GROUP) * q * k.SIZE
    for down in range(strides):
        for r in range(rows):
            y = (band + r) * strides + down - number(args, a.BH)
            if y >= 0 and y < height:
                there = scratch + down * stride * phase_bytes + r * q * k.SIZE
                move_row(args, plane + y * width * ITEM, there, phase_bytes)


def fill_row(args: Any, row: Any, there: Any, phase_bytes: Any) -> None:
    """A row of x into its phases."""
    stride, before = number(args, a.SW), number(args, a.BW)
    columns = min(number(args, a.W), stride * number(args, a.Q) - before)
    if stride == 1:
        k.copy_x(row, there + before * k.SIZE, columns)
        return
    done = 0
    if stride == 2:
        even = there + before % 2 * phase_bytes + before // 2 * k.SIZE
        odd = there + (before + 1) % 2 * phase_bytes + (before + 1) // 2 * k.SIZE
        while done + 2 * k.HALF <= columns:
            k.split(row + done * k.ITEM, even + done // 2 * k.SIZE, odd + done // 2 * k.SIZE)
            done += 2 * k.HALF
        while done + 16 <= columns:
            k.split_8(row + done * k.ITEM, even + done // 2 * k.SIZE, odd + done // 2 * k.SIZE)
            done += 16
    phase, at = (done + before) % stride, (done + before) // stride
    for c in range(done, columns):
        k.write(there + phase * phase_bytes + at * k.SIZE, k.read_one_x(row + c * k.ITEM))
        phase += 1
        if phase == stride:
            phase = 0
            at += 1


def spill_row(args: Any, row: Any, there: Any, phase_bytes: Any) -> None:
    """A row of dx from its phases: written, or added to what is there."""
    stride, before, add = number(args, a.SW), number(args, a.BW), number(args, a.ADD)
    columns = min(number(args, a.W), stride * number(args, a.Q) - before)
    done = 0
    if stride == 1:
        while done + k.V <= columns:
            d = k.read(there + (before + done) * k.SIZE)
            k.write_dx(row + done * k.DX_ITEM, k.read_dx(row + done * k.DX_ITEM) + d if add else d)
            done += k.V
    if stride == 2:
        even = there + before % 2 * phase_bytes + before // 2 * k.SIZE
        odd = there + (before + 1) % 2 * phase_bytes + (before + 1) // 2 * k.SIZE
        while done + 2 * k.HALF <= columns:
            k.weave(even + done // 2 * k.SIZE, odd + done // 2 * k.SIZE, row + done * k.DX_ITEM, add)
            done += 2 * k.HALF
        while done + 16 <= columns:
            k.weave_8(even + done // 2 * k.SIZE, odd + done // 2 * k.SIZE, row + done * k.DX_ITEM, add)
            done += 16
    phase, at = (done + before) % stride, (done + before) // stride
    for c in range(done, columns):
        d = k.read_one(there + phase * phase_bytes + at * k.SIZE)
        to_one = row + c * k.DX_ITEM
        k.write_dx(to_one, k.read_one_dx(to_one) + d if add else d)
        phase += 1
        if phase == stride:
            phase = 0
            at += 1


def put_rows(args: Any, flat: Any, lane: Any, at: Any, rows: Any) -> Any:
    """The stored numbers of some rows of answers, from their slot to memory."""
    width, row = number(args, a.OW), number(args, a.Q) * k.OWN
    source = flat + k.SLOT * number(args, a.FLAT_BYTES) + lane * k.OWN
    to = number(args, k.ADDRESS) + at * k.BYTES
    for r in range(rows):
        k.copy_out(source + r * row, to + r * width * k.BYTES, width)
    return args


def get_rows(args: Any, flat: Any, lane: Any, at: Any, rows: Any) -> Any:
    """The stored numbers of some rows of answers, from memory to their slot."""
    width, row = number(args, a.OW), number(args, a.Q) * k.OWN
    to = flat + k.SLOT * number(args, a.FLAT_BYTES) + lane * k.OWN
    source = number(args, k.ADDRESS) + at * k.BYTES
    for r in range(rows):
        k.copy_in(source + r * width * k.BYTES, to + r * row, width)
    return args


def save_part(state: Any, flat: Any, flat_bytes: Any, lane: Any) -> Any:
    """A part of a state into its slot."""
    k.write(flat + k.SLOT * flat_bytes + lane * k.OWN, state[k.PART])
    return state


def restore_part(state: Any, flat: Any, flat_bytes: Any, lane: Any) -> Any:
    """The state with a part from its slot."""
    return k.replace(state, k.read_own(flat + k.SLOT * flat_bytes + lane * k.OWN))


def mean_of(args: Any, here: Any, valid: Any, first: Any, last: Any) -> Any:
    """The mean of each lane's taps; of no position at all it is the empty state's."""
    taps, valid_taps = number(args, a.TAPS), number(args, a.VALID_TAPS)
    slice_bytes, count = number(args, a.SLICE) * k.SIZE, number(args, a.KH) * number(args, a.KW)
    total, size = k.full(0), k.full(0)
    for d in range(first, last):
        for t in range(count):
            x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
            if MASKED:
                ok = k.read_mask(valid + number(valid_taps, t))
                total = k.word.where(ok, total + x, total)
                size = k.word.where(ok, size + k.full(1), size)
            else:
                total = total + x
                size = size + k.full(1)
    reference = total / size
    # once more: of equal numbers the mean is that number, to the last digit
    total = k.full(0)
    for d in range(first, last):
        for t in range(count):
            off = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE) - reference
            if MASKED:
                off = k.word.where(k.read_mask(valid + number(valid_taps, t)), off, k.full(0))
            total = total + off
    return k.word.where(size == k.full(0), k.empty()[0], reference + total / size)


def largest_of(args: Any, here: Any, valid: Any, first: Any, last: Any, p: Any) -> Any:
    """The largest key of each lane's taps."""
    taps, valid_taps = number(args, a.TAPS), number(args, a.VALID_TAPS)
    slice_bytes = number(args, a.SLICE) * k.SIZE
    reference = k.empty()[0]
    for d in range(first, last):
        for t in range(number(args, a.KH) * number(args, a.KW)):
            x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
            more = k.word.maximum(reference, k.keyed(x, p))
            if MASKED:
                more = k.word.where(k.read_mask(valid + number(valid_taps, t)), more, reference)
            reference = more
    return reference


def window_state(args: Any, xs: Any, valid: Any, lane: Any, first: Any, last: Any, p: Any) -> Any:
    """The state of so many answers at once, tap by tap; each row of taps has sums of its own."""
    high, wide, taps = number(args, a.KH), number(args, a.KW), number(args, a.TAPS)
    valid_taps, slice_bytes = number(args, a.VALID_TAPS), number(args, a.SLICE) * k.SIZE
    here, valid_here = xs + lane * k.SIZE, valid + lane
    if TERMS:
        if MEAN:
            reference = mean_of(args, here, valid_here, first, last)
        else:
            reference = largest_of(args, here, valid_here, first, last, p)
        sums = k.no_sums()
        for d in range(first, last):
            for row in range(high):
                part = k.no_sums()
                for t in range(row * wide, row * wide + wide):
                    x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                    terms = k.termed(x, reference, p)
                    if MASKED:
                        terms = k.chosen(k.read_mask(valid_here + number(valid_taps, t)), terms, k.no_sums())
                    part = added(part, terms)
                sums = added(sums, part)
        return (reference, *sums)
    state = k.empty()
    for d in range(first, last):
        for row in range(high):
            part = k.empty()
            for t in range(row * wide, row * wide + wide):
                x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                more = k.merged(part, k.lifted(x, k.full_position(d * high * wide + t), p), p)
                if MASKED:
                    more = k.chosen(k.read_mask(valid_here + number(valid_taps, t)), more, part)
                part = more
            state = k.merged(state, part, p)
    return state


def depths(args: Any, out: Any) -> Any:
    """The first tap along depth that is on the map, and the end."""
    depth, before, step, size = number(args, a.D), number(args, a.BD), number(args, a.STEPD), number(args, a.KD)
    start = out * number(args, a.SD) - before
    first = 0 if start >= 0 else (-start + step - 1) // step
    last = min(size, (depth - start + step - 1) // step) if depth > start else 0
    return first, last


def slice_of(args: Any, plane: Any, o: Any, d: Any) -> Any:
    """Where on the map the slice of tap d of answers o along depth begins, in numbers."""
    z = o * number(args, a.SD) - number(args, a.BD) + d * number(args, a.STEPD)
    return (plane * number(args, a.D) + z) * number(args, a.H) * number(args, a.W)


def fill_slices(args: Any, xs: Any, plane: Any, planes: Any, o: Any, band: Any) -> None:
    """The band of x that the answers o along depth look at, of each plane, into scratch."""
    first, last = depths(args, o)
    plane_elements = number(args, a.PHASE_ROWS) * number(args, a.Q)
    for d in range(first, last):
        for g in range(planes):
            source = number(args, a.X) + slice_of(args, plane + g, o, d) * k.ITEM
            to = xs + (d * number(args, a.SLICE) + g * plane_elements) * k.SIZE
            # the rows that windows of this band share with the next one's come along
            fill_rows(args, source, to, band, band_rows(args, band) + halo(args))


def spill_slices(args: Any, ds: Any, plane: Any, planes: Any, o: Any, band: Any) -> None:
    """dx of the same band, from scratch."""
    first, last = depths(args, o)
    plane_elements = number(args, a.PHASE_ROWS) * number(args, a.Q)
    for d in range(first, last):
        for g in range(planes):
            to = number(args, a.DX) + slice_of(args, plane + g, o, d) * k.DX_ITEM
            source = ds + (d * number(args, a.SLICE) + g * plane_elements) * k.SIZE
            spill_rows(args, to, source, band, band_rows(args, band) + halo(args))


def band_rows(args: Any, band: Any) -> Any:
    """How many rows of answers a band has."""
    return min(number(args, a.ROWS_PER_BAND), number(args, a.OH) - band)


def halo(args: Any) -> Any:
    return number(args, a.PHASE_ROWS) - number(args, a.ROWS_PER_BAND)


def lane_count(args: Any, planes: Any, band: Any) -> Any:
    """How many lanes a band of so many planes has."""
    rows = (planes - 1) * number(args, a.PHASE_ROWS) + band_rows(args, band) - 1
    return rows * number(args, a.Q) + number(args, a.OW)


def answer_of(args: Any, plane: Any, o: Any, band: Any) -> Any:
    """The number of the first answer of a plane's band."""
    out_rows = (plane * number(args, a.OD) + o) * number(args, a.OH) + band
    return out_rows * number(args, a.OW)


def windows_forward(args: Any) -> None:
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    xs, flat, flat_bytes = scratch + number(args, a.XS), scratch + number(args, a.FLAT), number(args, a.FLAT_BYTES)
    group, q, bands, channels = (
        number(args, a.GROUP),
        number(args, a.Q),
        number(args, a.BANDS),
        number(args, a.CHANNELS),
    )
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands * number(args, a.ROWS_PER_BAND)
        plane = task // bands * group
        planes = min(group, number(args, a.PLANES) - plane)
        p = k.parameters_of(args, plane // channels, plane % channels)
        valid = number(args, a.VALID) + band * q
        for o in range(number(args, a.OD)):
            first, last = depths(args, o)
            fill_slices(args, xs, plane, planes, o, band)
            for lane in range(0, lane_count(args, planes, band), k.V):
                state = window_state(args, xs, valid, lane, first, last, p)
                if COUNTED:
                    n = k.read(number(args, a.COUNTS) + (band * q + lane) * k.SIZE)
                    state = k.replace_count(state, n * k.full(number(number(args, a.COUNTS_D), o)))
                k.write(flat + lane * k.SIZE, k.answer(state, p))
                k.save_parts(state, flat, flat_bytes, lane)
            for g in range(planes):
                lane = g * number(args, a.PHASE_ROWS) * q
                k.put_all(args, flat, lane, answer_of(args, plane + g, o, band), band_rows(args, band))
        task = take(args + 8 * a.NEXT)


def tap_back(args: Any, xs: Any, ds: Any, flat: Any, band: Any, o: Any, lane: Any, d: Any, t: Any, p: Any, lanes: Any,
             slopes: Any) -> Any:  # fmt: skip
    """dx through one tap, for so many answers at once."""
    flat_bytes = number(args, a.FLAT_BYTES)
    at = (d * number(args, a.SLICE) + number(number(args, a.TAPS), t) + lane) * k.SIZE
    state = k.restore_parts(k.empty(), flat, flat_bytes, lane)
    if COUNTED:
        n = k.read(number(args, a.COUNTS) + (band * number(args, a.Q) + lane) * k.SIZE)
        state = k.replace_count(state, n * k.full(number(number(args, a.COUNTS_D), o)))
    g = k.read(flat + lane * k.SIZE)
    out = k.read(flat + OUT_SLOT * flat_bytes + lane * k.SIZE) if NEEDS_OUT else k.full(0)
    x = k.read(xs + at) if NEEDS_X else k.full(0)
    i = k.full_position(d * number(args, a.KH) * number(args, a.KW) + t)
    ok = k.read_mask(number(args, a.LANES_OK) + lane) & (k.counting() < k.full_position(lanes - lane))
    more = k.word.where(ok, g * k.shared(x, i, out, state, p), k.full(0))
    k.write(ds + at, k.read(ds + at) + more)
    if SLOPE:
        if MASKED:
            valid = number(args, a.VALID) + band * number(args, a.Q)
            ok = ok & k.read_mask(valid + number(number(args, a.VALID_TAPS), t) + lane)
        slopes = slopes + k.word.where(ok, g * k.sloped(x, i, out, state, p), k.full(0))
    return slopes


def band_back(args: Any, xs: Any, ds: Any, flat: Any, band: Any, o: Any, lanes: Any, p: Any, slopes: Any) -> Any:
    """dx through all taps of a band, in scratch."""
    first, last = depths(args, o)
    taps = number(args, a.KH) * number(args, a.KW)
    for d in range(first, last):
        for lane in range(0, number(args, a.SLICE), k.V):
            k.write(ds + (d * number(args, a.SLICE) + lane) * k.SIZE, k.full(0))
    if TERMS:  # answers by answers: what depends on the state alone, a power, is computed once
        for lane in range(0, lanes, k.V):
            part = k.full(0)
            for d in range(first, last):
                for t in range(taps):
                    part = tap_back(args, xs, ds, flat, band, o, lane, d, t, p, lanes, part)
            slopes = slopes + part
    else:  # tap by tap: a store is not read again at once, which would wait for it
        for d in range(first, last):
            for t in range(taps):
                for lane in range(0, lanes, k.V):
                    slopes = tap_back(args, xs, ds, flat, band, o, lane, d, t, p, lanes, slopes)
    return slopes


def windows_backward(args: Any) -> None:
    """One task: one group of planes, all its bands."""
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    xs, ds, flat = scratch + number(args, a.XS), scratch + number(args, a.DS), scratch + number(args, a.FLAT)
    group, channels = number(args, a.GROUP), number(args, a.CHANNELS)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        plane = task * group
        planes = min(group, number(args, a.PLANES) - plane)
        p = k.parameters_of(args, plane // channels, plane % channels)
        slopes = k.full(0)
        for o in range(number(args, a.OD)):
            for b in range(number(args, a.BANDS)):
                band = b * number(args, a.ROWS_PER_BAND)
                for g in range(planes):
                    lane = g * number(args, a.PHASE_ROWS) * number(args, a.Q)
                    k.get_all(args, flat, lane, answer_of(args, plane + g, o, band), band_rows(args, band))
                if NEEDS_X:
                    fill_slices(args, xs, plane, planes, o, band)
                slopes = band_back(args, xs, ds, flat, band, o, lane_count(args, planes, band), p, slopes)
                spill_slices(args, ds, plane, planes, o, band)
        if SLOPE:
            k.write(flat, slopes)
            total = k.read_one(flat)
            for lane in range(1, k.V):
                total += k.read_one(flat + lane * k.SIZE)
            k.write(number(args, a.SLOPES) + plane * k.SIZE, total)
        task = take(args + 8 * a.NEXT)


INLINED = (mean_of, largest_of)
HELPERS = (depths, slice_of, band_rows, halo, lane_count, answer_of, fill_slices, spill_slices, window_state, tap_back,
           band_back)  # fmt: skip
