"""Launching over_windows.py: phases, bands, tables of which places are on the map, and how the work is cut."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from gapstone.loops import kernel_arguments as a
from gapstone.loops.kernel_call import KernelCall, KernelWork
from gapstone.loops.launch_places import divisors
from gapstone.regions.places import Divisor, Intervals, Windows

FEWEST = 8  # answers per plane below which its channels make better lanes
BAND = 1 << 14  # elements of scratch for a band: 64 KB of float32
MOST = 1 << 20  # more elements than this in one row of windows: lists of positions are the better way
ONE = Windows(1, 1, 1, 0, 0, 1)


def fits(call: KernelCall) -> bool:
    """Windows along all axes of a contiguous map."""
    place = call.place
    if not isinstance(place, Intervals) or place.axes is None or call.channels_last:
        return False
    if not all(isinstance(axis, Windows) for axis in place.axes) or prod(call.cells) < FEWEST:
        return False
    return _plan_of(call, place) is not None


def _plan_of(call: KernelCall, place: Intervals) -> "WindowsPlan | None":
    most_planes = 1 if call.pool.parameters else 64
    return plan(place.axes, call.spatial, place.divisor, call.lanes, call.size, most_planes)


def _plan(call: KernelCall) -> "WindowsPlan":
    """Of a call that fits."""
    assert isinstance(call.place, Intervals)
    made = _plan_of(call, call.place)
    assert made is not None
    return made


@dataclass(frozen=True, eq=False)
class WindowsPlan:
    """Everything that follows from the geometry alone."""

    given: dict[int, int]
    tables: tuple[np.ndarray, ...]
    group: int
    bands: int
    masked: bool
    covers: bool
    scratch: int


@lru_cache(256)
def plan(
    axes: tuple[Windows, ...], spatial: tuple[int, ...], divisor: Divisor, lanes: int, size: int, most_planes: int
) -> WindowsPlan | None:
    deep, high, wide = (ONE,) * (3 - len(axes)) + axes
    depth, height, width = (1,) * (3 - len(axes)) + spatial
    q = wide.cells + (wide.size - 1) * wide.step // wide.stride
    halo = (high.size - 1) * high.step // high.stride
    phases = high.stride * wide.stride
    row = deep.size * phases * q
    if row * (1 + halo) > MOST:
        return None
    rows = max(1, min(high.cells, BAND // row - halo))
    bands = -(-high.cells // rows)
    rows = -(-high.cells // bands)
    bands = -(-high.cells // rows)
    phase_rows = rows + halo
    group = max(1, min(most_planes, BAND // (row * phase_rows), 256 // (phase_rows * q))) if bands == 1 else 1
    table_rows = group * phase_rows if group > 1 else high.cells + halo
    slice_elements = -(-(phases * group * phase_rows * q + 2 * lanes) // lanes) * lanes

    across = _on_map(wide, width, np.arange(q))
    down = np.tile(
        _on_map(high, height, np.arange(phase_rows if group > 1 else table_rows)), (1, group if group > 1 else 1)
    )
    valid = down[:, None, :, None] & across[None, :, None, :]
    lane = (np.arange(phase_rows) < rows)[:, None] & (np.arange(q) < wide.cells)
    lanes_ok = np.tile(lane, (group, 1))
    padded = tuple(
        np.concatenate([table.astype(np.uint8).ravel(), np.zeros(4 * lanes, np.uint8)]) for table in (valid, lanes_ok)
    )
    masked = any(
        axis.before > 0 or (axis.cells - 1) * axis.stride - axis.before + (axis.size - 1) * axis.step >= length
        for axis, length in ((high, height), (wide, width))
    )
    of_depth, counts = _divisors(axes, spatial, divisor, (table_rows, q), phase_rows, group)
    counts = np.concatenate([counts.ravel(), np.ones(4 * lanes)]).astype(np.float32 if size == 4 else np.float64)
    taps = (_offsets(high, wide, q, many) for many in (group * phase_rows, table_rows))
    tables = (*taps, *padded, counts, np.array(of_depth, np.int64))
    places = (a.TAPS, a.VALID_TAPS, a.VALID, a.LANES_OK, a.COUNTS, a.COUNTS_D)
    given = dict(zip(places, (table.ctypes.data for table in tables), strict=True))
    given |= {a.GROUP: group, a.BANDS: bands, a.ROWS_PER_BAND: rows, a.PHASE_ROWS: phase_rows, a.Q: q}
    given |= {a.D: depth, a.H: height, a.W: width, a.OD: deep.cells, a.OH: high.cells, a.OW: wide.cells}
    given |= {a.KD: deep.size, a.KH: high.size, a.KW: wide.size}
    given |= {a.SD: deep.stride, a.SH: high.stride, a.SW: wide.stride}
    given |= {a.BD: deep.before, a.BH: high.before, a.BW: wide.before, a.STEPD: deep.step, a.SLICE: slice_elements}
    flat = -(-(group * phase_rows * q + 2 * lanes) * 8 // 64) * 64
    slices = deep.size * slice_elements * size
    given |= {a.XS: 0, a.DS: slices, a.FLAT: 2 * slices, a.FLAT_BYTES: flat}
    covers = phase_rows * high.stride - high.before >= height and q * wide.stride - wide.before >= width
    covers &= bands == 1 and depth == 1 and deep == ONE
    return WindowsPlan(given, tables, group, bands, masked, covers, 2 * slices + 6 * flat)


def _offsets(high: Windows, wide: Windows, q: int, per_phase: int) -> np.ndarray:
    """Per tap where its first element is in a table of so many rows per phase."""
    down, right = np.arange(high.size)[:, None] * high.step, np.arange(wide.size)[None] * wide.step
    phase = down % high.stride * wide.stride + right % wide.stride
    return np.ascontiguousarray((phase * per_phase + down // high.stride) * q + right // wide.stride, np.int64)


def _on_map(axis: Windows, length: int, indices: np.ndarray) -> np.ndarray:
    """(phases, indices): which places of each phase are on the map."""
    places = indices * axis.stride + np.arange(axis.stride)[:, None] - axis.before
    return (places >= 0) & (places < length)


def _divisors(
    axes: tuple[Windows, ...], spatial: tuple[int, ...], divisor: Divisor, size: tuple[int, int], phase_rows: int,
    group: int,
) -> tuple[list[int], np.ndarray]:  # fmt: skip
    """What a mean divides by: per cell along depth, and per lane of a band."""
    per_axis = [divisors(axis, n, divisor, k == 0) for k, (axis, n) in enumerate(zip(axes, spatial, strict=True))]
    of_depth, of_rows, of_columns = [[1]] * (3 - len(axes)) + per_axis
    counts = np.ones(size)
    counts[: len(of_rows), : len(of_columns)] = np.multiply.outer(of_rows, of_columns)
    return of_depth, np.tile(counts[:phase_rows], (group, 1)) if group > 1 else counts


def template(call: KernelCall) -> tuple[str, bool]:
    """The template, without its direction, and whether it masks places that are not on the map."""
    return "windows", _plan(call).masked


def meets(call: KernelCall) -> tuple[bool, bool]:
    """Whether a position's gradient is written in more than one go, and whether all are written."""
    made = _plan(call)
    return made.bands > 1 or len(call.spatial) == 3, made.covers


def work(call: KernelCall, backward: bool) -> KernelWork:
    """How a call is cut: groups of planes, forward also bands of their rows."""
    made = _plan(call)
    planes = call.shape[0] * call.shape[1]
    tasks = -(-planes // made.group) * (1 if backward else made.bands)
    return KernelWork({**made.given, a.PLANES: planes}, tasks, made.scratch, made)
