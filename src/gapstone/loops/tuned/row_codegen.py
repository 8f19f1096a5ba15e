"""The functions of rows.py for one window: how a row is reduced across, and rows one below the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.tuned import rows
from gapstone.loops.tuned.lanes import I1, I8, I32, NUMBER, Lanes, WindowKernel, lowered, set_flag
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack


@dataclass(frozen=True)
class Rows(WindowKernel):
    """All that a kernel of rows.py is compiled for."""

    deep: bool = False
    keep: bool = False
    exact: bool = False
    paired: bool = False

    @property
    def half(self) -> int:
        """Lanes of one plane."""
        return self.lanes // 2 if self.paired else self.lanes

    @property
    def masks(self) -> int:
        """How many masks the loads of a row have at the edge of the map."""
        return self.kw if self.sw == 1 else -(-self.kw // 2) * (1 if self.paired else 2)

    def bind(self, tag: str) -> Any:
        """rows_forward for this window."""
        numbers = {
            "KH": self.kh, "SH": self.sh, "SW": self.sw, "NEW": min(self.kh, self.sh), "DEEP": self.deep,
            "KEEP": self.keep, "MEAN": self.op == "mean", "PAIRED": self.paired, "ITEM": BYTES[self.storage],
            "V": self.half,
        }  # fmt: skip
        return self.assemble(rows, ("rows_forward", "walk"), numbers, functions, tag)


class Across:
    """One window's instructions. Paired: the upper half of a register is another plane's."""

    def __init__(self, builder: Any, spec: Rows, edge: bool) -> None:
        self.spec, self.b, self.edge = spec, builder, edge
        self.lanes = Lanes(builder, spec.storage, spec.lanes, spec.op)
        self.item = BYTES[spec.storage]
        self.half = spec.half

    def at(self, address: Any, bytes_: int) -> Any:
        return self.b.add(address, self.lanes.number(bytes_)) if bytes_ else address

    def columns(self) -> list[int]:
        """The first columns of the pairs of registers that stride 2 is read from."""
        return sorted({t // 2 * 2 for t in range(self.spec.kw)})

    def masks(self, first: Any, width: Any) -> list[Any]:
        on = self.lanes.on
        if self.spec.sw == 1:
            return [on(self.at(first, t), width, self.half) for t in range(self.spec.kw)]
        halves = (0,) if self.spec.paired else (0, self.spec.lanes)
        return [on(self.at(first, column + half), width) for column in self.columns() for half in halves]

    def taps(self, at: Any, gap: Any, masks: list[Any] | None) -> tuple[list[Any], list[tuple[Any, Any]]]:
        """x at each tap of a row; and pairs of registers that together hold all that was read."""
        spec, load, other = self.spec, self.lanes.load, self.b.add(at, gap)
        if spec.sw == 1:
            columns = []
            for t in range(spec.kw):
                step, mask = t * self.item, masks[t] if masks else None
                x = load(self.at(at, step), mask, self.half)
                if spec.paired:
                    x = self.lanes.side_by_side(x, load(self.at(other, step), mask, self.half))
                columns.append(x)
            return columns, [(columns[0], columns[-1])]
        pairs = {}
        for n, column in enumerate(self.columns()):
            step = column * self.item
            first, second = (masks[n], masks[n]) if masks and spec.paired else (None, None)
            if masks and not spec.paired:
                first, second = masks[2 * n], masks[2 * n + 1]
            beside = self.at(other, step) if spec.paired else self.at(at, step + spec.lanes * self.item)
            pairs[column] = load(self.at(at, step), first), load(beside, second)
        columns = [self.lanes.shuffle(*pairs[t // 2 * 2], range(t % 2, 2 * spec.lanes, 2)) for t in range(spec.kw)]
        return columns, list(pairs.values())

    def row(self, at: Any, gap: Any, masks: list[Any] | None, bad: Any, d: Any) -> tuple[list[Any], Any]:
        """(the row's maximum and, if kept, which tap it was), and whether there was a NaN; `d`: the slice it is of."""
        columns, pairs = self.taps(at, gap, masks)
        spec = self.spec
        if spec.notices:
            for pair in pairs:
                bad = self.b.or_(bad, self.lanes.nan(*pair))
        v, i = columns[0], constant(self.positions(), 0)
        for t, x in enumerate(columns[1:], 1):
            if spec.keep:
                more = self.lanes.beats(x, v, spec.exact)
                v, i = self.b.select(more, x, v), self.b.select(more, constant(self.positions(), t), i)
            else:
                v = self.lanes.combine(v, x, spec.exact)
        if spec.keep and spec.deep:
            slices = self.b.mul(d, self.lanes.number(spec.kh * spec.kw))
            i = self.b.add(i, splat(self.b, self.b.trunc(slices, I8), spec.lanes))
        return ([v, i] if spec.keep else [v]), bad

    def positions(self) -> ir.VectorType:
        return ir.VectorType(I8, self.spec.lanes)

    def below(self, v: list[Any], x: list[Any], row: int) -> list[Any]:
        """Two rows' answers become one; `row`: the second's number in the window."""
        spec = self.spec
        if not spec.keep:
            return [self.lanes.combine(v[0], x[0], spec.exact)]
        more = self.lanes.beats(x[0], v[0], spec.exact)
        i = self.b.add(x[1], constant(self.positions(), row * spec.kw))
        if spec.deep:  # the first row's may be of a later slice
            same = self.b.fcmp_ordered("==", x[0], v[0])
            if spec.exact:
                both = self.b.and_(self.lanes.nan(x[0], x[0]), self.lanes.nan(v[0], v[0]))
                same = self.b.or_(same, both)
            more = self.b.or_(more, self.b.and_(same, self.b.icmp_unsigned("<", i, v[1])))
        return [self.b.select(more, x[0], v[0]), self.b.select(more, i, v[1])]

    def split(self, state: Any) -> tuple[list[list[Any]], Any]:
        """Rows, and where there was a NaN."""
        flat, parts = unpack(self.b, state), 2 if self.spec.keep else 1
        return [flat[n : n + parts] for n in range(0, len(flat) - 1, parts)], flat[-1]

    def flat(self, rows: list[list[Any]], bad: Any) -> tuple[Any, ...]:
        return *(part for row in rows for part in row), bad

    def push(self, state: Any, at: Any, gap: Any, masks: Any, d: Any) -> tuple[Any, ...]:
        before, bad = self.split(state)
        row, bad = self.row(at, gap, unpack(self.b, masks) if self.edge else None, bad, d)
        return self.flat([*before[1:], row], bad)

    def join(self, state: Any, at: Any, gap: Any, masks: Any, d: Any) -> tuple[Any, ...]:
        before, bad = self.split(state)
        row, bad = self.row(at, gap, unpack(self.b, masks) if self.edge else None, bad, d)
        return self.flat([*before[:-1], self.below(before[-1], row, 0)], bad)

    def push_blank(self, state: Any) -> tuple[Any, ...]:
        before, bad = self.split(state)
        return self.flat([*before[1:], self.blank()], bad)

    def total(self, state: Any) -> list[Any]:
        first, *rows = self.split(state)[0]
        for r, row in enumerate(rows, 1):
            first = self.below(first, row, r)
        return first

    def times(self, total: Any, address: Any) -> list[Any]:
        lanes = Lanes(self.b, "f32", self.spec.lanes, "mean")
        by = lanes.load(address, None, self.half)
        if self.spec.paired:
            by = lanes.side_by_side(by, by)
        return [self.b.fmul(unpack(self.b, total)[0], by)]

    def put(self, address: Any, gap: Any, total: Any, there: Any) -> None:
        self.store(unpack(self.b, total)[0], address, gap, there, self.spec.storage)

    def put_positions(self, address: Any, gap: Any, total: Any, there: Any) -> None:
        self.store(unpack(self.b, total)[-1], address, gap, there, "u8")

    def blank(self) -> list[Any]:
        return [self.lanes.blank(), constant(self.positions(), 0)][: 2 if self.spec.keep else 1]

    def store(self, value: Any, address: Any, gap: Any, there: Any, storage: str) -> None:
        own, mask = self.lanes, there if self.edge else None
        if not self.spec.paired:
            own.store(value, address, mask, storage)
            return
        own.store(own.shuffle(value, value, range(self.half)), address, mask, storage)
        own.store(own.shuffle(value, value, range(self.half, own.lanes)), self.b.add(address, gap), mask, storage)

    def placed(self, total: Any, taps: Any, y: Any, slices: Any) -> list[Any]:
        """Where all that was read is −∞, the first position on the map, not the first of the window."""
        b, own, spec = self.b, self.lanes, self.spec
        v, i = unpack(b, total)
        above = b.mul(b.sub(own.number(0), y), own.number(spec.kw))
        above = b.select(b.icmp_signed(">", above, own.number(0)), above, own.number(0))
        above = b.add(above, b.mul(slices, own.number(spec.kh * spec.kw)))
        first = b.add(taps, splat(b, b.trunc(above, I8), spec.lanes))
        return [v, b.select(b.fcmp_ordered("==", v, own.blank()), first, i)]

    def first_taps(self, first: Any) -> Any:
        """The first column of each window that is on the map."""
        b, columns = self.b, ir.VectorType(I32, self.spec.lanes)
        steps = [n % self.half * self.spec.sw for n in range(self.spec.lanes)]
        at = b.add(splat(b, b.trunc(first, I32), self.spec.lanes), ir.Constant(columns, steps))
        missing = b.sub(constant(columns, 0), at)
        missing = b.select(b.icmp_signed(">", missing, constant(columns, 0)), missing, constant(columns, 0))
        return b.trunc(missing, self.positions())


def functions(spec: Rows, edge: bool) -> dict[str, Any]:
    """Functions for rows.py; those of a strip at the edge of the map are masked."""
    lanes = spec.lanes
    mask, mask_of_plane = Vector("i1", lanes), Vector("i1", spec.half)
    parts = [Vector(spec.kind, lanes), Vector("i8", lanes)][: 2 if spec.keep else 1]
    row_state, rows_state = types.Tuple(parts), types.Tuple([*parts * spec.kh, mask])
    masks_state = types.Tuple([mask_of_plane if spec.sw == 1 else mask] * spec.masks)
    pushed, stored = [rows_state, NUMBER, NUMBER, masks_state, NUMBER], [NUMBER, NUMBER, row_state, mask_of_plane]

    def of(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda b, *values: method(Across(b, spec, edge), *values)

    return {
        "push": lowered(pushed, rows_state, of(Across.push)),
        "join": lowered(pushed, rows_state, of(Across.join)),
        "put": lowered(stored, types.void, of(Across.put)),
        "put_positions": lowered(stored, types.void, of(Across.put_positions)),
        "push_blank": lowered([rows_state], rows_state, of(Across.push_blank)),
        "no_rows": lowered([mask], rows_state, of(lambda own, bad: own.flat([own.blank()] * spec.kh, bad))),
        "total": lowered([rows_state], row_state, of(Across.total)),
        "bad": lowered([rows_state], mask, of(lambda own, state: own.split(state)[1])),
        "prefetch": lowered([NUMBER], types.void, of(lambda own, at: own.lanes.prefetch(at))),
        "fine": lowered([], mask, lambda b: constant(ir.VectorType(I1, lanes), 0)),
        "notice": lowered([NUMBER, mask], types.void, set_flag),
        "masks": lowered([NUMBER, NUMBER], masks_state, of(Across.masks)),
        "there": lowered([NUMBER, NUMBER], mask_of_plane, of(lambda own, j, wide: own.lanes.on(j, wide, spec.half))),
        "first_taps": lowered([NUMBER], Vector("i8", lanes), of(Across.first_taps)),
        "placed": lowered([row_state, Vector("i8", lanes), NUMBER, NUMBER], row_state, of(Across.placed)),
        "times": lowered([row_state, NUMBER], row_state, of(Across.times)),
    }
