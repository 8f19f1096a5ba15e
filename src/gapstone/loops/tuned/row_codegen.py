"""The words of rows.py for one window: how a row is reduced across, and rows one below the other."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.tuned import rows
from gapstone.loops.tuned.lanes import I8, I32, NUMBER, Lanes, word
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack


@dataclass(frozen=True)
class Rows:
    """All that a kernel of rows.py is compiled for."""

    op: str
    storage: str
    kh: int
    kw: int
    sh: int
    sw: int
    deep: bool = False
    keep: bool = False
    exact: bool = False
    paired: bool = False

    @property
    def lanes(self) -> int:
        return 64 if self.storage in ("u8", "i8") else 16

    @property
    def notices(self) -> bool:
        """NaN is noticed, where it is not minded."""
        return self.op == "max" and not self.exact and self.storage not in ("u8", "i8")

    @property
    def new(self) -> int:
        """Rows that a row of answers does not share with the one before."""
        return min(self.kh, self.sh)

    def bind(self, tag: str) -> Any:
        """rows_forward for this window; `tag` makes every helper's name its own (decision 0007)."""
        numbers: dict[str, Any] = {
            "KH": self.kh, "SH": self.sh, "SW": self.sw, "NEW": self.new, "DEEP": self.deep,
            "KEEP": self.keep, "MEAN": self.op == "mean", "PAIRED": self.paired, "ITEM": BYTES[self.storage],
            "V": self.lanes // 2 if self.paired else self.lanes,
        }  # fmt: skip
        both = words(self)
        strips: dict[str, Any] = {}
        for where, found in both.items():
            k: Any = ModuleType("k")
            vars(k).update(found)
            names = {**vars(rows), **numbers, "k": k, "EDGE": where == "edge"}
            names["row"] = njit(bound(rows.row, names), f"{where}_{tag}")
            strips[f"walk_{where}"] = njit(bound(rows.walk, names), f"{where}_{tag}", inline=False)
        k = ModuleType("k")
        vars(k).update({**both["inside"], **strips})
        name = f"rows_forward_{self.op}_{self.storage}_{tag}"
        return bound(rows.rows_forward, {**vars(rows), **numbers, "k": k}, name)


class Across:
    """One window's instructions. Paired: the upper half of a register is another plane's."""

    def __init__(self, builder: Any, spec: Any) -> None:
        self.spec = spec
        self.lanes = Lanes(builder, spec.storage, spec.lanes, spec.op)
        self.b = builder
        self.item = BYTES[spec.storage]
        self.half = spec.lanes // 2 if spec.paired else spec.lanes

    def at(self, address: Any, bytes_: int) -> Any:
        return self.b.add(address, self.lanes.number(bytes_)) if bytes_ else address

    def columns(self) -> list[int]:
        """The first columns of the pairs of registers that stride 2 is read from."""
        return sorted({t // 2 * 2 for t in range(self.spec.kw)})

    def masks(self, first: Any, width: Any) -> list[Any]:
        on = self.lanes.on
        if self.spec.sw == 1:
            return [on(self.at(first, t), width, self.half) for t in range(self.spec.kw)]
        made = []
        for column in self.columns():
            made.append(on(self.at(first, column), width))
            if not self.spec.paired:
                made.append(on(self.at(first, column + self.spec.lanes), width))
        return made

    def taps(self, at: Any, gap: Any, masks: list[Any] | None) -> tuple[list[Any], list[tuple[Any, Any]]]:
        """x at each tap of a row; and pairs of registers that together hold all that was read."""
        spec, load, other = self.spec, self.lanes.load, self.b.add(at, gap)
        if spec.sw == 1:
            found = []
            for t in range(spec.kw):
                step, mask = t * self.item, masks[t] if masks else None
                x = load(self.at(at, step), mask, self.half)
                if spec.paired:
                    x = self.lanes.side_by_side(x, load(self.at(other, step), mask, self.half))
                found.append(x)
            return found, [(found[0], found[-1])]
        pairs = {}
        for n, column in enumerate(self.columns()):
            step = column * self.item
            first, second = (masks[n], masks[n]) if masks and spec.paired else (None, None)
            if masks and not spec.paired:
                first, second = masks[2 * n], masks[2 * n + 1]
            beside = self.at(other, step) if spec.paired else self.at(at, step + spec.lanes * self.item)
            pairs[column] = load(self.at(at, step), first), load(beside, second)
        found = []
        for t in range(spec.kw):
            column, phase = t // 2 * 2, t % 2
            found.append(self.lanes.shuffle(*pairs[column], range(phase, 2 * spec.lanes, 2)))
        return found, list(pairs.values())

    def row(self, at: Any, gap: Any, masks: list[Any] | None, bad: Any, d: Any) -> tuple[list[Any], Any]:
        """(the row's maximum and, if kept, which tap it was), and whether there was a NaN; `d`: the slice it is of."""
        found, seen = self.taps(at, gap, masks)
        spec = self.spec
        if spec.notices:
            for pair in seen:
                bad = self.b.or_(bad, self.lanes.nan(*pair))
        v, i = found[0], constant(self.positions(), 0)
        for t, x in enumerate(found[1:], 1):
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

    def total(self, rows: list[list[Any]]) -> list[Any]:
        made = rows[0]
        for r, row in enumerate(rows[1:], 1):
            made = self.below(made, row, r)
        return made


def words(spec: Any) -> dict[str, Any]:
    """Functions for rows.py; those of a strip at the edge of the map, which is masked, are called edge_…"""
    lanes, half = spec.lanes, spec.lanes // 2 if spec.paired else spec.lanes
    kind = "f32" if spec.storage in ("f32", "bf16", "f16") else spec.storage
    one, mask, there = Vector(kind, lanes), Vector("i1", lanes), Vector("i1", half)
    parts = [one, Vector("i8", lanes)] if spec.keep else [one]
    width = len(parts)
    row_state = types.Tuple(parts)
    rows_state = types.Tuple([*parts * spec.kh, mask])
    mask_list = [Vector("i1", half if spec.sw == 1 else lanes)] * len(_masks_of(spec))
    masks_state = types.Tuple(mask_list)

    def split(b: Any, rows: Any) -> tuple[list[list[Any]], Any]:
        flat = unpack(b, rows)
        return [flat[n : n + width] for n in range(0, len(flat) - 1, width)], flat[-1]

    def flat(rows: list[list[Any]], bad: Any) -> tuple[Any, ...]:
        return *(part for row in rows for part in row), bad

    def blank(b: Any) -> list[Any]:
        return [Lanes(b, spec.storage, lanes, spec.op).blank(), constant(ir.VectorType(I8, lanes), 0)][:width]

    def push(edge: bool) -> Any:
        def emit(b: Any, rows: Any, at: Any, gap: Any, masks: Any, d: Any) -> Any:
            before, bad = split(b, rows)
            row, bad = Across(b, spec).row(at, gap, unpack(b, masks) if edge else None, bad, d)
            return flat([*before[1:], row], bad)

        return word(lambda *given: rows_state(*given), emit, [rows_state, NUMBER, NUMBER, masks_state, NUMBER])

    def join(edge: bool) -> Any:
        def emit(b: Any, rows: Any, at: Any, gap: Any, masks: Any, d: Any) -> Any:
            before, bad = split(b, rows)
            own = Across(b, spec)
            row, bad = own.row(at, gap, unpack(b, masks) if edge else None, bad, d)
            return flat([*before[:-1], own.below(before[-1], row, 0)], bad)

        return word(lambda *given: rows_state(*given), emit, [rows_state, NUMBER, NUMBER, masks_state, NUMBER])

    def push_blank(b: Any, rows: Any) -> Any:
        before, bad = split(b, rows)
        return flat([*before[1:], blank(b)], bad)

    def no_rows(b: Any, bad: Any) -> Any:
        return flat([blank(b)] * spec.kh, bad)

    def put(edge: bool) -> Any:
        def emit(b: Any, address: Any, gap: Any, total: Any, there: Any) -> None:
            _store(b, unpack(b, total)[0], address, gap, there if edge else None, spec.storage)

        return word(lambda *given: types.void(*given), emit, [NUMBER, NUMBER, row_state, there])

    def put_positions(edge: bool) -> Any:
        def emit(b: Any, address: Any, gap: Any, total: Any, there: Any) -> None:
            _store(b, unpack(b, total)[-1], address, gap, there if edge else None, "u8")

        return word(lambda *given: types.void(*given), emit, [NUMBER, NUMBER, row_state, there])

    def _store(b: Any, value: Any, address: Any, gap: Any, there: Any, storage: str) -> None:
        own = Lanes(b, spec.storage, lanes, spec.op)
        if not spec.paired:
            own.store(value, address, there, storage)
            return
        own.store(own.shuffle(value, value, range(half)), address, there, storage)
        own.store(own.shuffle(value, value, range(half, lanes)), b.add(address, gap), there, storage)

    def times(b: Any, total: Any, address: Any) -> Any:
        own = Lanes(b, "f32", lanes, "mean")
        by = own.load(address, None, half)
        if spec.paired:
            by = own.side_by_side(by, by)
        return [b.fmul(unpack(b, total)[0], by)]

    def first_taps(b: Any, first: Any) -> Any:
        """The first column of each window that is on the map."""
        own = ir.VectorType(I32, lanes)
        columns = b.add(
            splat(b, b.trunc(first, I32), lanes), ir.Constant(own, [n % half * spec.sw for n in range(lanes)])
        )
        missing = b.sub(constant(own, 0), columns)
        missing = b.select(b.icmp_signed(">", missing, constant(own, 0)), missing, constant(own, 0))
        return b.trunc(missing, ir.VectorType(I8, lanes))

    def placed(b: Any, total: Any, taps: Any, y: Any, slices: Any) -> Any:
        """Where all that was seen is −∞, the first position on the map, not the first of the window."""
        own = Lanes(b, spec.storage, lanes, spec.op)
        v, i = unpack(b, total)
        above = b.mul(b.sub(own.number(0), y), own.number(spec.kw))
        above = b.select(b.icmp_signed(">", above, own.number(0)), above, own.number(0))
        above = b.add(above, b.mul(slices, own.number(spec.kh * spec.kw)))
        first = b.add(taps, splat(b, b.trunc(above, I8), lanes))
        return [v, b.select(b.fcmp_ordered("==", v, own.blank()), first, i)]

    def notice(b: Any, address: Any, bad: Any) -> None:
        bits = ir.IntType(lanes)
        seen = b.icmp_unsigned("!=", b.bitcast(bad, bits), ir.Constant(bits, 0))
        with b.if_then(seen, likely=False):
            b.store(ir.Constant(ir.IntType(64), 1), b.inttoptr(address, ir.PointerType()))

    def made(arguments: list[Any], result: Any, emit: Any) -> Any:
        return word(lambda *given: result(*given), emit, arguments)

    shared = {
        "push_blank": made([rows_state], rows_state, push_blank),
        "no_rows": made([mask], rows_state, no_rows),
        "total": made([rows_state], row_state, lambda b, rows: Across(b, spec).total(split(b, rows)[0])),
        "bad": made([rows_state], mask, lambda b, rows: split(b, rows)[1]),
        "prefetch": made([NUMBER], types.void, lambda b, at: Lanes(b, spec.storage, lanes, spec.op).prefetch(at)),
        "fine": made([], mask, lambda b: constant(ir.VectorType(ir.IntType(1), lanes), 0)),
        "notice": made([NUMBER, mask], types.void, notice),
        "masks": made([NUMBER, NUMBER], masks_state, lambda b, c, w: tuple(Across(b, spec).masks(c, w))),
        "there": made([NUMBER, NUMBER], there, lambda b, j, w: Lanes(b, spec.storage, half, spec.op).on(j, w)),
        "first_taps": made([NUMBER], Vector("i8", lanes), first_taps),
        "placed": made([row_state, Vector("i8", lanes), NUMBER, NUMBER], row_state, placed) if spec.keep else None,
        "times": made([row_state, NUMBER], row_state, times) if spec.op == "mean" else None,
    }
    inside = {"push": push(False), "join": join(False), "put": put(False), "put_positions": put_positions(False)}
    edge = {"push": push(True), "join": join(True), "put": put(True), "put_positions": put_positions(True)}
    return {"inside": {**shared, **inside}, "edge": {**shared, **edge}}


def _masks_of(spec: Any) -> list[int]:
    if spec.sw == 1:
        return list(range(spec.kw))
    pairs = -(-spec.kw // 2)
    return list(range(pairs * (1 if spec.paired else 2)))
