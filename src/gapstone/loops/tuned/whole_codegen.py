"""The words of whole_rows.py and whole_columns.py: what a pool does with sixteen maps, or sixteen channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops import vectors
from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.tuned import whole_columns, whole_rows
from gapstone.loops.tuned.lanes import I1, I8, I32, I64, NUMBER, Lanes, word
from gapstone.loops.tuned.whole_math import Maths
from gapstone.loops.tuned.whole_state import DOUBLE, FLOAT, LANES, ZERO, Emit, State, passes, whole_state
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack

ROOM = 64 * LANES  # bytes of stack for a vector of each of sixteen rows
CHANNELS_PER_TASK = 1024  # at most; their sums wait on the stack


@dataclass(frozen=True)
class WholeMap:
    """All that a kernel over whole maps is compiled for."""

    op: str
    storage: str
    columns: bool
    keep: bool = False
    power: int = 0  # gem by x² or x³; 0: by pow, against the largest
    masked: bool = False

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
            return njit(bound(function, {**names, "k": own}), f"{where}_{tag}", inline)

        if self.columns:
            vars(k)["room"] = column_room()
            for where, lanes in (("wide", self.wide), ("edge", LANES)):
                found = column_functions(self, lanes, where == "edge")
                for name, own in found["passes"].items():
                    found["all"][f"pillar_{name}"] = helper(whole_columns.pillar, f"{name}_{where}", own)
                vars(k)[f"piece_{where}"] = helper(whole_columns.piece, where, found["all"])
        else:
            found = row_functions(self)
            for name, own in found["passes"].items():
                found["all"][f"sweep_{name}"] = helper(whole_rows.sweep, name, own, True)
            vars(k).update(found["all"], group=helper(whole_rows.group, "", found["all"]))
        forward = template.columns_forward if self.columns else template.rows_forward
        return bound(forward, names, f"{forward.__name__}_{self.op}_{self.storage}_{tag}")


def told_type(spec: WholeMap, lanes: int) -> Any:
    """What a pass is told of an answer."""
    return types.Tuple([Vector("f32", lanes)] * (3 if spec.op == "gem" else 2))


def made(arguments: list[Any], result: Any, emit: Any) -> Any:
    return word(lambda *given: result(*given), emit, arguments)


def shared_functions(spec: WholeMap, lanes: int, masked: bool) -> dict[str, Any]:
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


def row_functions(spec: WholeMap) -> dict[str, dict[str, Any]]:
    """Functions for whole_rows.py: those of each pass over a row, and all others."""
    found = shared_functions(spec, LANES, True)
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


def row_pass(spec: WholeMap, narrow: State) -> tuple[dict[str, Any], dict[str, Any]]:
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


def column_functions(spec: WholeMap, lanes: int, edge: bool) -> dict[str, dict[str, Any]]:
    """Functions for whole_columns.py; at the edge of the channels loads and stores are masked."""
    found = shared_functions(spec, lanes, edge)
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
    with b.goto_entry_block():  # once per call, wherever in it
        memory = b.alloca(I8, size + 64)
    at = b.ptrtoint(memory, I64)
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
