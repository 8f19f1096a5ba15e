"""One pool's running state over whole maps, as vectors, and LLVM's instructions on it.

An *open* state is what a loop carries: the largest x and whether there was a NaN, its position, sums. A *part* is a
closed one: the NaN has become the largest. *Totals* are parts that were joined, their sums in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any

from llvmlite import ir

from gapstone.loops.tuned.lanes import FAST, I1, I32, Lanes
from gapstone.loops.tuned.whole_math import Maths
from gapstone.loops.vectors import Vector, constant, splat
from gapstone.pools.gem import LEAST

LANES = 16
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
ZERO = ir.Constant(ir.IntType(64), 0)
SUMS = {"mean": 1, "max": 0, "avgmax": 1, "gem": 1, "logsumexp": 2, "softmax": 2}


@dataclass(frozen=True)
class State:
    """Which parts there are, in how many lanes."""

    spec: Any
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


def whole_state(spec: Any, lanes: int) -> State:
    largest = spec.op in ("max", "avgmax") or spec.referenced or (spec.op == "gem" and spec.keep)
    return State(spec, lanes, largest, spec.positions, SUMS[spec.op])


def passes(spec: Any, lanes: int) -> dict[str, State]:
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
        """Four x per lane, from position q on: their sum is a tree, so chains, and their error, are a quarter."""
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
