"""The words of rows_back.py for one window: what a row of windows adds to the rows of dx that it looks at."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.tuned import rows_back
from gapstone.loops.tuned.lanes import FAST, I8, NUMBER, Lanes, word
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack


@dataclass(frozen=True)
class RowsBack:
    """All that a kernel of rows_back.py is compiled for."""

    op: str
    storage: str
    kh: int
    kw: int
    sh: int
    sw: int
    deep: bool = False
    paired: bool = False

    lanes = 16

    @property
    def behind(self) -> int:
        """How many windows before its own a column is looked at by."""
        return (self.kw - 1) // self.sw

    def bind(self, tag: str) -> Any:
        numbers: dict[str, Any] = {
            "KH": self.kh, "SH": self.sh, "SW": self.sw, "DEEP": self.deep, "MEAN": self.op == "mean",
            "PAIRED": self.paired, "ITEM": BYTES[self.storage], "BEHIND": self.behind,
            "V": self.lanes // 2 if self.paired else self.lanes,
        }  # fmt: skip
        strips: dict[str, Any] = {}
        for where in ("inside", "edge"):
            k: Any = ModuleType("k")
            vars(k).update(words(self, where == "edge"))
            names = {**vars(rows_back), **numbers, "k": k}
            strips[f"walk_{where}"] = njit(bound(rows_back.walk, names), f"{where}_{tag}", inline=False)
        k = ModuleType("k")
        vars(k).update(strips)
        name = f"rows_backward_{self.op}_{self.storage}_{tag}"
        return bound(rows_back.rows_backward, {**vars(rows_back), **numbers, "k": k}, name)


def words(spec: RowsBack, edge: bool) -> dict[str, Any]:
    """Functions for rows_back.py; those of a strip at the edge of the map are masked."""
    lanes, half = spec.lanes, spec.lanes // 2 if spec.paired else spec.lanes
    behind, many = spec.behind, max(spec.kh, spec.sh)
    mask = Vector("i1", half)
    masks_state = types.Tuple([mask] * (behind + 1))
    there_state = types.Tuple(
        [mask if spec.sw == 1 else Vector("i1", lanes)] * (1 if spec.sw == 1 or spec.paired else 2)
    )
    rows_state = types.Tuple([Vector("f32", lanes)] * (many * spec.sw))

    def own(b: Any) -> Lanes:
        return Lanes(b, spec.storage, lanes, "mean")

    def read(b: Any, at: Any, gap: Any, masks: Any, back: int, item: int, load: Any) -> Any:
        """What lies `back` windows before; of a pair of planes side by side. `gap` None: both planes read the same."""
        at = b.sub(at, ir.Constant(ir.IntType(64), back * item)) if back else at
        mask = unpack(b, masks)[back] if edge else None
        value = load(at, mask)
        if not spec.paired:
            return value
        other = value if gap is None else load(b.add(at, gap), mask)
        return own(b).side_by_side(value, other)

    def by_phase(rows: list[Any]) -> list[list[Any]]:
        return [rows[n : n + spec.sw] for n in range(0, len(rows), spec.sw)]

    def flat(rows: list[list[Any]]) -> tuple[Any, ...]:
        return tuple(column for row in rows for column in row)

    def spread(b: Any, rows: Any, grad: Any, gap: Any, by: Any, masks: Any) -> Any:
        """A mean's gradient goes to all of its positions alike."""
        made = by_phase(unpack(b, rows))
        totals: list[Any] = [None] * spec.sw
        for back in range(behind + 1):
            g = read(b, grad, gap, masks, back, BYTES[spec.storage], lambda at, m: own(b).load(at, m, half))
            inverse = read(b, by, None, masks, back, 4, lambda at, m: Lanes(b, "f32", lanes, "mean").load(at, m, half))
            g = b.fmul(g, inverse)
            for phase in range(spec.sw):
                if phase + spec.sw * back < spec.kw:
                    totals[phase] = g if totals[phase] is None else b.fadd(totals[phase], g, flags=FAST)
        for r in range(spec.kh):
            made[r] = [v if t is None else b.fadd(v, t, flags=FAST) for v, t in zip(made[r], totals, strict=True)]
        return flat(made)

    def return_to(b: Any, rows: Any, grad: Any, gap: Any, kept: Any, kept_gap: Any, masks: Any, d: Any) -> Any:
        """A maximum's gradient goes to the position that was kept."""
        made = by_phase(unpack(b, rows))
        slices = b.trunc(b.mul(d, own(b).number(spec.kh * spec.kw)), I8)
        for back in range(behind + 1):
            g = read(b, grad, gap, masks, back, BYTES[spec.storage], lambda at, m: own(b).load(at, m, half))
            i = read(b, kept, kept_gap, masks, back, 1, lambda at, m: Lanes(b, "u8", lanes, "mean").load(at, m, half))
            if spec.deep:
                i = b.sub(i, splat(b, slices, lanes))
            for phase in range(spec.sw):
                s = phase + spec.sw * back
                for r in range(spec.kh if s < spec.kw else 0):
                    here = b.icmp_unsigned("==", i, constant(ir.VectorType(I8, lanes), r * spec.kw + s))
                    # a masked addition, where the processor has one
                    made[r][phase] = b.select(here, b.fadd(made[r][phase], g, flags=FAST), made[r][phase])
        return flat(made)

    def masks(b: Any, q: Any, wide: Any) -> Any:
        return tuple(own(b).on(b.sub(q, ir.Constant(ir.IntType(64), n)), wide, half) for n in range(behind + 1))

    def there(b: Any, column: Any, width: Any) -> Any:
        if spec.sw == 1:
            return (own(b).on(column, width, half),)
        second = [] if spec.paired else [own(b).on(b.add(column, ir.Constant(ir.IntType(64), lanes)), width)]
        return (own(b).on(column, width), *second)

    def put(b: Any, address: Any, gap: Any, rows: Any, there: Any) -> None:
        lane = own(b)
        phases = by_phase(unpack(b, rows))[0]
        on = unpack(b, there) if edge else [None, None]
        if spec.sw == 1:
            first = lane.shuffle(phases[0], phases[0], range(half)) if spec.paired else phases[0]
            lane.store(first, address, on[0])
            if spec.paired:
                lane.store(lane.shuffle(phases[0], phases[0], range(half, lanes)), b.add(address, gap), on[0])
            return
        for part in range(2):
            woven = [part * lanes // 2 + n // 2 + n % 2 * lanes for n in range(lanes)]
            step = gap if spec.paired else ir.Constant(ir.IntType(64), lanes * BYTES[spec.storage])
            lane.store(
                lane.shuffle(phases[0], phases[1], woven),
                b.add(address, step) if part else address,
                on[0 if spec.paired else part],
            )

    def zeros(b: Any) -> Any:
        return (constant(ir.VectorType(ir.FloatType(), lanes), 0.0),) * (many * spec.sw)

    def shift(b: Any, rows: Any) -> Any:
        zero = constant(ir.VectorType(ir.FloatType(), lanes), 0.0)
        return (*unpack(b, rows)[spec.sw :], *(zero,) * spec.sw)

    def made(arguments: list[Any], result: Any, emit: Any) -> Any:
        return word(lambda *given: result(*given), emit, arguments)

    return {
        "masks": made([NUMBER, NUMBER], masks_state, masks),
        "there": made([NUMBER, NUMBER], there_state, there),
        "zeros": made([], rows_state, zeros),
        "shift": made([rows_state], rows_state, shift),
        "spread": made([rows_state, NUMBER, NUMBER, NUMBER, masks_state], rows_state, spread),
        "return_to": made([rows_state, *[NUMBER] * 4, masks_state, NUMBER], rows_state, return_to),
        "prefetch": made([NUMBER], types.void, lambda b, at: own(b).prefetch(at, True)),
        "put": made([NUMBER, NUMBER, rows_state, there_state], types.void, put),
    }
