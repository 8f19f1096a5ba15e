"""Compiled loop over windows of contiguous maps: the lanes of a vector are answers that lie side by side.

A band of a plane's rows is copied into scratch with its padding, and split into phases: the columns (and rows) that
stride 2 makes every second tap read lie side by side. So tap t of answer l is at t's offset + l, for every stride,
dilation and padding; lanes run on over the ends of rows (what they compute there is not looked at), and a row of 7
costs no more than its share. A table says which places are on the map.

These functions are templates: specialize.py binds `k` (the pool's functions, numbers that are known) and the flags.
"""

from typing import Any

from gapstone.loops import kernel_arguments as a
from gapstone.loops.vector_memory import number, take
from gapstone.loops.vectors import added

k: Any = None
TERMS = MEAN = MASKED = NEEDS_X = NEEDS_OUT = SLOPE = COUNTED = KEEP0 = KEEP1 = KEEP2 = KEEP3 = False


def copy_row(source: Any, to: Any, count: Any) -> None:
    """A row of x into scratch."""
    done = 0
    while done + k.V <= count:
        k.write(to + done * k.SIZE, k.read_x(source + done * k.ITEM))
        done += k.V
    while done + 8 <= count:
        k.write(to + done * k.SIZE, k.read_8_x(source + done * k.ITEM))
        done += 8
    while done < count:
        k.write(to + done * k.SIZE, k.read_one_x(source + done * k.ITEM))
        done += 1


def fill_phases(args: Any, source: Any, to: Any, band: Any, rows: Any) -> None:
    """One slice of one plane into scratch."""
    height, width, q = number(args, a.H), number(args, a.W), number(args, a.Q)
    stride, strides, before = number(args, a.SW), number(args, a.SH), number(args, a.BW)
    phase_bytes = number(args, a.PHASE_ROWS) * number(args, a.GROUP) * q * k.SIZE
    columns = min(width, stride * q - before)
    for down in range(strides):
        for r in range(rows):
            y = (band + r) * strides + down - number(args, a.BH)
            if y < 0 or y >= height:
                continue
            row = source + y * width * k.ITEM
            there = to + down * stride * phase_bytes + r * q * k.SIZE
            if stride == 1:
                copy_row(row, there + before * k.SIZE, columns)
                continue
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


def spill_phases(args: Any, source: Any, to: Any, band: Any, rows: Any) -> None:
    """dx of one slice of one plane: written, or added to what is there."""
    height, width, q = number(args, a.H), number(args, a.W), number(args, a.Q)
    stride, strides, before = number(args, a.SW), number(args, a.SH), number(args, a.BW)
    phase_bytes = number(args, a.PHASE_ROWS) * number(args, a.GROUP) * q * k.SIZE
    add = number(args, a.ADD)
    columns = min(width, stride * q - before)
    for down in range(strides):
        for r in range(rows):
            y = (band + r) * strides + down - number(args, a.BH)
            if y < 0 or y >= height:
                continue
            row = to + y * width * k.DX_ITEM
            there = source + down * stride * phase_bytes + r * q * k.SIZE
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


def put_rows(args: Any, flat: Any, lane: Any, address: Any, rows: Any) -> None:
    """Answers that lie Q apart in scratch, row by row to where they belong."""
    width, q = number(args, a.OW), number(args, a.Q)
    for r in range(rows):
        source, to = flat + (lane + r * q) * k.OWN, address + r * width * k.BYTES
        done = 0
        while done + k.V <= width:
            k.write_there(to + done * k.BYTES, k.read_own(source + done * k.OWN))
            done += k.V
        while done + 8 <= width:
            k.write_there(to + done * k.BYTES, k.read_8_own(source + done * k.OWN))
            done += 8
        while done < width:
            k.write_there(to + done * k.BYTES, k.read_one_own(source + done * k.OWN))
            done += 1


def get_rows(args: Any, flat: Any, lane: Any, address: Any, rows: Any) -> None:
    width, q = number(args, a.OW), number(args, a.Q)
    for r in range(rows):
        to, source = flat + (lane + r * q) * k.OWN, address + r * width * k.BYTES
        done = 0
        while done + k.V <= width:
            k.write(to + done * k.OWN, k.read_there(source + done * k.BYTES))
            done += k.V
        while done + 8 <= width:
            k.write(to + done * k.OWN, k.read_8_there(source + done * k.BYTES))
            done += 8
        while done < width:
            k.write(to + done * k.OWN, k.read_one_there(source + done * k.BYTES))
            done += 1


def window_state(args: Any, xs: Any, valid: Any, lane: Any, first: Any, last: Any, p: Any) -> Any:
    """The state of so many answers at once, tap by tap; each row of taps has sums of its own."""
    high, wide, taps, valid_taps = (
        number(args, a.KH),
        number(args, a.KW),
        number(args, a.TAPS),
        number(args, a.VALID_TAPS),
    )
    slice_bytes = number(args, a.SLICE) * k.SIZE
    here = xs + lane * k.SIZE
    state = k.empty()
    if TERMS:
        reference = state[0]
        if MEAN:
            total, size = k.full(0), k.full(0)
            for d in range(first, last):
                for t in range(high * wide):
                    x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                    if MASKED:
                        ok = k.read_mask(valid + number(valid_taps, t) + lane)
                        total = k.word.where(ok, total + x, total)
                        size = k.word.where(ok, size + k.full(1), size)
                    else:
                        total = total + x
                        size = size + k.full(1)
            reference = total / size
            # once more: of equal numbers the mean is that number, to the last digit
            total = k.full(0)
            for d in range(first, last):
                for t in range(high * wide):
                    off = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE) - reference
                    if MASKED:
                        off = k.word.where(k.read_mask(valid + number(valid_taps, t) + lane), off, k.full(0))
                    total = total + off
            reference = reference + total / size
        else:
            for d in range(first, last):
                for t in range(high * wide):
                    x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                    more = k.word.maximum(reference, k.keyed(x, p))
                    if MASKED:
                        more = k.word.where(k.read_mask(valid + number(valid_taps, t) + lane), more, reference)
                    reference = more
        sums = k.no_sums()
        for d in range(first, last):
            for row in range(high):
                part = k.no_sums()
                for t in range(row * wide, row * wide + wide):
                    x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                    terms = k.termed(x, reference, p)
                    if MASKED:
                        terms = k.chosen(k.read_mask(valid + number(valid_taps, t) + lane), terms, k.no_sums())
                    part = added(part, terms)
                sums = added(sums, part)
        if MEAN:  # of no position at all the mean is the empty state's
            reference = k.word.where(size == k.full(0), k.empty()[0], reference)
        return (reference, *sums)
    for d in range(first, last):
        for row in range(high):
            part = k.empty()
            for t in range(row * wide, row * wide + wide):
                x = k.read(here + d * slice_bytes + number(taps, t) * k.SIZE)
                more = k.merged(part, k.lifted(x, k.full_position(d * high * wide + t), p), p)
                if MASKED:
                    more = k.chosen(k.read_mask(valid + number(valid_taps, t) + lane), more, part)
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


def windows_forward(args: Any) -> None:
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    xs, flat, flat_bytes = scratch + number(args, a.XS), scratch + number(args, a.FLAT), number(args, a.FLAT_BYTES)
    group, q, phase_rows = number(args, a.GROUP), number(args, a.Q), number(args, a.PHASE_ROWS)
    bands, band_rows, channels = number(args, a.BANDS), number(args, a.ROWS_PER_BAND), number(args, a.CHANNELS)
    area, answers, out_depth = (
        number(args, a.H) * number(args, a.W),
        number(args, a.OH) * number(args, a.OW),
        number(args, a.OD),
    )
    halo = phase_rows - band_rows
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        band = task % bands * band_rows
        plane = task // bands * group
        planes = min(group, number(args, a.PLANES) - plane)
        rows = min(band_rows, number(args, a.OH) - band)
        p = k.parameters_of(args, plane // channels, plane % channels)
        lanes = (planes - 1) * phase_rows * q + (rows - 1) * q + number(args, a.OW)
        for o in range(out_depth):
            first, last = depths(args, o)
            for d in range(first, last):
                z = o * number(args, a.SD) - number(args, a.BD) + d * number(args, a.STEPD)
                for g in range(planes):
                    source = number(args, a.X) + ((plane + g) * number(args, a.D) + z) * area * k.ITEM
                    to = xs + (d * number(args, a.SLICE) + g * phase_rows * q) * k.SIZE
                    fill_phases(args, source, to, band, rows + halo)
            valid = number(args, a.VALID) + band * q
            for lane in range(0, lanes, k.V):
                state = window_state(args, xs, valid, lane, first, last, p)
                if COUNTED:
                    n = k.read(number(args, a.COUNTS) + (band * q + lane) * k.SIZE)
                    state = k.replace_count(state, n * k.full(number(number(args, a.COUNTS_D), o)))
                k.write(flat + lane * k.SIZE, k.answer(state, p))
                if KEEP0 and number(args, a.KEPT0):
                    k.write(flat + flat_bytes + lane * k.KEPT0_OWN, state[0])
                if KEEP1 and number(args, a.KEPT1):
                    k.write(flat + 2 * flat_bytes + lane * k.KEPT1_OWN, state[1])
                if KEEP2 and number(args, a.KEPT2):
                    k.write(flat + 3 * flat_bytes + lane * k.KEPT2_OWN, state[2])
                if KEEP3 and number(args, a.KEPT3):
                    k.write(flat + 4 * flat_bytes + lane * k.KEPT3_OWN, state[3])
            for g in range(planes):
                lane = g * phase_rows * q
                at = ((plane + g) * out_depth + o) * answers + band * number(args, a.OW)
                k.put_rows_out(args, flat, lane, number(args, a.OUT) + at * k.OUT_ITEM, rows)
                if KEEP0 and number(args, a.KEPT0):
                    k.put_rows_kept0(args, flat + flat_bytes, lane, number(args, a.KEPT0) + at * k.KEPT0_ITEM, rows)
                if KEEP1 and number(args, a.KEPT1):
                    k.put_rows_kept1(args, flat + 2 * flat_bytes, lane, number(args, a.KEPT1) + at * k.KEPT1_ITEM, rows)
                if KEEP2 and number(args, a.KEPT2):
                    k.put_rows_kept2(args, flat + 3 * flat_bytes, lane, number(args, a.KEPT2) + at * k.KEPT2_ITEM, rows)
                if KEEP3 and number(args, a.KEPT3):
                    k.put_rows_kept3(args, flat + 4 * flat_bytes, lane, number(args, a.KEPT3) + at * k.KEPT3_ITEM, rows)
        task = take(args + 8 * a.NEXT)


def lane_state(flat: Any, flat_bytes: Any, lane: Any, n: Any) -> Any:
    state = k.empty()
    if KEEP0:
        state = k.replace0(state, k.read_kept0(flat + flat_bytes + lane * k.KEPT0_OWN))
    if KEEP1:
        state = k.replace1(state, k.read_kept1(flat + 2 * flat_bytes + lane * k.KEPT1_OWN))
    if KEEP2:
        state = k.replace2(state, k.read_kept2(flat + 3 * flat_bytes + lane * k.KEPT2_OWN))
    if KEEP3:
        state = k.replace3(state, k.read_kept3(flat + 4 * flat_bytes + lane * k.KEPT3_OWN))
    if COUNTED:
        state = k.replace_count(state, n)
    return state


def tap_back(args: Any, xs: Any, ds: Any, valid: Any, flat: Any, band: Any, o: Any, lane: Any, d: Any, t: Any, p: Any,
             lanes: Any, slopes: Any) -> Any:  # fmt: skip
    """dx through one tap, for so many answers at once."""
    flat_bytes = number(args, a.FLAT_BYTES)
    at = (d * number(args, a.SLICE) + number(number(args, a.TAPS), t) + lane) * k.SIZE
    n = k.full(1)
    if COUNTED:
        n = k.read(number(args, a.COUNTS) + (band * number(args, a.Q) + lane) * k.SIZE)
        n = n * k.full(number(number(args, a.COUNTS_D), o))
    state = lane_state(flat, flat_bytes, lane, n)
    g = k.read(flat + lane * k.SIZE)
    out = k.read(flat + 5 * flat_bytes + lane * k.SIZE) if NEEDS_OUT else k.full(0)
    x = k.read(xs + at) if NEEDS_X else k.full(0)
    i = k.full_position(d * number(args, a.KH) * number(args, a.KW) + t)
    ok = k.read_mask(number(args, a.LANES_OK) + lane) & (k.counting() < k.full_position(lanes - lane))
    more = k.word.where(ok, g * k.shared(x, i, out, state, p), k.full(0))
    k.write(ds + at, k.read(ds + at) + more)
    if SLOPE:
        if MASKED:
            ok = ok & k.read_mask(valid + number(number(args, a.VALID_TAPS), t) + lane)
        slopes = slopes + k.word.where(ok, g * k.sloped(x, i, out, state, p), k.full(0))
    return slopes


def windows_backward(args: Any) -> None:
    """One task: one group of planes, all its bands."""
    scratch = number(args, a.SCRATCH) + take(args + 8 * a.SLOT) * number(args, a.SCRATCH_BYTES)
    xs, ds = scratch + number(args, a.XS), scratch + number(args, a.DS)
    flat, flat_bytes = scratch + number(args, a.FLAT), number(args, a.FLAT_BYTES)
    group, q, phase_rows = number(args, a.GROUP), number(args, a.Q), number(args, a.PHASE_ROWS)
    bands, band_rows, channels = number(args, a.BANDS), number(args, a.ROWS_PER_BAND), number(args, a.CHANNELS)
    area, answers, out_depth = (
        number(args, a.H) * number(args, a.W),
        number(args, a.OH) * number(args, a.OW),
        number(args, a.OD),
    )
    halo, taps = phase_rows - band_rows, number(args, a.KH) * number(args, a.KW)
    task = take(args + 8 * a.NEXT)
    while task < number(args, a.TASKS):
        plane = task * group
        planes = min(group, number(args, a.PLANES) - plane)
        p = k.parameters_of(args, plane // channels, plane % channels)
        slopes = k.full(0)
        for o in range(out_depth):
            first, last = depths(args, o)
            for b in range(bands):
                band = b * band_rows
                rows = min(band_rows, number(args, a.OH) - band)
                lanes = (planes - 1) * phase_rows * q + (rows - 1) * q + number(args, a.OW)
                valid = number(args, a.VALID) + band * q
                for g in range(planes):
                    lane = g * phase_rows * q
                    at = ((plane + g) * out_depth + o) * answers + band * number(args, a.OW)
                    k.get_rows_grad(args, flat, lane, number(args, a.GRAD) + at * k.GRAD_ITEM, rows)
                    if NEEDS_OUT:
                        k.get_rows_out(args, flat + 5 * flat_bytes, lane, number(args, a.OUT) + at * k.OUT_ITEM, rows)
                    if KEEP0:
                        k.get_rows_kept0(args, flat + flat_bytes, lane, number(args, a.KEPT0) + at * k.KEPT0_ITEM, rows)
                    if KEEP1:
                        k.get_rows_kept1(
                            args, flat + 2 * flat_bytes, lane, number(args, a.KEPT1) + at * k.KEPT1_ITEM, rows
                        )
                    if KEEP2:
                        k.get_rows_kept2(
                            args, flat + 3 * flat_bytes, lane, number(args, a.KEPT2) + at * k.KEPT2_ITEM, rows
                        )
                    if KEEP3:
                        k.get_rows_kept3(
                            args, flat + 4 * flat_bytes, lane, number(args, a.KEPT3) + at * k.KEPT3_ITEM, rows
                        )
                for d in range(first, last):
                    for lane in range(0, number(args, a.SLICE), k.V):
                        k.write(ds + (d * number(args, a.SLICE) + lane) * k.SIZE, k.full(0))
                    z = o * number(args, a.SD) - number(args, a.BD) + d * number(args, a.STEPD)
                    for g in range(planes):
                        source = number(args, a.X) + ((plane + g) * number(args, a.D) + z) * area * k.ITEM
                        to = xs + (d * number(args, a.SLICE) + g * phase_rows * q) * k.SIZE
                        if NEEDS_X:
                            fill_phases(args, source, to, band, rows + halo)
                    if not TERMS:  # tap by tap: a store is not read again at once, which would wait for it
                        for t in range(taps):
                            for lane in range(0, lanes, k.V):
                                slopes = tap_back(args, xs, ds, valid, flat, band, o, lane, d, t, p, lanes, slopes)
                if TERMS:  # answers by answers: what depends on the state alone, a power, is computed once
                    for lane in range(0, lanes, k.V):
                        part = k.full(0)
                        for d in range(first, last):
                            for t in range(taps):
                                part = tap_back(args, xs, ds, valid, flat, band, o, lane, d, t, p, lanes, part)
                        slopes = slopes + part
                if number(args, a.DX):
                    for d in range(first, last):
                        z = o * number(args, a.SD) - number(args, a.BD) + d * number(args, a.STEPD)
                        for g in range(planes):
                            to = number(args, a.DX) + ((plane + g) * number(args, a.D) + z) * area * k.DX_ITEM
                            source = ds + (d * number(args, a.SLICE) + g * phase_rows * q) * k.SIZE
                            spill_phases(args, source, to, band, rows + halo)
        if SLOPE:
            k.write(flat, slopes)
            total = k.read_one(flat)
            for lane in range(1, k.V):
                total += k.read_one(flat + lane * k.SIZE)
            k.write(number(args, a.SLOPES) + plane * k.SIZE, total)
        task = take(args + 8 * a.NEXT)


HELPERS = (copy_row, fill_phases, spill_phases, window_state, depths, lane_state, tap_back)
