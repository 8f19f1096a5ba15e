"""The functions of rows_back.py for one window: what a row of windows adds to the rows of dx that it looks at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.tuned import rows_back
from gapstone.loops.tuned.lanes import FAST, I8, I64, NUMBER, Lanes, WindowKernel, lowered
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack


@dataclass(frozen=True)
class RowsBack(WindowKernel):
    """All that a kernel of rows_back.py is compiled for."""

    deep: bool = False
    paired: bool = False

    @property
    def half(self) -> int:
        """Lanes of one plane."""
        return self.lanes // 2 if self.paired else self.lanes

    @property
    def behind(self) -> int:
        """How many windows before its own a column is looked at by."""
        return (self.kw - 1) // self.sw

    def bind(self, tag: str) -> Any:
        """rows_backward for this window."""
        numbers = {
            "KH": self.kh, "SH": self.sh, "SW": self.sw, "DEEP": self.deep, "MEAN": self.op == "mean",
            "PAIRED": self.paired, "ITEM": BYTES[self.storage], "BEHIND": self.behind, "V": self.half,
        }  # fmt: skip
        return self.assemble(rows_back, ("rows_backward", "walk"), numbers, functions, tag)


class Columns:
    """One window's instructions; `edge`: at the edge of the map, masked."""

    def __init__(self, builder: Any, spec: RowsBack, edge: bool) -> None:
        self.b, self.spec, self.edge = builder, spec, edge
        self.lanes = Lanes(builder, spec.storage, spec.lanes, "mean")

    def by_phase(self, rows: Any) -> list[list[Any]]:
        flat, sw = unpack(self.b, rows), self.spec.sw
        return [flat[n : n + sw] for n in range(0, len(flat), sw)]

    def read(self, at: Any, gap: Any, masks: Any, back: int, storage: str) -> Any:
        """What lies `back` windows before; of a pair of planes side by side. `gap` None: both planes read the same."""
        lanes = Lanes(self.b, storage, self.spec.lanes, "mean")
        at = self.b.sub(at, ir.Constant(I64, back * BYTES[storage])) if back else at
        mask = unpack(self.b, masks)[back] if self.edge else None
        value = lanes.load(at, mask, self.spec.half)
        if not self.spec.paired:
            return value
        other = value if gap is None else lanes.load(self.b.add(at, gap), mask, self.spec.half)
        return self.lanes.side_by_side(value, other)

    def spread(self, rows: Any, grad: Any, gap: Any, by: Any, masks: Any) -> list[Any]:
        """A mean's gradient goes to all of its positions alike."""
        b, spec, dx = self.b, self.spec, self.by_phase(rows)
        totals: list[Any] = [None] * spec.sw
        for back in range(spec.behind + 1):
            g = b.fmul(self.read(grad, gap, masks, back, spec.storage), self.read(by, None, masks, back, "f32"))
            for phase in range(spec.sw):
                if phase + spec.sw * back < spec.kw:
                    totals[phase] = g if totals[phase] is None else b.fadd(totals[phase], g, flags=FAST)
        for r in range(spec.kh):
            dx[r] = [v if t is None else b.fadd(v, t, flags=FAST) for v, t in zip(dx[r], totals, strict=True)]
        return [column for row in dx for column in row]

    def return_to(self, rows: Any, grad: Any, gap: Any, kept: Any, kept_gap: Any, masks: Any, d: Any) -> list[Any]:
        """A maximum's gradient goes to the position that was kept."""
        b, spec, dx = self.b, self.spec, self.by_phase(rows)
        slices = b.trunc(b.mul(d, ir.Constant(I64, spec.kh * spec.kw)), I8)
        for back in range(spec.behind + 1):
            g = self.read(grad, gap, masks, back, spec.storage)
            i = self.read(kept, kept_gap, masks, back, "u8")
            if spec.deep:
                i = b.sub(i, splat(b, slices, spec.lanes))
            for phase in range(spec.sw):
                s = phase + spec.sw * back
                for r in range(spec.kh if s < spec.kw else 0):
                    here = b.icmp_unsigned("==", i, constant(ir.VectorType(I8, spec.lanes), r * spec.kw + s))
                    # a masked addition, where the processor has one
                    dx[r][phase] = b.select(here, b.fadd(dx[r][phase], g, flags=FAST), dx[r][phase])
        return [column for row in dx for column in row]

    def masks(self, q: Any, wide: Any) -> list[Any]:
        spec, b = self.spec, self.b
        return [self.lanes.on(b.sub(q, ir.Constant(I64, n)), wide, spec.half) for n in range(spec.behind + 1)]

    def there(self, column: Any, width: Any) -> list[Any]:
        if self.spec.sw == 1:
            return [self.lanes.on(column, width, self.spec.half)]
        second = [] if self.spec.paired else [self.b.add(column, ir.Constant(I64, self.spec.lanes))]
        return [self.lanes.on(start, width) for start in (column, *second)]

    def zeros(self, count: int) -> list[Any]:
        return [constant(ir.VectorType(ir.FloatType(), self.spec.lanes), 0.0)] * count

    def shift(self, rows: Any) -> list[Any]:
        return [*unpack(self.b, rows)[self.spec.sw :], *self.zeros(self.spec.sw)]

    def put(self, address: Any, gap: Any, rows: Any, there: Any) -> None:
        lanes, half, paired = self.spec.lanes, self.spec.half, self.spec.paired
        phases, on = self.by_phase(rows)[0], unpack(self.b, there) if self.edge else [None, None]
        if self.spec.sw == 1:
            first = self.lanes.shuffle(phases[0], phases[0], range(half)) if paired else phases[0]
            self.lanes.store(first, address, on[0])
            if paired:
                second = self.lanes.shuffle(phases[0], phases[0], range(half, lanes))
                self.lanes.store(second, self.b.add(address, gap), on[0])
            return
        step = gap if paired else ir.Constant(I64, lanes * BYTES[self.spec.storage])
        for part in range(2):
            woven = [part * lanes // 2 + n // 2 + n % 2 * lanes for n in range(lanes)]
            to = self.b.add(address, step) if part else address
            self.lanes.store(self.lanes.shuffle(phases[0], phases[1], woven), to, on[0 if paired else part])


def functions(spec: RowsBack, edge: bool) -> dict[str, Any]:
    """Functions for rows_back.py; those of a strip at the edge of the map are masked."""
    lanes, half, many = spec.lanes, spec.half, max(spec.kh, spec.sh)
    mask = Vector("i1", half)
    masks_state = types.Tuple([mask] * (spec.behind + 1))
    there_state = types.Tuple([mask] if spec.sw == 1 else [Vector("i1", lanes)] * (1 if spec.paired else 2))
    rows_state = types.Tuple([Vector("f32", lanes)] * (many * spec.sw))

    def of(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda b, *values: method(Columns(b, spec, edge), *values)

    return {
        "masks": lowered([NUMBER, NUMBER], masks_state, of(Columns.masks)),
        "there": lowered([NUMBER, NUMBER], there_state, of(Columns.there)),
        "zeros": lowered([], rows_state, of(lambda own: own.zeros(many * spec.sw))),
        "shift": lowered([rows_state], rows_state, of(Columns.shift)),
        "spread": lowered([rows_state, *[NUMBER] * 3, masks_state], rows_state, of(Columns.spread)),
        "return_to": lowered([rows_state, *[NUMBER] * 4, masks_state, NUMBER], rows_state, of(Columns.return_to)),
        "prefetch": lowered([NUMBER], types.void, of(lambda own, at: own.lanes.prefetch(at, True))),
        "put": lowered([NUMBER, NUMBER, rows_state, there_state], types.void, of(Columns.put)),
    }
