"""The functions of whole_rows_back.py and whole_columns_back.py."""

from dataclasses import dataclass
from math import inf
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.kernel_code import bound, namespace, njit
from gapstone.loops.tuned import whole_columns_back, whole_rows, whole_rows_back
from gapstone.loops.tuned.lanes import FAST, I8, I32, I64, NUMBER, Lanes, lowered
from gapstone.loops.tuned.whole_codegen import (
    CHANNELS_PER_TASK,
    ROWS_IN_LANES,
    WholeMap,
    gathering_functions,
    lane_functions,
    load_all,
    notice,
    stack,
    store_all,
)
from gapstone.loops.tuned.whole_math import MOST_CUBED, MOST_TOP, Maths
from gapstone.loops.tuned.whole_state import DOUBLE, LANES, ZERO, Emit, State
from gapstone.loops.vector_memory import not_zero
from gapstone.loops.vectors import BYTES, Vector, call, constant, pointer, splat, unpack

FACTORS = {"mean": 1, "max": 1, "avgmax": 2, "gem": 4, "gem by x²": 1, "logsumexp": 5, "softmax": 5}
REFERENCED = ("gem", "logsumexp", "softmax")


@dataclass(frozen=True)
class WholeMapBack:
    """All that a backward kernel over whole maps is compiled for."""

    op: str
    storage: str
    columns: bool
    power: int = 0
    masked: bool = False
    slope: bool = False

    @property
    def positions(self) -> bool:
        return self.op in ("max", "avgmax")

    @property
    def needs_x(self) -> bool:
        return self.op in REFERENCED

    @property
    def factors(self) -> int:
        """How many numbers of its map each position needs."""
        return FACTORS["gem by x²" if self.power else self.op]

    @property
    def wide(self) -> int:
        return 32 if self.needs_x else 64

    def bind(self, tag: str) -> Any:
        """rows_backward or columns_backward of this pool, named by a hash of all that it is made of."""
        template: Any = whole_columns_back if self.columns else whole_rows_back
        names: dict[str, Any] = {
            **vars(template), "POSITIONS": self.positions, "MASKED": self.masked, "NEEDS_X": self.needs_x,
            "GIVEN": self.needs_x, "SLOPE": self.slope, "ITEM": BYTES[self.storage], "WIDE": self.wide,
            "LANES": LANES, "BLOCK": 64 if self.columns else 4096,
        }  # fmt: skip
        k = namespace({})
        if self.columns:
            k.room = stack(CHANNELS_PER_TASK * whole_columns_back.WAITING)
            for where, lanes in (("wide", self.wide), ("edge", LANES)):
                near = {**names, "k": namespace(column_functions(self, lanes, where == "edge"))}
                for function in (template.parameter, template.known_from, template.factors_from, template.piece):
                    near[function.__name__] = njit(bound(function, near), inline=False)
                setattr(k, f"piece_{where}", near["piece"])
            backward = whole_columns_back.columns_backward
        else:
            own = names["k"] = namespace(row_functions(self))
            own.sweep = njit(bound(template.sweep, names))
            k.room, k.group = own.room, njit(bound(template.group, names), inline=False)
            backward, names = whole_rows.each_group, {**vars(whole_rows), **names}
        return bound(backward, {**names, "k": k}, f"{backward.__name__}_{self.op}_{self.storage}_{tag}")


def shared_functions(spec: WholeMapBack, lanes: int, masked: bool) -> dict[str, Any]:
    """What a map has in common, in `lanes` lanes; `masked`: not all lanes are there."""
    one, mask, wide = Vector("f32", lanes), Vector("i1", lanes), Vector("f64", lanes)
    known_type, factors_type = types.Tuple([one] * 5), types.Tuple([one] * spec.factors)

    def on(there: Any) -> Any:
        return there if masked else None

    def known(b: Any, grad: Any, second: Any, out: Any, kept0: Any, kept1: Any, there: Any) -> Any:
        own, plain = Lanes(b, spec.storage, lanes, "mean"), Lanes(b, "f32", lanes, "mean")
        nothing = constant(plain.vector(), 0.0)
        g = own.load(grad, on(there)) if spec.op != "max" else nothing
        more = own.load(second, on(there)) if spec.positions else nothing
        if not spec.needs_x:
            return [g, more, nothing, nothing, nothing]
        return [g, more, own.load(out, on(there)), plain.load(kept0, on(there)), plain.load(kept1, on(there))]

    def named(b: Any, values: Any) -> dict[str, Any]:
        return dict(zip(("grad", "second_grad", "out", "top", "sum"), unpack(b, values), strict=True))

    def factors(b: Any, values: Any, count: Any, p: Any) -> Any:
        maths = Maths(b, lanes)
        return maths.factors(spec.op, spec.power, named(b, values), maths.narrow(count), p)

    def notice_top(b: Any, values: Any, there: Any, address: Any) -> None:
        """Not a number, infinite or gem's beyond 1e30: the derived loop is asked."""
        if spec.needs_x:
            size = call(b, "fabs", named(b, values)["top"])
            most = (MOST_CUBED if spec.power else MOST_TOP) if spec.op == "gem" else inf
            fine = Maths(b, lanes).less(size, most)
            notice(b, b.not_(fine), there, address)

    def put_slopes(b: Any, address: Any, values: Any, total: Any, count: Any, p: Any, there: Any) -> None:
        maths = Maths(b, lanes)
        value = maths.slope(spec.op, named(b, values), maths.narrow(total), maths.narrow(count), p)
        Lanes(b, "f32", lanes, "mean").store(value, address, on(there))

    functions = {
        "known": lowered([NUMBER] * 5 + [mask], known_type, known),
        "factors": lowered([known_type, wide, one], factors_type, factors),
        "notice": lowered([known_type, mask, NUMBER], types.void, notice_top),
        "no_total": lowered([], wide, lambda b: constant(ir.VectorType(DOUBLE, lanes), 0.0)),
        "joined": lowered([wide, one], wide, lambda b, total, part: b.fadd(total, Maths(b, lanes).wide(part))),
        "save_factors": lowered([NUMBER, factors_type], types.void, lambda b, at, v: store_all(b, unpack(b, v), at)),
    }
    if spec.slope:
        functions["put_slopes"] = lowered([NUMBER, known_type, wide, wide, one, mask], types.void, put_slopes)
    return functions | lane_functions(lanes, masked)


def _share(b: Any, spec: WholeMapBack, lanes: int, x: Any, factors: list[Any], on: Any) -> tuple[Any, Any]:
    """dx of a vector, and its slopes; x is read where it is looked at."""
    maths = Maths(b, lanes)
    if spec.needs_x:
        return maths.share(spec.op, spec.power, Lanes(b, spec.storage, lanes, "mean").load(x, on), factors)
    return (maths.number(0.0) if spec.op == "max" else factors[0]), None


def row_functions(spec: WholeMapBack) -> dict[str, Any]:
    """Functions for whole_rows_back.py."""
    factors_type = types.Tuple([Vector("f32", LANES)] * spec.factors)
    slope_type, part = Vector("f32", spec.wide), Vector("f32", LANES)
    state = State(WholeMap("mean", spec.storage, False), LANES, False, False, 1)

    def give(b: Any, slope: Any, dx: Any, x: Any, mask: Any, factors: Any, on: Any = None) -> Any:
        lanes = Lanes(b, spec.storage, spec.wide, "mean")
        picks = list(range(LANES)) * (spec.wide // LANES)
        same = [lanes.shuffle(v, v, picks) for v in unpack(b, factors)]
        d, more = _share(b, spec, spec.wide, x, same, on)
        if spec.masked:
            d = b.select(not_zero(b, mask, ir.VectorType(I8, spec.wide)), d, constant(d.type, 0.0))
        lanes.store(d, dx, on)
        if not spec.slope:
            return slope
        if on is not None:
            more = b.select(on, more, constant(more.type, 0.0))
        return b.fadd(slope, more, flags=FAST)

    def give_some(b: Any, slope: Any, dx: Any, x: Any, mask: Any, left: Any, factors: Any) -> Any:
        on = Lanes(b, spec.storage, spec.wide, "mean").on(ZERO, left)
        return give(b, slope, dx, x, mask, factors, on)

    def slope_of(b: Any, slope: Any) -> Any:
        lanes = Lanes(b, "f32", LANES, "mean")
        parts = [lanes.shuffle(slope, slope, range(n, n + LANES)) for n in range(0, spec.wide, LANES)]
        while len(parts) > 1:
            parts = [b.fadd(one, other, flags=FAST) for one, other in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def across(b: Any, at: Any) -> Any:
        starts = [b.add(at, ir.Constant(I64, 64 * row)) for row in ROWS_IN_LANES]
        return Emit(b, state).across([load_all(b, [part], start) for start in starts])[0]

    def put_winner(b: Any, at: Any, grad: Any, factors: Any) -> None:
        """The maximum's gradient, and what the mean gives to every position."""
        one = Lanes(b, spec.storage, 1, "mean")
        value = one.load(grad)
        if spec.op == "avgmax":
            mean = unpack(b, factors)[0]
            value = b.fadd(value, one.shuffle(mean, mean, [0]))
        one.store(value, at)

    functions = {
        "no_slope": lowered([], slope_type, lambda b: Maths(b, spec.wide).number(0.0)),
        "give": lowered([slope_type, NUMBER, NUMBER, NUMBER, factors_type], slope_type, give),
        "give_some": lowered([slope_type, NUMBER, NUMBER, NUMBER, NUMBER, factors_type], slope_type, give_some),
        "slope_of": lowered([slope_type], part, slope_of),
        "save": lowered([NUMBER, part], types.void, lambda b, at, v: store_all(b, [v], at) if spec.slope else None),
        "save_nothing": lowered([NUMBER], types.void, lambda b, at: store_all(b, Emit(b, state).empty(False), at)),
        "across": lowered([NUMBER], part, across),
        "place": lowered([NUMBER], NUMBER, lambda b, at: b.sext(b.load(pointer(b, at), typ=I32), I64)),
        "put_winner": lowered([NUMBER, NUMBER, factors_type], types.void, put_winner),
    }
    return functions | shared_functions(spec, LANES, True) | gathering_functions(factors_type, 2048)


def column_functions(spec: WholeMapBack, lanes: int, edge: bool) -> dict[str, Any]:
    """Functions for whole_columns_back.py; at the edge of the channels loads and stores are masked."""
    one, wide, there_type, place_type = (Vector(kind, lanes) for kind in ("f32", "f64", "i1", "i32"))
    factors_type = types.Tuple([one] * spec.factors)
    behind = ir.Constant(I64, 4 * lanes * spec.factors)  # the slope waits behind them

    def give(b: Any, slope: Any, dx: Any, x: Any, mask: Any, q: Any, place: Any, factors: Any, there: Any) -> Any:
        on = there if edge else None
        values = unpack(b, factors)
        d, more = _share(b, spec, lanes, x, values, on)
        if spec.positions:
            here = b.icmp_signed("==", place, splat(b, b.trunc(q, I32), lanes))
            d = b.select(here, b.fadd(d, values[-1]), d)
        if spec.masked:
            d = b.select(not_zero(b, mask, I8), d, constant(d.type, 0.0))
        Lanes(b, spec.storage, lanes, "mean").store(d, dx, on)
        return b.fadd(slope, more, flags=FAST) if spec.slope else slope

    def place(b: Any, at: Any, there: Any) -> Any:
        if not spec.positions:
            return constant(ir.VectorType(I32, lanes), 0)
        return b.bitcast(Lanes(b, "f32", lanes, "mean").load(at, there if edge else None), ir.VectorType(I32, lanes))

    return shared_functions(spec, lanes, edge) | {
        "restored": lowered([NUMBER], factors_type, lambda b, at: load_all(b, list(factors_type.types), at)),
        "save_total": lowered([NUMBER, wide], types.void, lambda b, at, v: store_all(b, [v], b.add(at, behind))),
        "total_of": lowered([NUMBER], wide, lambda b, at: load_all(b, [wide], b.add(at, behind))[0]),
        "place": lowered([NUMBER, there_type], place_type, place),
        "no_slope": lowered([], one, lambda b: Maths(b, lanes).number(0.0)),
        "give": lowered([one, *[NUMBER] * 4, place_type, factors_type, there_type], one, give),
    }
