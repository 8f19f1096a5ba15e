"""The functions of pixels.py for one window: GH x GW answers, first across each row of x, then down the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.tuned import pixels
from gapstone.loops.tuned.lanes import I1, I8, I16, I32, I64, NUMBER, Lanes, WindowKernel, lowered, set_flag
from gapstone.loops.vectors import BYTES, Vector, constant, pointer, splat, unpack

State = list[Any]
"""A value, and where positions are kept also the byte that says which place it is from."""


@dataclass(frozen=True)
class Pixels(WindowKernel):
    """All that a kernel of pixels.py is compiled for."""

    dh: int
    dw: int
    gh: int
    gw: int
    deep: bool = False
    keep: bool = False
    exact: bool = False
    masked: bool = False  # fewer channels than a register holds

    @property
    def reach_h(self) -> int:
        """Rows that a block of answers looks at."""
        return (self.gh - 1) * self.sh + (self.kh - 1) * self.dh + 1

    @property
    def reach_w(self) -> int:
        return (self.gw - 1) * self.sw + (self.kw - 1) * self.dw + 1

    def bind(self, tag: str) -> Any:
        """pixels_forward for this window."""
        numbers = {
            "SH": self.sh, "SW": self.sw, "GH": self.gh, "GW": self.gw, "V": self.lanes, "ITEM": BYTES[self.storage],
            "REACH_H": self.reach_h, "REACH_W": self.reach_w, "DEEP": self.deep, "KEEP": self.keep,
            "MEAN": self.op == "mean", "MASKED": self.masked,
        }  # fmt: skip
        return self.assemble(pixels, ("pixels_forward", "block"), numbers, functions, tag)


class Block:
    """One block's instructions."""

    def __init__(self, builder: Any, spec: Pixels, edge: bool) -> None:
        self.spec, self.b, self.edge = spec, builder, edge
        self.lanes = Lanes(builder, spec.storage, spec.lanes, spec.op)

    def byte(self, value: int) -> ir.Constant:
        return constant(ir.VectorType(I8, self.spec.lanes), value % 256)

    def blank(self) -> State:
        return [self.lanes.blank(), self.byte(0)][: 2 if self.spec.keep else 1]

    def place(self, at: Any, row: Any, r: int, pixel: Any, s: int) -> Any:
        """The address of row r, column s from `at`."""
        down, right = (self.b.mul(size, self.lanes.number(n)) for size, n in ((row, r), (pixel, s)))
        return self.b.add(at, self.b.add(down, right))

    def join(self, v: State, x: State) -> State:
        """Two states become one; v's places come first."""
        if not self.spec.keep:
            return [self.lanes.combine(v[0], x[0], self.spec.exact)]
        more = self.lanes.beats(x[0], v[0], self.spec.exact)
        return [self.b.select(more, new, old) for old, new in zip(v, x, strict=True)]

    def moved(self, v: State, by: int) -> State:
        """The state, its position `by` further on (modulo 256)."""
        return [v[0], self.b.add(v[1], self.byte(by))] if self.spec.keep and by % 256 else v

    def slide(self, states: dict[int, State], size: int, stride: int, step: int, count: int) -> list[State]:
        """For each of `count` neighbouring windows its places joined. What neighbours share is joined once."""
        if stride > 1 or step > 1 or count == 1:
            return [reduce(self.join, [states[n * stride + t * step] for t in range(size)]) for n in range(count)]
        windows = []
        share = min(size, 2 if size < 4 else 4)
        for n in range(0, count, share):
            more = min(share, count - n) - 1
            before = [reduce(self.join, [states[m] for m in range(n + more, n + size)])]
            for m in reversed(range(n, n + more)):
                before.insert(0, self.join(states[m], before[0]))
            windows.append(before[0])
            after: State = []
            for m in range(1, more + 1):
                new = states[n + size + m - 1]
                after = new if m == 1 else self.join(after, new)
                windows.append(self.join(before[m], after))
        return windows

    def split(self, total: Any) -> tuple[list[State], Any]:
        """The answers' states, and where there was a NaN."""
        flat, parts = unpack(self.b, total), 2 if self.spec.keep else 1
        return [flat[n : n + parts] for n in range(0, len(flat) - 1, parts)], flat[-1]

    def flat(self, states: list[State], bad: Any) -> tuple[Any, ...]:
        return *(part for state in states for part in state), bad

    def window(self, x: Any, row: Any, pixel: Any, blank: Any, y: Any, u: Any, high: Any, wide: Any, mask: Any,
               bad: Any) -> tuple[Any, ...]:  # fmt: skip
        """The block's answers; at the edge, `blank` is read where there is no position."""
        b = self.b

        def at(r: int, s: int) -> Any:
            place = self.place(x, row, r, pixel, s)
            if not self.edge:
                return place
            line, column = b.add(y, ir.Constant(I64, r)), b.add(u, ir.Constant(I64, s))
            there = b.and_(b.icmp_unsigned("<", line, high), b.icmp_unsigned("<", column, wide))
            return b.select(there, place, blank)

        return self.flat(*self.answers(at, mask, bad))

    def behind(self, total: Any, other: Any, d: Any) -> tuple[Any, ...]:
        """Two slices' answers become one; d: the second one's number in the window."""
        b, spec = self.b, self.spec
        before, _ = self.split(total)
        after, bad = self.split(other)
        if spec.keep:
            by = splat(b, b.trunc(b.mul(d, ir.Constant(I64, spec.kh * spec.kw)), I8), spec.lanes)
            after = [[v, b.add(i, by)] for v, i in after]
        return self.flat([self.join(v, x) for v, x in zip(before, after, strict=True)], bad)

    def prefetch(self, x: Any, row: Any, pixel: Any, out: Any, out_row: Any) -> None:
        """Into the second cache: what the block below this one looks at, and where its answers go."""
        spec = self.spec
        for r in range(spec.reach_h, spec.reach_h + spec.gh * spec.sh):
            for s in range(spec.reach_w - spec.gw * spec.sw, spec.reach_w):
                self.lanes.prefetch(self.place(x, row, r, pixel, s))
        for r in range(spec.gh, 2 * spec.gh):
            for s in range(spec.gw):
                self.lanes.prefetch(self.place(out, out_row, r, pixel, s))

    def put_all(self, part: int, storage: str, address: Any, row: Any, pixel: Any, total: Any, mask: Any) -> None:
        for n, v in enumerate(self.split(total)[0]):
            i, j = divmod(n, self.spec.gw)
            self.put(v[part], self.place(address, row, i, pixel, j), mask, storage)

    def answers(self, at: Callable[[int, int], Any], mask: Any, bad: Any) -> tuple[list[State], Any]:
        """Row by row, and where there was a NaN. `at(r, s)`: where row r, column s of x lies."""
        spec = self.spec
        columns = sorted({j * spec.sw + s * spec.dw for j in range(spec.gw) for s in range(spec.kw)})
        lines = sorted({i * spec.sh + r * spec.dh for i in range(spec.gh) for r in range(spec.kh)})
        rows, looked_at = {}, []
        for r in lines:
            loaded = {s: self.lanes.load(at(r, s), mask if spec.masked else None) for s in columns}
            new_row = spec.dh > 1 or r >= spec.kh - spec.sh
            looked_at += [
                x for s, x in loaded.items() if self.edge or (new_row and (spec.dw > 1 or s >= spec.kw - spec.sw))
            ]
            states = {s: [x, self.byte(s // spec.dw)] if spec.keep else [x] for s, x in loaded.items()}
            across = self.slide(states, spec.kw, spec.sw, spec.dw, spec.gw)
            rows[r] = [self.moved(v, r // spec.dh * spec.kw - j * spec.sw) for j, v in enumerate(across)]
        down = [
            self.slide({r: row[j] for r, row in rows.items()}, spec.kh, spec.sh, spec.dh, spec.gh)
            for j in range(spec.gw)
        ]
        if spec.notices:
            pairs = zip(looked_at[::2], [*looked_at[1::2], looked_at[-1]], strict=False)
            bad = self.b.or_(bad, reduce(self.b.or_, [self.lanes.nan(*pair) for pair in pairs]))
        return [self.moved(down[j][i], -i * spec.sh * spec.kw) for i in range(spec.gh) for j in range(spec.gw)], bad

    def times(self, total: Any, classes: Any, inverses: Any) -> tuple[Any, ...]:
        """A mean's sums times what their windows multiply by."""
        b, spec = self.b, self.spec
        sums, bad = self.split(total)
        means: list[State] = []
        for i in range(spec.gh):
            table = b.add(inverses, self.read(b.add(classes, ir.Constant(I64, 8 * i)), I64))
            for j in range(spec.gw):
                by = self.read(b.add(table, ir.Constant(I64, 4 * j)), ir.FloatType())
                means.append([b.fmul(sums[len(means)][0], splat(b, by, spec.lanes))])
        return self.flat(means, bad)

    def read(self, address: Any, kind: ir.Type) -> Any:
        return self.b.load(pointer(self.b, address), align=4, typ=kind)

    def placed(self, total: Any, first: Any, y: Any, u: Any) -> tuple[Any, ...]:
        """Where all that was read is the least there is: the first place on the map, not the first of the window."""
        b, spec, least = self.b, self.spec, self.lanes.blank()
        states, bad = self.split(total)
        answers: list[State] = []
        for i in range(spec.gh):
            slices = b.mul(first, ir.Constant(I64, spec.kh))
            line = b.mul(b.add(slices, self.missing(y, i * spec.sh, spec.dh)), ir.Constant(I64, spec.kw))
            for j in range(spec.gw):
                v, position = states[len(answers)]
                none = b.fcmp_ordered("==", v, least) if self.lanes.is_float else b.icmp_signed("==", v, least)
                place = b.add(line, self.missing(u, j * spec.sw, spec.dw))
                answers.append([v, b.select(none, splat(b, b.trunc(place, I8), spec.lanes), position)])
        return self.flat(answers, bad)

    def missing(self, start: Any, by: int, step: int) -> Any:
        """How many places of a window that begins at start + by lie before the map."""
        b, zero = self.b, ir.Constant(I64, 0)
        gone = b.sub(ir.Constant(I64, step - 1 - by), start)
        return b.select(b.icmp_signed(">", gone, zero), b.sdiv(gone, ir.Constant(I64, step)), zero)

    def put(self, value: Any, address: Any, mask: Any, storage: str) -> None:
        if storage == "bf16" and self.spec.op == "max":  # a maximum is one of them: nothing to round
            bits = self.b.bitcast(value, ir.VectorType(I32, self.spec.lanes))
            bits = self.b.lshr(bits, constant(bits.type, 16))
            value, storage = self.b.trunc(bits, ir.VectorType(I16, self.spec.lanes)), "i16"
        self.lanes.store(value, address, mask if self.spec.masked else None, storage)


def functions(spec: Pixels, edge: bool) -> dict[str, Any]:
    """Functions for pixels.py, for blocks inside the map or at its edge."""
    parts = [Vector(spec.kind, spec.lanes), Vector("i8", spec.lanes)][: 2 if spec.keep else 1]
    mask, answers = Vector("i1", spec.lanes), spec.gh * spec.gw
    state = types.Tuple([*parts * answers, mask])

    def of(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda b, *values: method(Block(b, spec, edge), *values)

    put = [NUMBER, NUMBER, NUMBER, state, mask]
    return {
        "window": lowered([*[NUMBER] * 8, mask, mask], state, of(Block.window)),
        "there": lowered([NUMBER, NUMBER], mask, of(lambda own, c, channels: own.lanes.on(c, channels))),
        "fine": lowered([], mask, lambda b: constant(ir.VectorType(I1, spec.lanes), 0)),
        "no_window": lowered([mask], state, of(lambda own, bad: own.flat([own.blank()] * answers, bad))),
        "behind": lowered([state, state, NUMBER], state, of(Block.behind)),
        "bad": lowered([state], mask, of(lambda own, total: own.split(total)[1])),
        "times": lowered([state, NUMBER, NUMBER], state, of(Block.times)),
        "placed": lowered([state, NUMBER, NUMBER, NUMBER], state, of(Block.placed)),
        "prefetch": lowered([NUMBER] * 5, types.void, of(Block.prefetch)),
        "put": lowered(put, types.void, of(lambda own, *values: own.put_all(0, spec.storage, *values))),
        "put_positions": lowered(put, types.void, of(lambda own, *values: own.put_all(1, "u8", *values))),
        "notice": lowered([NUMBER, mask], types.void, set_flag),
    }
