"""The words of whole_rows.py and whole_columns.py: one pool's running state, as vectors.

An *open* state is what a loop carries: the largest x and whether there was a NaN, its position, sums. A *part* is a
closed one: the NaN has become the largest. *Totals* are parts that were joined, their sums in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gapstone.loops import vectors
from gapstone.loops.compiled import _bound, _njit
from gapstone.loops.tuned import whole_columns, whole_rows
from gapstone.loops.tuned.lanes import FAST, I1, I8, I32, I64, NUMBER, Lanes, unpack, word
from gapstone.loops.tuned.whole_maths import Maths
from gapstone.loops.vectors import BYTES, Vector, constant, splat
from gapstone.pools.gem import LEAST

LANES = 16
ROOM = 64 * LANES  # bytes of stack for a vector of each of sixteen rows
FLOAT, DOUBLE, ZERO = ir.FloatType(), ir.DoubleType(), ir.Constant(I64, 0)
CHANNELS_PER_TASK = 1024  # at most; their sums wait on the stack
SUMS = {"mean": 1, "max": 0, "avgmax": 1, "gem": 1, "logsumexp": 2, "softmax": 2}


@dataclass(frozen=True)
class Whole:
    """All that a kernel over whole maps is compiled for."""

    op: str
    storage: str
    columns: bool
    keep: bool = False
    power: int = 0  # gem by x² or x³; 0: by pow, against the largest
    masked: bool = False

    files = (
        "whole_arguments.py",
        "whole_maths.py",
        "whole_words.py",
        "whole_rows.py",
        "whole_columns.py",
        "../words.py",
    )

    @property
    def referenced(self) -> bool:
        """In two passes, the first for the largest x."""
        return self.op in ("logsumexp", "softmax") or (self.op == "gem" and not self.power)

    @property
    def positions(self) -> bool:
        return self.keep and self.op in ("max", "avgmax")

    @property
    def wide(self) -> int:
        """Lanes of the loops that carry most: four registers hide an addition's four cycles; a power needs the room."""
        return 32 if self.referenced else 64

    def bind(self, tag: str) -> Any:
        """rows_forward or columns_forward of this pool; `tag` makes every helper's name its own (decision 0007)."""
        template: Any = whole_columns if self.columns else whole_rows
        numbers: dict[str, Any] = {
            "REFERENCED": self.referenced, "MASKED": self.masked, "GIVEN": self.referenced,
            "FOUR": not self.referenced, "ITEM": BYTES[self.storage], "WIDE": self.wide,
            "LANES": LANES, "BLOCK": 64 if self.columns else 512 if self.referenced else 4096,
        }  # fmt: skip
        k: Any = ModuleType("k")
        names = {**vars(template), **numbers, "k": k}

        def helper(function: Any, where: str, words: dict[str, Any], inline: bool = False) -> Any:
            own: Any = ModuleType("k")
            vars(own).update(words)
            return _njit(_bound(function, {**names, "k": own}), f"{where}_{tag}", inline)

        if self.columns:
            vars(k)["room"] = column_room()
            for where, lanes in (("wide", self.wide), ("edge", LANES)):
                found = column_words(self, lanes, where == "edge")
                for name, own in found["passes"].items():
                    found["all"][f"pillar_{name}"] = helper(whole_columns.pillar, f"{name}_{where}", own)
                vars(k)[f"piece_{where}"] = helper(whole_columns.piece, where, found["all"])
        else:
            found = row_words(self)
            for name, own in found["passes"].items():
                found["all"][f"sweep_{name}"] = helper(whole_rows.sweep, name, own, True)
            vars(k).update(found["all"], group=helper(whole_rows.group, "", found["all"]))
        forward = template.columns_forward if self.columns else template.rows_forward
        return _bound(forward, names, f"{forward.__name__}_{self.op}_{self.storage}_{tag}")


@dataclass(frozen=True)
class State:
    """Which parts there are, in how many lanes."""

    spec: Whole
    lanes: int
    largest: bool
    position: bool
    sums: int

    def types(self, total: str = "f32") -> list[Any]:
        """Of a part, or of totals."""
        kinds = ["f32"] * self.largest + ["i32"] * self.position + [total] * self.sums
        return [Vector(kind, self.lanes) for kind in kinds]

    def open_types(self) -> list[Any]:
        return [*([Vector("i1", self.lanes)] if self.largest else []), *self.types()]


def whole_state(spec: Whole, lanes: int) -> State:
    largest = spec.op in ("max", "avgmax") or spec.referenced or (spec.op == "gem" and spec.keep)
    return State(spec, lanes, largest, spec.positions, SUMS[spec.op])


def passes(spec: Whole, lanes: int) -> dict[str, State]:
    """What each pass over x carries."""
    all_of_it = whole_state(spec, lanes)
    if not spec.referenced:
        return {"add": all_of_it}
    return {"see": State(spec, lanes, True, False, 0), "add": State(spec, lanes, False, False, all_of_it.sums)}


class Emit:
    """One state's instructions."""

    def __init__(self, builder: Any, state: State) -> None:
        self.b, self.state, self.spec = builder, state, state.spec
        self.maths = Maths(builder, state.lanes)
        self.lanes = Lanes(builder, state.spec.storage, state.lanes, "mean")
        self.least = LEAST if state.spec.op == "gem" else -inf

    def split(self, values: Sequence[Any], is_open: bool = False) -> tuple[Any, Any, Any, list[Any]]:
        """NaN seen, largest, position, sums."""
        left = list(values)
        bad = left.pop(0) if is_open and self.state.largest else None
        v = left.pop(0) if self.state.largest else None
        i = left.pop(0) if self.state.position else None
        return bad, v, i, left

    def gathered(self, *parts: Any) -> list[Any]:
        return [part for part in parts if part is not None]

    def empty(self, is_open: bool, total: Any = FLOAT) -> list[Any]:
        def full(element: Any, value: Any) -> Any:
            return constant(ir.VectorType(element, self.state.lanes), value)

        bad = [full(I1, 0)] if is_open and self.state.largest else []
        v = [full(FLOAT, self.least)] if self.state.largest else []
        i = [full(I32, 0)] if self.state.position else []
        return [*bad, *v, *i, *[full(total, 0.0)] * self.state.sums]

    def take(self, values: Any, x: Any, places: Any, given: list[Any], mask: Any = None) -> list[Any]:
        """One more x per lane; at `places`; where the mask is true."""
        b = self.b
        bad, v, i, sums = self.split(values, True)
        if self.state.largest:
            nan_here = b.fcmp_unordered("uno", x, x)
            more = b.fcmp_ordered(">", x, v)
            if mask is not None:
                nan_here, more = b.and_(nan_here, mask), b.and_(more, mask)
            bad, v = b.or_(bad, nan_here), b.select(more, x, v)
            if self.state.position:
                i = b.select(more, places, i)
        if self.state.sums:
            terms = self.maths.terms(self.spec.op, self.spec.power, x, given)
            if mask is not None:
                terms = [b.select(mask, term, self.maths.number(0.0)) for term in terms]
            sums = [b.fadd(s, term, flags=FAST) for s, term in zip(sums, terms, strict=True)]
        return self.gathered(bad, v, i, *sums)

    def take_four(self, values: Any, four: list[Any], q: Any) -> list[Any]:
        """Four x per lane, from position q on: their sum is a tree, so chains are a quarter as long, and so is their error."""
        b = self.b
        bad, v, i, sums = self.split(values, True)
        if self.state.position:
            for n, x in enumerate(four):
                more = b.fcmp_ordered(">", x, v)
                place = b.add(b.trunc(q, I32), ir.Constant(I32, n))
                v, i = b.select(more, x, v), b.select(more, splat(b, place, self.state.lanes), i)
                bad = b.or_(bad, b.fcmp_unordered("uno", x, x))
        elif self.state.largest:
            for one, other in (four[:2], four[2:]):
                bad = b.or_(bad, b.fcmp_unordered("uno", one, other))
                pair = b.select(b.fcmp_ordered(">", one, other), one, other)
                v = b.select(b.fcmp_ordered(">", pair, v), pair, v)
        if self.state.sums:
            t = [self.maths.terms(self.spec.op, self.spec.power, x, [])[0] for x in four]
            more = b.fadd(b.fadd(t[0], t[1], flags=FAST), b.fadd(t[2], t[3], flags=FAST), flags=FAST)
            sums = [b.fadd(sums[0], more, flags=FAST)]
        return self.gathered(bad, v, i, *sums)

    def with_sums(self, values: Any, before: Any) -> list[Any]:
        """A state, and the sums of one before it."""
        own, more = self.split(values, True), self.split(before, True)[3]
        return self.gathered(*own[:3], *(self.b.fadd(s, t, flags=FAST) for s, t in zip(own[3], more, strict=True)))

    def without_sums(self, values: Any) -> list[Any]:
        return self.gathered(*self.split(values, True)[:3], *[self.maths.number(0.0)] * self.state.sums)

    def closed(self, values: Any) -> list[Any]:
        bad, v, i, sums = self.split(values, True)
        if self.state.largest:
            v = self.b.select(bad, constant(v.type, nan), v)
        return self.gathered(v, i, *sums)

    def merged(self, one: Any, other: Any) -> list[Any]:
        """Two parts; `one` need not come first. Of a NaN that is met the position is not asked: see `notice`."""
        b = self.b
        _, v, i, sums = self.split(one)
        _, v2, i2, sums2 = self.split(other)
        if self.state.position:
            before = b.and_(b.fcmp_ordered("==", v2, v), b.icmp_signed("<", i2, i))
            more = b.or_(before, b.or_(b.fcmp_ordered(">", v2, v), b.fcmp_unordered("uno", v2, v2)))
            v, i = b.select(more, v2, v), b.select(more, i2, i)
        elif self.state.largest:
            v = self.maths.largest(v, v2)
        return self.gathered(v, i, *(b.fadd(s, t, flags=FAST) for s, t in zip(sums, sums2, strict=True)))

    def joined(self, totals: Any, part: Any) -> list[Any]:
        """Totals and one more part, which comes after them."""
        _, v, i, sums = self.split(totals)
        _, v2, i2, sums2 = self.split(part)
        b = self.b
        if self.state.position:
            more = b.or_(b.fcmp_ordered(">", v2, v), b.fcmp_unordered("uno", v2, v2))
            v, i = b.select(more, v2, v), b.select(more, i2, i)
        elif self.state.largest and v2 is not None:
            v = self.maths.largest(v, v2)
        return self.gathered(v, i, *(b.fadd(s, self.maths.wide(t)) for s, t in zip(sums, sums2, strict=True)))

    def halved(self, values: Any) -> list[Any]:
        """The upper half of the lanes onto the lower."""
        half = self.state.lanes // 2
        low = [self.lanes.shuffle(v, v, range(half)) for v in values]
        high = [self.lanes.shuffle(v, v, range(half, 2 * half)) for v in values]
        return Emit(self.b, replace(self.state, lanes=half)).merged(low, high)

    def across(self, rows: list[list[Any]]) -> list[Any]:
        """Sixteen rows' parts, each in sixteen lanes, become one part with a lane per row: 30 shuffles, not 64."""
        many = len(rows)
        if many == 1:
            return rows[0]
        group = many // 2  # lanes that a row has in each vector, once two rows share it
        made = []
        for one, other in zip(rows[:group], rows[group:], strict=True):
            sides = []
            for side in (0, group):
                picks = [start + side + n for start in range(0, 2 * LANES, 2 * group) for n in range(group)]
                sides.append([self.lanes.shuffle(x, y, picks) for x, y in zip(one, other, strict=True)])
            made.append(self.merged(*sides))
        return self.across(made)

    def raised(self, totals: Any, top: Any, before: Any, p: Any) -> list[Any]:
        """Totals of `before` positions against a reference that is not less than `top`."""
        _, v, _, sums = self.split(totals)
        new = self.maths.largest(v, top)
        n = splat(self.b, self.b.sitofp(before, DOUBLE), self.state.lanes)
        moved = self.maths.rescaled(self.spec.op, v, new, sums, n, p)
        none = self.b.icmp_signed("==", before, ZERO)  # r = 0: 0 times -∞
        return [new, *(self.b.select(none, s, t) for s, t in zip(sums, moved, strict=True))]

    def answers(self, totals: Any, count: Any, p: Any) -> dict[str, Any]:
        """What is written, by name."""
        spec, maths = self.spec, self.maths
        _, v, i, sums = self.split(totals)
        if spec.op in ("mean", "avgmax"):
            mean = maths.narrow(self.b.fdiv(sums[0], count))
            return {"out": mean} if spec.op == "mean" else {"out": mean, "second": v, "position": i}
        if spec.op == "max":
            return {"out": v, "position": i}
        top = v if v is not None else maths.number(1.0)
        out, kept = maths.answer(spec.op, spec.power, top, sums, count, p)
        return {"out": out, "top": top, "kept": kept}


def told_type(spec: Whole, lanes: int) -> Any:
    """What a pass is told of an answer."""
    return types.Tuple([Vector("f32", lanes)] * (3 if spec.op == "gem" else 2))


def made(arguments: list[Any], result: Any, emit: Any) -> Any:
    return word(lambda *given: result(*given), emit, arguments)


def shared_words(spec: Whole, lanes: int, masked: bool) -> dict[str, Any]:
    """Words on totals in `lanes` lanes; `masked`: the last argument says which of them are there."""
    state = whole_state(spec, lanes)
    totals, one, mask = types.Tuple(state.types("f64")), Vector("f32", lanes), Vector("i1", lanes)
    given = told_type(spec, lanes)
    largest, counts = types.Tuple([one]), Vector("f64", lanes)

    def put(b: Any, values: Any, count: Any, p: Any, out: Any, second: Any, kept0: Any, kept1: Any, there: Any,
            bad: Any) -> None:  # fmt: skip
        own = Emit(b, state)
        made = own.answers(unpack(b, values), count, p)
        on = there if masked else None
        numbers = Lanes(b, "f32", lanes, "mean")
        own.lanes.store(made["out"], out, on)
        if "second" in made:
            own.lanes.store(made["second"], second, on)
        if spec.positions:
            Lanes(b, "i32", lanes, "mean").store(made["position"], kept0, on, "i32")
            notice(b, b.fcmp_unordered("uno", made.get("second", made["out"]), made["out"]), there, bad)
        elif spec.keep and spec.op not in ("mean", "max"):
            numbers.store(made["top"], kept0, on)
            numbers.store(made["kept"], kept1, on)
        if "top" in made:
            notice(b, own.maths.refuses(spec.op, spec.power, made["out"], made["top"]), there, bad)

    def raised(b: Any, values: Any, part: Any, before: Any, p: Any) -> Any:
        return Emit(b, state).raised(unpack(b, values), unpack(b, part)[0], before, p)

    def told(b: Any, values: Any, p: Any) -> Any:
        own = Emit(b, state)
        return own.maths.given(spec.op, own.split(unpack(b, values))[1], p)

    def joined(b: Any, values: Any, part: Any) -> Any:
        own = Emit(b, state)
        if not spec.referenced:
            return own.joined(unpack(b, values), unpack(b, part))
        top, *sums = unpack(b, values)  # the largest is there already
        return [top, *(b.fadd(s, own.maths.wide(t)) for s, t in zip(sums, unpack(b, part), strict=True))]

    part = types.Tuple(passes(spec, lanes)["add"].types())
    found = {
        "none": made([], totals, lambda b: Emit(b, state).empty(False, DOUBLE)),
        "joined": made([totals, part], totals, joined),
        "put": made([totals, counts, one, NUMBER, NUMBER, NUMBER, NUMBER, mask, NUMBER], types.void, put),
        "count": made([NUMBER], counts, lambda b, n: splat(b, b.sitofp(n, DOUBLE), lanes)),
        "no_parameter": made([], one, lambda b: Maths(b, lanes).number(1.0)),
        "nothing_told": made([], given, lambda b: [Maths(b, lanes).number(0.0)] * len(given.types)),
    }
    if spec.referenced:
        found["raised"] = made([totals, largest, NUMBER, one], totals, raised)
        found["told"] = made([totals, one], given, told)
    return found


def notice(b: Any, seen: Any, there: Any, address: Any) -> None:
    bits = ir.IntType(seen.type.count)
    some = b.icmp_unsigned("!=", b.bitcast(b.and_(seen, there), bits), ir.Constant(bits, 0))
    with b.if_then(some, likely=False):
        b.store(ir.Constant(I64, 1), b.inttoptr(address, ir.PointerType()))


def row_words(spec: Whole) -> dict[str, dict[str, Any]]:
    """Functions for whole_rows.py: those of each pass over a row, and all others."""
    found = shared_words(spec, LANES, True)
    one, told = Vector("f32", LANES), told_type(spec, LANES)

    def copy(kind: Any) -> Any:
        def emit(b: Any, to: Any, address: Any) -> None:
            b.store(b.load(b.inttoptr(address, ir.PointerType()), typ=kind), b.inttoptr(to, ir.PointerType()))

        return made([NUMBER, NUMBER], types.void, emit)

    def told_of(b: Any, room: Any, row: Any) -> Any:
        """What is told of one row, in every lane."""
        at = b.add(room, b.mul(row, ir.Constant(I64, 4)))
        return [everywhere(b, b.add(at, ir.Constant(I64, 4 * LANES * n)), LANES) for n in range(len(told.types))]

    def counted(b: Any, at: Any) -> Any:
        return b.sitofp(load_all(b, [Vector("i64", LANES)], at)[0], ir.VectorType(DOUBLE, LANES))

    found |= {
        "room": made([], NUMBER, lambda b: room(b, 8 * ROOM)),
        "copy": copy(I32),
        "copy_count": copy(I64),
        "numbers": made([NUMBER], one, lambda b, at: load_all(b, [one], at)[0]),
        "counted": made([NUMBER], Vector("f64", LANES), counted),
        "on": made([NUMBER], Vector("i1", LANES), lambda b, left: Lanes(b, "f32", LANES, "mean").on(ZERO, left)),
        "save_told": made([NUMBER, told], types.void, lambda b, at, values: store_all(b, unpack(b, values), at)),
        "told_of": made([NUMBER, NUMBER], told, told_of),
    }
    loops = {}
    for name, state in passes(spec, LANES).items():
        loops[name], between = row_pass(spec, state)
        found |= {f"{word}_{name}": emit for word, emit in between.items()}
    return {"all": found, "passes": loops}


def row_pass(spec: Whole, narrow: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """The words of a sweep along a row, and of what comes between rows."""
    wide = replace(narrow, lanes=spec.wide)
    wide_open, narrow_open = types.Tuple(wide.open_types()), types.Tuple(narrow.open_types())
    some, some_open = (wide, wide_open) if spec.referenced else (narrow, narrow_open)
    part, told = types.Tuple(narrow.types()), told_type(spec, LANES)

    def places(b: Any, q: Any, lanes: int) -> Any:
        counting = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        return b.add(splat(b, b.trunc(q, I32), lanes), counting)

    def same(own: Emit, given: Any) -> list[Any]:
        picks = list(range(LANES)) * (own.state.lanes // LANES)
        return [own.lanes.shuffle(v, v, picks) for v in unpack(own.b, given)]

    def take_wide(b: Any, values: Any, x: Any, mask: Any, q: Any, given: Any) -> Any:
        own, on = Emit(b, wide), None
        if spec.masked:
            raw = ir.VectorType(I8, wide.lanes)
            counts = b.load(b.inttoptr(mask, ir.PointerType()), align=1, typ=raw)
            on = b.icmp_unsigned("!=", counts, constant(raw, 0))
        return own.take(unpack(b, values), own.lanes.load(x, on), places(b, q, wide.lanes), same(own, given), on)

    def take(b: Any, values: Any, x: Any, q: Any, given: Any) -> Any:
        own = Emit(b, narrow)
        return own.take(unpack(b, values), own.lanes.load(x), places(b, q, LANES), unpack(b, given))

    def take_some(b: Any, values: Any, x: Any, q: Any, left: Any, given: Any) -> Any:
        """As many as are left."""
        own = Emit(b, some)
        on = own.lanes.on(ZERO, left)
        return own.take(unpack(b, values), own.lanes.load(x, on), places(b, q, some.lanes), same(own, given), on)

    def folded(b: Any, values: Any, others: Any) -> Any:
        """The wide loop's state and the narrow one's, as one part."""
        found, state = Emit(b, wide).closed(unpack(b, values)), wide
        while state.lanes > LANES:
            found, state = Emit(b, state).halved(found), replace(state, lanes=state.lanes // 2)
        own = Emit(b, narrow)
        return own.merged(found, own.closed(unpack(b, others)))

    def across(b: Any, room: Any) -> Any:
        rows = []
        for row in (int(f"{n:04b}"[::-1], 2) for n in range(LANES)):  # in this order the lanes end up in rows' order
            rows.append(load_all(b, narrow.types(), b.add(room, ir.Constant(I64, 64 * row)), ROOM))
        return Emit(b, narrow).across(rows)

    along = {
        "wide_nothing": made([], wide_open, lambda b: Emit(b, wide).empty(True)),
        "nothing": made([], narrow_open, lambda b: Emit(b, narrow).empty(True)),
        "take_wide": made([wide_open, NUMBER, NUMBER, NUMBER, told], wide_open, take_wide),
        "take": made([narrow_open, NUMBER, NUMBER, told], narrow_open, take),
        "take_some": made([some_open, NUMBER, NUMBER, NUMBER, told], some_open, take_some),
        "folded": made([wide_open, narrow_open], part, folded),
    }
    between = {
        "save": made([NUMBER, part], types.void, lambda b, at, v: store_all(b, unpack(b, v), at, ROOM)),
        "save_nothing": made([NUMBER], types.void, lambda b, at: store_all(b, Emit(b, narrow).empty(False), at, ROOM)),
        "across": made([NUMBER], part, across),
    }
    return along, between


def column_room() -> Any:
    return made([], NUMBER, lambda b: room(b, CHANNELS_PER_TASK * 24))


def column_words(spec: Whole, lanes: int, edge: bool) -> dict[str, dict[str, Any]]:
    """Functions for whole_columns.py; at the edge of the channels loads and stores are masked."""
    found = shared_words(spec, lanes, edge)
    one, there = Vector("f32", lanes), Vector("i1", lanes)
    totals, told = types.Tuple(whole_state(spec, lanes).types("f64")), told_type(spec, lanes)

    def on(b: Any, left: Any) -> Any:
        return Lanes(b, "f32", lanes, "mean").on(ZERO, left) if edge else constant(ir.VectorType(I1, lanes), 1)

    def numbers(b: Any, at: Any, mask: Any) -> Any:
        return Lanes(b, "f32", lanes, "mean").load(at, mask if edge else None)

    found |= {
        "on": made([NUMBER], there, on),
        "numbers": made([NUMBER, there], one, numbers),
        "one_number": made([NUMBER], one, lambda b, at: everywhere(b, at, lanes)),
        "save": made([NUMBER, totals], types.void, lambda b, at, values: store_all(b, unpack(b, values), at)),
        "restored": made([NUMBER], totals, lambda b, at: load_all(b, list(totals.types), at)),
    }
    loops = {}
    for name, state in passes(spec, lanes).items():
        own, part = types.Tuple(state.open_types()), types.Tuple(state.types())

        def load(b: Any, at: Any, mask: Any, state: State = state) -> Any:
            return Emit(b, state).lanes.load(at, mask if edge else None)

        def take(b: Any, values: Any, x: Any, q: Any, given: Any, mask: Any, state: State = state) -> Any:
            places = splat(b, b.trunc(q, I32), lanes)
            return Emit(b, state).take(unpack(b, values), load(b, x, mask, state), places, unpack(b, given))

        def take_four(b: Any, values: Any, *rest: Any, state: State = state) -> Any:
            *four, q, mask = rest
            return Emit(b, state).take_four(unpack(b, values), [load(b, x, mask, state) for x in four], q)

        loops[name] = {
            "nothing": made([], own, lambda b, state=state: Emit(b, state).empty(True)),
            "take": made([own, NUMBER, NUMBER, told, there], own, take),
            "take_four": made([own, *[NUMBER] * 5, there], own, take_four),
            "without_sums": made([own], own, lambda b, v, state=state: Emit(b, state).without_sums(unpack(b, v))),
            "with_sums": made(
                [own, own], own, lambda b, v, w, state=state: Emit(b, state).with_sums(unpack(b, v), unpack(b, w))
            ),
            "closed": made([own], part, lambda b, values, state=state: Emit(b, state).closed(unpack(b, values))),
        }
    return {"all": found, "passes": loops}


def room(b: Any, size: int) -> Any:
    """So many bytes of stack. Not as one array: Numba would fill it with zeros, and LLVM take a minute over that."""
    at = b.ptrtoint(cgutils.alloca_once(b, I8, size + 64), I64)
    return b.and_(b.add(at, ir.Constant(I64, 63)), ir.Constant(I64, -64))


def everywhere(b: Any, address: Any, lanes: int) -> Any:
    """A float32 in memory, in every lane."""
    return splat(b, b.load(b.inttoptr(address, ir.PointerType()), typ=FLOAT), lanes)


def store_all(b: Any, values: list[Any], address: Any, gap: int = 0) -> None:
    """One after the other; or `gap` bytes apart."""
    at = 0
    for value in values:
        b.store(value, b.inttoptr(b.add(address, ir.Constant(I64, at)), ir.PointerType()), align=4)
        at += gap or _bytes(value.type)


def load_all(b: Any, kinds: Sequence[Vector], address: Any, gap: int = 0) -> list[Any]:
    at, found = 0, []
    for kind in kinds:
        loaded = ir.VectorType(vectors.ELEMENTS[kind.kind], kind.lanes)
        found.append(b.load(b.inttoptr(b.add(address, ir.Constant(I64, at)), ir.PointerType()), align=4, typ=loaded))
        at += gap or _bytes(loaded)
    return found


def _bytes(kind: ir.VectorType) -> int:
    return int(kind.count) * (8 if kind.element == DOUBLE else 4)
