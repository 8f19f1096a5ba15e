"""The functions of whole_rows.py and whole_columns.py: what a pool does with sixteen maps, or sixteen channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops import vectors
from gapstone.loops.kernel_code import bound, namespace, njit
from gapstone.loops.tuned import whole_columns, whole_rows
from gapstone.loops.tuned.lanes import I1, I8, I32, I64, NUMBER, Lanes, lowered, set_flag
from gapstone.loops.tuned.whole_math import Maths
from gapstone.loops.tuned.whole_state import DOUBLE, FLOAT, LANES, ZERO, Emit, State, passes, whole_state
from gapstone.loops.vector_memory import not_zero
from gapstone.loops.vectors import BYTES, Vector, constant, pointer, splat, unpack

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
        """rows_forward or columns_forward of this pool, named by a hash of all that it is made of."""
        template: Any = whole_columns if self.columns else whole_rows
        numbers: dict[str, Any] = {
            "REFERENCED": self.referenced, "MASKED": self.masked, "GIVEN": self.referenced,
            "FOUR": not self.referenced, "ITEM": BYTES[self.storage], "WIDE": self.wide,
            "LANES": LANES, "BLOCK": 64 if self.columns else 512 if self.referenced else 4096,
        }  # fmt: skip
        k = namespace({})
        names = {**vars(template), **numbers, "k": k}

        def helper(function: Any, functions: dict[str, Any], inline: bool = False) -> Any:
            return njit(bound(function, {**names, "k": namespace(functions)}), inline)

        if self.columns:
            k.room = stack(CHANNELS_PER_TASK * whole_columns.WAITING)
            for where, lanes in (("wide", self.wide), ("edge", LANES)):
                functions, loops = column_functions(self, lanes, where == "edge")
                for name, own in loops.items():
                    functions[f"pillar_{name}"] = helper(whole_columns.pillar, own)
                setattr(k, f"piece_{where}", helper(whole_columns.piece, functions))
        else:
            functions, loops = row_functions(self)
            for name, own in loops.items():
                functions[f"sweep_{name}"] = helper(whole_rows.sweep, own, True)
            vars(k).update(functions, group=helper(whole_rows.group, functions))
        forward = whole_columns.columns_forward if self.columns else whole_rows.each_group
        return bound(forward, names, f"{forward.__name__}_{self.op}_{self.storage}_{tag}")


def factors_type(spec: WholeMap, lanes: int) -> Any:
    """What a pass needs to know of an answer."""
    return types.Tuple([Vector("f32", lanes)] * (3 if spec.op == "gem" else 2))


def lane_functions(lanes: int, masked: bool) -> dict[str, Any]:
    """What forward and backward share; `masked`: not all lanes are there."""
    one, mask, counts = Vector("f32", lanes), Vector("i1", lanes), Vector("f64", lanes)

    def on(b: Any, left: Any) -> Any:
        return Lanes(b, "f32", lanes, "mean").on(ZERO, left) if masked else constant(ir.VectorType(I1, lanes), 1)

    def numbers(b: Any, at: Any, there: Any) -> Any:
        return Lanes(b, "f32", lanes, "mean").load(at, there if masked else None)

    return {
        "on": lowered([NUMBER], mask, on),
        "numbers": lowered([NUMBER, mask], one, numbers),
        "one_number": lowered([NUMBER], one, lambda b, at: everywhere(b, at, lanes)),
        "no_parameter": lowered([], one, lambda b: Maths(b, lanes).number(1.0)),
        "count": lowered([NUMBER], counts, lambda b, n: splat(b, b.sitofp(n, DOUBLE), lanes)),
    }


def gathering_functions(factors: Any, size: int) -> dict[str, Any]:
    """What kernels over contiguous maps do with `size` bytes of stack, where sixteen maps' numbers are gathered."""

    def copy(kind: Any) -> Any:
        def emit(b: Any, to: Any, address: Any) -> None:
            b.store(b.load(pointer(b, address), typ=kind), pointer(b, to))

        return lowered([NUMBER, NUMBER], types.void, emit)

    def factors_of(b: Any, at: Any, row: Any) -> Any:
        """The factors of one row, in every lane."""
        at = b.add(at, b.mul(row, ir.Constant(I64, 4)))
        return [everywhere(b, b.add(at, ir.Constant(I64, 4 * LANES * n)), LANES) for n in range(len(factors.types))]

    def counted(b: Any, at: Any) -> Any:
        return b.sitofp(load_all(b, [Vector("i64", LANES)], at)[0], ir.VectorType(DOUBLE, LANES))

    return {
        "room": stack(size),
        "copy": copy(I32),
        "copy_count": copy(I64),
        "counted": lowered([NUMBER], Vector("f64", LANES), counted),
        "save_factors": lowered(
            [NUMBER, factors], types.void, lambda b, at, values: store_all(b, unpack(b, values), at)
        ),
        "factors_of": lowered([NUMBER, NUMBER], factors, factors_of),
    }


ROWS_IN_LANES = [int(f"{n:04b}"[::-1], 2) for n in range(LANES)]
"""Rows in the order from which `Emit.across` brings them into lanes 0, 1, 2, …"""


def shared_functions(spec: WholeMap, lanes: int, masked: bool) -> dict[str, Any]:
    """Functions of totals in `lanes` lanes; `masked`: the last argument says which of them are there."""
    state = whole_state(spec, lanes)
    totals, one, mask = types.Tuple(state.types("f64")), Vector("f32", lanes), Vector("i1", lanes)
    given = factors_type(spec, lanes)
    largest, counts = types.Tuple([one]), Vector("f64", lanes)

    def put(b: Any, values: Any, count: Any, p: Any, out: Any, second: Any, kept0: Any, kept1: Any, there: Any,
            bad: Any) -> None:  # fmt: skip
        own = Emit(b, state)
        answers = own.answers(unpack(b, values), count, p)
        on = there if masked else None
        numbers = Lanes(b, "f32", lanes, "mean")
        own.lanes.store(answers["out"], out, on)
        if "second" in answers:
            own.lanes.store(answers["second"], second, on)
        if spec.positions:
            Lanes(b, "i32", lanes, "mean").store(answers["position"], kept0, on, "i32")
            notice(b, b.fcmp_unordered("uno", answers.get("second", answers["out"]), answers["out"]), there, bad)
        elif spec.keep and spec.op not in ("mean", "max"):
            numbers.store(answers["top"], kept0, on)
            numbers.store(answers["kept"], kept1, on)
        if "top" in answers:
            notice(b, own.maths.refuses(spec.op, spec.power, answers["out"], answers["top"]), there, bad)

    def raised(b: Any, values: Any, part: Any, before: Any, p: Any) -> Any:
        return Emit(b, state).raised(unpack(b, values), unpack(b, part)[0], before, p)

    def factors(b: Any, values: Any, p: Any) -> Any:
        own = Emit(b, state)
        return own.maths.given(spec.op, own.split(unpack(b, values))[1], p)

    def joined(b: Any, values: Any, part: Any) -> Any:
        own = Emit(b, state)
        if not spec.referenced:
            return own.joined(unpack(b, values), unpack(b, part))
        top, *sums = unpack(b, values)  # the largest is there already
        return [top, *(b.fadd(s, own.maths.wide(t)) for s, t in zip(sums, unpack(b, part), strict=True))]

    part = types.Tuple(passes(spec, lanes)["add"].types())
    functions = {
        "none": lowered([], totals, lambda b: Emit(b, state).empty(False, DOUBLE)),
        "joined": lowered([totals, part], totals, joined),
        "put": lowered([totals, counts, one, NUMBER, NUMBER, NUMBER, NUMBER, mask, NUMBER], types.void, put),
        "no_factors": lowered([], given, lambda b: [Maths(b, lanes).number(0.0)] * len(given.types)),
    }
    if spec.referenced:
        functions["raised"] = lowered([totals, largest, NUMBER, one], totals, raised)
        functions["factors"] = lowered([totals, one], given, factors)
    return functions | lane_functions(lanes, masked)


def notice(b: Any, lanes: Any, there: Any, address: Any) -> None:
    set_flag(b, address, b.and_(lanes, there))


def row_functions(spec: WholeMap) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Functions for whole_rows.py: all but those of the passes over a row; and those, by pass."""
    functions = shared_functions(spec, LANES, True) | gathering_functions(factors_type(spec, LANES), 8 * ROOM)
    loops = {}
    for name, state in passes(spec, LANES).items():
        loops[name], between = row_pass(spec, state)
        functions |= {f"{key}_{name}": function for key, function in between.items()}
    return functions, loops


def row_pass(spec: WholeMap, narrow: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """The functions of a sweep along a row, and of what comes between rows."""
    wide = replace(narrow, lanes=spec.wide)
    wide_open, narrow_open = types.Tuple(wide.open_types()), types.Tuple(narrow.open_types())
    some, some_open = (wide, wide_open) if spec.referenced else (narrow, narrow_open)
    part, factors = types.Tuple(narrow.types()), factors_type(spec, LANES)

    def places(b: Any, q: Any, lanes: int) -> Any:
        counting = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        return b.add(splat(b, b.trunc(q, I32), lanes), counting)

    def same(own: Emit, given: Any) -> list[Any]:
        picks = list(range(LANES)) * (own.state.lanes // LANES)
        return [own.lanes.shuffle(v, v, picks) for v in unpack(own.b, given)]

    def take_wide(b: Any, values: Any, x: Any, mask: Any, q: Any, given: Any) -> Any:
        own, on = Emit(b, wide), not_zero(b, mask, ir.VectorType(I8, wide.lanes)) if spec.masked else None
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
        part, state = Emit(b, wide).closed(unpack(b, values)), wide
        while state.lanes > LANES:
            part, state = Emit(b, state).halved(part), replace(state, lanes=state.lanes // 2)
        own = Emit(b, narrow)
        return own.merged(part, own.closed(unpack(b, others)))

    def across(b: Any, room: Any) -> Any:
        starts = [b.add(room, ir.Constant(I64, 64 * row)) for row in ROWS_IN_LANES]
        return Emit(b, narrow).across([load_all(b, narrow.types(), start, ROOM) for start in starts])

    along = {
        "wide_nothing": lowered([], wide_open, lambda b: Emit(b, wide).empty(True)),
        "nothing": lowered([], narrow_open, lambda b: Emit(b, narrow).empty(True)),
        "take_wide": lowered([wide_open, NUMBER, NUMBER, NUMBER, factors], wide_open, take_wide),
        "take": lowered([narrow_open, NUMBER, NUMBER, factors], narrow_open, take),
        "take_some": lowered([some_open, NUMBER, NUMBER, NUMBER, factors], some_open, take_some),
        "folded": lowered([wide_open, narrow_open], part, folded),
    }
    between = {
        "save": lowered([NUMBER, part], types.void, lambda b, at, v: store_all(b, unpack(b, v), at, ROOM)),
        "save_nothing": lowered(
            [NUMBER], types.void, lambda b, at: store_all(b, Emit(b, narrow).empty(False), at, ROOM)
        ),
        "across": lowered([NUMBER], part, across),
    }
    return along, between


def column_functions(spec: WholeMap, lanes: int, edge: bool) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Functions for whole_columns.py; at the edge of the channels loads and stores are masked."""
    there, factors = Vector("i1", lanes), factors_type(spec, lanes)
    totals = types.Tuple(whole_state(spec, lanes).types("f64"))
    functions = shared_functions(spec, lanes, edge) | {
        "save": lowered([NUMBER, totals], types.void, lambda b, at, values: store_all(b, unpack(b, values), at)),
        "restored": lowered([NUMBER], totals, lambda b, at: load_all(b, list(totals.types), at)),
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
            "nothing": lowered([], own, lambda b, state=state: Emit(b, state).empty(True)),
            "take": lowered([own, NUMBER, NUMBER, factors, there], own, take),
            "take_four": lowered([own, *[NUMBER] * 5, there], own, take_four),
            "without_sums": lowered([own], own, lambda b, v, state=state: Emit(b, state).without_sums(unpack(b, v))),
            "with_sums": lowered(
                [own, own], own, lambda b, v, w, state=state: Emit(b, state).with_sums(unpack(b, v), unpack(b, w))
            ),
            "closed": lowered([own], part, lambda b, values, state=state: Emit(b, state).closed(unpack(b, values))),
        }
    return functions, loops


def stack(size: int) -> Any:
    """room(): some bytes of stack. Not an array: Numba would fill it with zeros, and LLVM take a minute over that."""

    def emit(b: Any) -> Any:
        with b.goto_entry_block():  # once per call, wherever in it
            memory = b.alloca(I8, size + 64)
        at = b.ptrtoint(memory, I64)
        return b.and_(b.add(at, ir.Constant(I64, 63)), ir.Constant(I64, -64))

    return lowered([], NUMBER, emit)


def everywhere(b: Any, address: Any, lanes: int) -> Any:
    """A float32 in memory, in every lane."""
    return splat(b, b.load(pointer(b, address), typ=FLOAT), lanes)


def store_all(b: Any, values: list[Any], address: Any, gap: int = 0) -> None:
    """One after the other; or `gap` bytes apart."""
    at = 0
    for value in values:
        b.store(value, pointer(b, b.add(address, ir.Constant(I64, at))), align=4)
        at += gap or _bytes(value.type)


def load_all(b: Any, kinds: Sequence[Vector], address: Any, gap: int = 0) -> list[Any]:
    at, values = 0, []
    for kind in kinds:
        loaded = ir.VectorType(vectors.ELEMENTS[kind.kind], kind.lanes)
        values.append(b.load(pointer(b, b.add(address, ir.Constant(I64, at))), align=4, typ=loaded))
        at += gap or _bytes(loaded)
    return values


def _bytes(kind: ir.VectorType) -> int:
    return int(kind.count) * (8 if kind.element == DOUBLE else 4)
