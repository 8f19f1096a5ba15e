"""The words of pixels.py for one window: GH x GW answers, first across each row of x, then down the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.tuned import pixels
from gapstone.loops.tuned.lanes import I8, I16, I32, I64, NUMBER, Lanes, word
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack

State = list[Any]
"""A value, and where positions are kept also the byte that says which place it is from."""


@dataclass(frozen=True)
class Pixels:
    """All that a kernel of pixels.py is compiled for."""

    op: str
    storage: str
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    gh: int
    gw: int
    deep: bool = False
    keep: bool = False
    exact: bool = False
    masked: bool = False  # fewer channels than a register holds

    @property
    def lanes(self) -> int:
        return 64 if self.storage in ("u8", "i8") else 16

    @property
    def notices(self) -> bool:
        """NaN is noticed, where it is not minded."""
        return self.op == "max" and not self.exact and self.storage not in ("u8", "i8")

    @property
    def reach_h(self) -> int:
        """Rows that a block of answers looks at."""
        return (self.gh - 1) * self.sh + (self.kh - 1) * self.dh + 1

    @property
    def reach_w(self) -> int:
        return (self.gw - 1) * self.sw + (self.kw - 1) * self.dw + 1

    def bind(self, tag: str) -> Any:
        """pixels_forward for this window; `tag` makes every helper's name its own (decision 0007)."""
        numbers: dict[str, Any] = {
            "SH": self.sh, "SW": self.sw, "GH": self.gh, "GW": self.gw, "V": self.lanes, "ITEM": BYTES[self.storage],
            "REACH_H": self.reach_h, "REACH_W": self.reach_w, "DEEP": self.deep, "KEEP": self.keep,
            "MEAN": self.op == "mean", "MASKED": self.masked,
        }  # fmt: skip
        both = words(self)
        k: Any = ModuleType("k")
        vars(k).update(both["inside"])
        for where, found in both.items():
            inner: Any = ModuleType("k")
            vars(inner).update(found)
            names = {**vars(pixels), **numbers, "k": inner, "EDGE": where == "edge"}
            setattr(k, f"block_{where}", njit(bound(pixels.block, names), f"{where}_{tag}", inline=False))
        return bound(
            pixels.pixels_forward, {**vars(pixels), **numbers, "k": k}, f"pixels_forward_{self.op}_{self.storage}_{tag}"
        )


class Block:
    """One block's instructions."""

    def __init__(self, builder: Any, spec: Any) -> None:
        self.spec = spec
        self.b = builder
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

    def slide(self, found: dict[int, State], size: int, stride: int, step: int, count: int) -> list[State]:
        """For each of `count` neighbouring windows its places joined. What neighbours share is joined once."""
        if stride > 1 or step > 1 or count == 1:
            return [reduce(self.join, [found[n * stride + t * step] for t in range(size)]) for n in range(count)]
        made = []
        share = min(size, 2 if size < 4 else 4)
        for n in range(0, count, share):
            more = min(share, count - n) - 1
            before = [reduce(self.join, [found[m] for m in range(n + more, n + size)])]
            for m in reversed(range(n, n + more)):
                before.insert(0, self.join(found[m], before[0]))
            made.append(before[0])
            after: State = []
            for m in range(1, more + 1):
                new = found[n + size + m - 1]
                after = new if m == 1 else self.join(after, new)
                made.append(self.join(before[m], after))
        return made

    def window(self, at: Callable[[int, int], Any], mask: Any, bad: Any, everything: bool) -> tuple[list[State], Any]:
        """The block's answers, row by row, and where a NaN was seen. `at(r, s)`: where row r, column s of x lies."""
        spec = self.spec
        columns = sorted({j * spec.sw + s * spec.dw for j in range(spec.gw) for s in range(spec.kw)})
        lines = sorted({i * spec.sh + r * spec.dh for i in range(spec.gh) for r in range(spec.kh)})
        rows, seen = {}, []
        for r in lines:
            found = {s: [self.lanes.load(at(r, s), mask if spec.masked else None)] for s in columns}
            new_row = spec.dh > 1 or r >= spec.kh - spec.sh
            seen += [
                x[0] for s, x in found.items() if everything or (new_row and (spec.dw > 1 or s >= spec.kw - spec.sw))
            ]
            if spec.keep:
                found = {s: [x[0], self.byte(s // spec.dw)] for s, x in found.items()}
            across = self.slide(found, spec.kw, spec.sw, spec.dw, spec.gw)
            rows[r] = [self.moved(v, r // spec.dh * spec.kw - j * spec.sw) for j, v in enumerate(across)]
        down = [
            self.slide({r: row[j] for r, row in rows.items()}, spec.kh, spec.sh, spec.dh, spec.gh)
            for j in range(spec.gw)
        ]
        if spec.notices:
            pairs = [(seen[n], seen[min(n + 1, len(seen) - 1)]) for n in range(0, len(seen), 2)]
            bad = self.b.or_(bad, reduce(self.b.or_, [self.lanes.nan(*pair) for pair in pairs]))
        return [self.moved(down[j][i], -i * spec.sh * spec.kw) for i in range(spec.gh) for j in range(spec.gw)], bad

    def put(self, value: Any, address: Any, mask: Any, storage: str) -> None:
        if storage == "bf16" and self.spec.op == "max":  # a maximum is one of them: nothing to round
            bits = self.b.bitcast(value, ir.VectorType(I32, self.spec.lanes))
            bits = self.b.lshr(bits, constant(bits.type, 16))
            value, storage = self.b.trunc(bits, ir.VectorType(I16, self.spec.lanes)), "i16"
        self.lanes.store(value, address, mask if self.spec.masked else None, storage)


def words(spec: Any) -> dict[str, dict[str, Any]]:
    """Functions for pixels.py, for blocks inside the map and at its edge."""
    kind = "f32" if spec.storage in ("f32", "bf16", "f16") else spec.storage
    parts = [Vector(kind, spec.lanes), Vector("i8", spec.lanes)][: 2 if spec.keep else 1]
    mask = Vector("i1", spec.lanes)
    answers = spec.gh * spec.gw
    state = types.Tuple([*parts * answers, mask])

    def split(b: Any, total: Any) -> tuple[list[State], Any]:
        flat = unpack(b, total)
        return [flat[n : n + len(parts)] for n in range(0, len(flat) - 1, len(parts))], flat[-1]

    def flat(states: list[State], bad: Any) -> tuple[Any, ...]:
        return *(part for state in states for part in state), bad

    def inside(b: Any, x: Any, row: Any, pixel: Any, blank: Any, y: Any, u: Any, high: Any, wide: Any, mask: Any,
               bad: Any) -> Any:  # fmt: skip
        def at(r: int, s: int) -> Any:
            return own.place(x, row, r, pixel, s)

        own = Block(b, spec)
        return flat(*own.window(at, mask, bad, False))

    def edge(b: Any, x: Any, row: Any, pixel: Any, blank: Any, y: Any, u: Any, high: Any, wide: Any, mask: Any,
             bad: Any) -> Any:  # fmt: skip
        def at(r: int, s: int) -> Any:
            line, column = b.add(y, ir.Constant(I64, r)), b.add(u, ir.Constant(I64, s))
            there = b.and_(b.icmp_unsigned("<", line, high), b.icmp_unsigned("<", column, wide))
            return b.select(there, own.place(x, row, r, pixel, s), blank)

        own = Block(b, spec)
        return flat(*own.window(at, mask, bad, True))

    def prefetch(b: Any, x: Any, row: Any, pixel: Any, out: Any, out_row: Any) -> None:
        """Into the second cache: what the block below this one looks at, and where its answers go."""
        own = Block(b, spec)
        for r in range(spec.reach_h, spec.reach_h + spec.gh * spec.sh):
            for s in range(spec.reach_w - spec.gw * spec.sw, spec.reach_w):
                own.lanes.prefetch(own.place(x, row, r, pixel, s))
        for r in range(spec.gh, 2 * spec.gh):
            for s in range(spec.gw):
                own.lanes.prefetch(own.place(out, out_row, r, pixel, s))

    def behind(b: Any, total: Any, other: Any, d: Any) -> Any:
        """Two slices' answers become one; d: the second one's number in the window."""
        own = Block(b, spec)
        before, _ = split(b, total)
        after, bad = split(b, other)
        if spec.keep:
            by = splat(b, b.trunc(b.mul(d, ir.Constant(I64, spec.kh * spec.kw)), I8), spec.lanes)
            after = [[v, b.add(i, by)] for v, i in after]
        return flat([own.join(v, x) for v, x in zip(before, after, strict=True)], bad)

    def times(b: Any, total: Any, classes: Any, inverses: Any) -> Any:
        sums, bad = split(b, total)
        made: list[State] = []
        for i in range(spec.gh):
            table = b.add(inverses, _load(b, b.add(classes, ir.Constant(I64, 8 * i)), I64))
            for j in range(spec.gw):
                by = _load(b, b.add(table, ir.Constant(I64, 4 * j)), ir.FloatType())
                made.append([b.fmul(sums[len(made)][0], splat(b, by, spec.lanes))])
        return flat(made, bad)

    def placed(b: Any, total: Any, first: Any, y: Any, u: Any) -> Any:
        """Where all that was seen is the least there is: the first place on the map, not the first of the window."""
        own = Block(b, spec)
        found, bad = split(b, total)

        def missing(start: Any, by: int, step: int) -> Any:
            gone = b.sub(ir.Constant(I64, step - 1 - by), start)
            return b.select(b.icmp_signed(">", gone, ir.Constant(I64, 0)), b.sdiv(gone, ir.Constant(I64, step)),
                            ir.Constant(I64, 0))  # fmt: skip

        made: list[State] = []
        for i in range(spec.gh):
            slices = b.mul(first, ir.Constant(I64, spec.kh))
            line = b.mul(b.add(slices, missing(y, i * spec.sh, spec.dh)), ir.Constant(I64, spec.kw))
            for j in range(spec.gw):
                v, position = found[len(made)]
                least = own.lanes.blank()
                none = b.fcmp_ordered("==", v, least) if own.lanes.is_float else b.icmp_signed("==", v, least)
                place = splat(b, b.trunc(b.add(line, missing(u, j * spec.sw, spec.dw)), I8), spec.lanes)
                made.append([v, b.select(none, place, position)])
        return flat(made, bad)

    def putter(part: int, storage: str) -> Any:
        def emit(b: Any, address: Any, row: Any, pixel: Any, total: Any, mask: Any) -> None:
            own = Block(b, spec)
            for n, v in enumerate(split(b, total)[0]):
                i, j = divmod(n, spec.gw)
                own.put(v[part], own.place(address, row, i, pixel, j), mask, storage)

        return made([NUMBER, NUMBER, NUMBER, state, mask], types.void, emit)

    def notice(b: Any, address: Any, bad: Any) -> None:
        bits = ir.IntType(spec.lanes)
        seen = b.icmp_unsigned("!=", b.bitcast(bad, bits), ir.Constant(bits, 0))
        with b.if_then(seen, likely=False):
            b.store(ir.Constant(I64, 1), b.inttoptr(address, ir.PointerType()))

    def made(arguments: list[Any], result: Any, emit: Any) -> Any:
        return word(lambda *given: result(*given), emit, arguments)

    looks = [*[NUMBER] * 8, mask, mask]
    shared = {
        "there": made([NUMBER, NUMBER], mask, lambda b, c, channels: Block(b, spec).lanes.on(c, channels)),
        "fine": made([], mask, lambda b: constant(ir.VectorType(ir.IntType(1), spec.lanes), 0)),
        "no_window": made([mask], state, lambda b, bad: flat([Block(b, spec).blank()] * answers, bad)),
        "behind": made([state, state, NUMBER], state, behind),
        "bad": made([state], mask, lambda b, total: split(b, total)[1]),
        "times": made([state, NUMBER, NUMBER], state, times),
        "placed": made([state, NUMBER, NUMBER, NUMBER], state, placed),
        "prefetch": made([NUMBER] * 5, types.void, prefetch),
        "put": putter(0, spec.storage),
        "put_positions": putter(1, "u8"),
        "notice": made([NUMBER, mask], types.void, notice),
    }
    return {"inside": {**shared, "window": made(looks, state, inside)},
            "edge": {**shared, "window": made(looks, state, edge)}}  # fmt: skip


def _load(b: Any, address: Any, kind: ir.Type) -> Any:
    return b.load(b.inttoptr(address, ir.PointerType()), align=4, typ=kind)
