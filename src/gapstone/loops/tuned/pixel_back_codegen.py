"""The functions of pixels_back.py for one window: what a row of windows brings to positions side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.tuned import pixels_back
from gapstone.loops.tuned.lanes import I8, I64, NUMBER, Lanes, WindowKernel, lowered
from gapstone.loops.vectors import BYTES, Vector, constant, pointer, splat, unpack


@dataclass(frozen=True)
class PixelsBack(WindowKernel):
    """All that a kernel of pixels_back.py is compiled for."""

    dh: int
    dw: int
    gw: int
    deep: bool = False
    masked: bool = False  # fewer channels than a register holds

    @property
    def behind(self) -> int:
        """Windows that begin before a position and look at it."""
        return (self.kw - 1) * self.dw // self.sw

    @property
    def windows(self) -> int:
        return self.behind + self.gw

    @property
    def columns(self) -> int:
        return self.gw * self.sw

    def looks(self, window: int, column: int) -> int | None:
        """As which of its places a window looks at a column."""
        place, rest = divmod(column - (window - self.behind) * self.sw, self.dw)
        return place if rest == 0 and 0 <= place < self.kw else None

    def bind(self, tag: str) -> Any:
        """pixels_backward for this window."""
        numbers = {
            "KH": self.kh, "KW": self.kw, "SH": self.sh, "SW": self.sw, "DH": self.dh, "GW": self.gw, "V": self.lanes,
            "ITEM": BYTES[self.storage], "REACH_H": (self.kh - 1) * self.dh + 1, "BEHIND": self.behind,
            "DEEP": self.deep, "MEAN": self.op == "mean", "MASKED": self.masked,
        }  # fmt: skip
        return self.assemble(pixels_back, ("pixels_backward", "block"), numbers, functions, tag)


class Gather:
    """One window's instructions; `edge`: windows and positions that there are not are left out."""

    def __init__(self, builder: Any, spec: PixelsBack, edge: bool) -> None:
        self.b, self.spec, self.edge = builder, spec, edge
        # blank is 0: a window that is not there brings nothing
        self.lanes = Lanes(builder, spec.storage, spec.lanes, "mean")

    def inside(self, first: Any, n: int, length: Any) -> Any:
        return self.b.icmp_unsigned("<", self.b.add(first, ir.Constant(I64, n)), length)

    def step(self, at: Any, size: Any, n: int) -> Any:
        return self.b.add(at, self.b.mul(size, ir.Constant(I64, n)))

    def window(self, at: Any, blank: Any, n: int, j: Any, wide: Any) -> Any:
        """The address of window n of those that begin with number j; `blank` where there is none."""
        return self.b.select(self.inside(j, n, wide), at, blank) if self.edge else at

    def add_places(self, total: Any, grad: Any, kept: Any, pixel: Any, blank: Any, place: Any, j: Any, wide: Any,
                   mask: Any) -> list[Any]:  # fmt: skip
        """A maximum's gradient goes to the position that was kept."""
        b, spec, places = self.b, self.spec, Lanes(self.b, "u8", self.spec.lanes, "max")
        sums, on = unpack(b, total), mask if spec.masked else None
        base = splat(b, b.trunc(place, I8), spec.lanes)
        channels = b.sdiv(pixel, ir.Constant(I64, BYTES[spec.storage]))
        for n in range(spec.windows):
            g = self.lanes.load(self.window(self.step(grad, pixel, n), blank, n, j, wide), on)
            at = self.window(self.step(kept, channels, n), blank, n, j, wide)
            chosen = b.sub(places.load(at, on), base)
            for column in range(spec.columns):
                looks = spec.looks(n, column)
                if looks is not None:
                    its = b.icmp_unsigned("==", chosen, constant(chosen.type, looks))
                    sums[column] = b.select(its, b.fadd(sums[column], g), sums[column])
        return sums

    def add_means(self, total: Any, grad: Any, pixel: Any, blank: Any, inverses: Any, j: Any, wide: Any,
                  mask: Any) -> list[Any]:  # fmt: skip
        """A mean's gradient goes to all of its positions alike."""
        b, spec = self.b, self.spec
        sums, on = unpack(b, total), mask if spec.masked else None
        for n in range(spec.windows):
            g = self.lanes.load(self.window(self.step(grad, pixel, n), blank, n, j, wide), on)
            at = self.window(b.add(inverses, b.mul(b.add(j, ir.Constant(I64, n)), ir.Constant(I64, 4))), inverses, n, j,
                             wide)  # fmt: skip
            by = b.load(pointer(b, at), align=4, typ=ir.FloatType())
            share = b.fmul(g, splat(b, by, spec.lanes))
            for column in range(spec.columns):
                if spec.looks(n, column) is not None:
                    sums[column] = b.fadd(sums[column], share)
        return sums

    def put(self, dx: Any, pixel: Any, total: Any, u: Any, wide: Any, mask: Any) -> None:
        for column, value in enumerate(unpack(self.b, total)):
            there = mask if self.spec.masked else None
            if self.edge:
                on_map = splat(self.b, self.inside(u, column, wide), self.spec.lanes)
                there = self.b.and_(mask, on_map) if self.spec.masked else on_map
            self.lanes.store(value, self.step(dx, pixel, column), there)

    def prefetch(self, dx: Any, grad: Any, pixel: Any) -> None:
        """Into the second cache: the row of dx below, and the next row of windows."""
        for column in range(self.spec.columns):
            self.lanes.prefetch(self.step(dx, pixel, column))
        for n in range(self.spec.behind, self.spec.windows):
            self.lanes.prefetch(self.step(grad, pixel, n))


def functions(spec: PixelsBack, edge: bool) -> dict[str, Any]:
    """Functions for pixels_back.py."""
    state, mask = types.Tuple([Vector("f32", spec.lanes)] * spec.columns), Vector("i1", spec.lanes)

    def of(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda b, *values: method(Gather(b, spec, edge), *values)

    return {
        "there": lowered([NUMBER, NUMBER], mask, of(lambda own, c, channels: own.lanes.on(c, channels))),
        "nothing": lowered([], state, of(lambda own: [own.lanes.blank()] * spec.columns)),
        "add_places": lowered([state, *[NUMBER] * 7, mask], state, of(Gather.add_places)),
        "add_means": lowered([state, *[NUMBER] * 6, mask], state, of(Gather.add_means)),
        "prefetch": lowered([NUMBER, NUMBER, NUMBER], types.void, of(Gather.prefetch)),
        "put": lowered([NUMBER, NUMBER, state, NUMBER, NUMBER, mask], types.void, of(Gather.put)),
    }
