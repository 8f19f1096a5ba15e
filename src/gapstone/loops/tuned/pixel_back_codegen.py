"""The words of pixels_back.py for one window: what a row of windows brings to positions side by side."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.tuned import pixels_back
from gapstone.loops.tuned.lanes import I8, I64, NUMBER, Lanes, word
from gapstone.loops.vectors import BYTES, Vector, constant, splat, unpack

LANES = 16


@dataclass(frozen=True)
class PixelsBack:
    """All that a kernel of pixels_back.py is compiled for."""

    op: str
    storage: str
    kh: int
    kw: int
    sh: int
    sw: int
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
        """pixels_backward for this window; `tag` makes every helper's name its own (decision 0007)."""
        numbers: dict[str, Any] = {
            "KH": self.kh, "KW": self.kw, "SH": self.sh, "SW": self.sw, "DH": self.dh, "GW": self.gw, "V": LANES,
            "ITEM": BYTES[self.storage], "REACH_H": (self.kh - 1) * self.dh + 1, "BEHIND": self.behind,
            "DEEP": self.deep, "MEAN": self.op == "mean", "MASKED": self.masked,
        }  # fmt: skip
        k: Any = ModuleType("k")
        for where in ("inside", "edge"):
            inner: Any = ModuleType("k")
            vars(inner).update(words(self, where == "edge"))
            names = {**vars(pixels_back), **numbers, "k": inner}
            setattr(k, f"block_{where}", njit(bound(pixels_back.block, names), f"{where}_{tag}", inline=False))
        names = {**vars(pixels_back), **numbers, "k": k}
        return bound(pixels_back.pixels_backward, names, f"pixels_backward_{self.op}_{self.storage}_{tag}")


def words(spec: Any, edge: bool) -> dict[str, Any]:
    """Functions for pixels_back.py; at the edge, windows and positions that there are not are left out."""
    state, mask = types.Tuple([Vector("f32", LANES)] * spec.columns), Vector("i1", LANES)
    item = BYTES[spec.storage]

    def own(b: Any) -> Lanes:
        return Lanes(b, spec.storage, LANES, "mean")  # blank is 0: a window that is not there brings nothing

    def inside(b: Any, first: Any, n: int, length: Any) -> Any:
        return b.icmp_unsigned("<", b.add(first, ir.Constant(I64, n)), length)

    def step(b: Any, at: Any, size: Any, n: int) -> Any:
        return b.add(at, b.mul(size, ir.Constant(I64, n)))

    def load_grad(b: Any, grad: Any, pixel: Any, blank: Any, n: int, j: Any, wide: Any, mask: Any) -> Any:
        at = step(b, grad, pixel, n)
        at = b.select(inside(b, j, n, wide), at, blank) if edge else at
        return own(b).load(at, mask if spec.masked else None)

    def add_places(b: Any, total: Any, grad: Any, kept: Any, pixel: Any, blank: Any, place: Any, j: Any, wide: Any,
                   mask: Any) -> Any:  # fmt: skip
        sums, bytes_ = unpack(b, total), Lanes(b, "u8", LANES, "max")
        base = splat(b, b.trunc(place, I8), LANES)
        channels = b.sdiv(pixel, ir.Constant(I64, item))
        for n in range(spec.windows):
            g = load_grad(b, grad, pixel, blank, n, j, wide, mask)
            at = step(b, kept, channels, n)
            at = b.select(inside(b, j, n, wide), at, blank) if edge else at
            chosen = b.sub(bytes_.load(at, mask if spec.masked else None), base)
            for column in range(spec.columns):
                looks = spec.looks(n, column)
                if looks is not None:
                    its = b.icmp_unsigned("==", chosen, constant(chosen.type, looks))
                    sums[column] = b.select(its, b.fadd(sums[column], g), sums[column])
        return tuple(sums)

    def add_means(b: Any, total: Any, grad: Any, pixel: Any, blank: Any, inverses: Any, j: Any, wide: Any,
                  mask: Any) -> Any:  # fmt: skip
        sums = unpack(b, total)
        for n in range(spec.windows):
            g = load_grad(b, grad, pixel, blank, n, j, wide, mask)
            at = b.add(inverses, b.mul(b.add(j, ir.Constant(I64, n)), ir.Constant(I64, 4)))
            at = b.select(inside(b, j, n, wide), at, inverses) if edge else at
            by = b.load(b.inttoptr(at, ir.PointerType()), align=4, typ=ir.FloatType())
            share = b.fmul(g, splat(b, by, LANES))
            for column in range(spec.columns):
                if spec.looks(n, column) is not None:
                    sums[column] = b.fadd(sums[column], share)
        return tuple(sums)

    def put(b: Any, dx: Any, pixel: Any, total: Any, u: Any, wide: Any, mask: Any) -> None:
        for column, value in enumerate(unpack(b, total)):
            there = mask if spec.masked else None
            if edge:
                on_map = splat(b, inside(b, u, column, wide), LANES)
                there = b.and_(mask, on_map) if spec.masked else on_map
            own(b).store(value, step(b, dx, pixel, column), there)

    def prefetch(b: Any, dx: Any, grad: Any, pixel: Any) -> None:
        """Into the second cache: the row of dx below, and the next row of windows."""
        for column in range(spec.columns):
            own(b).prefetch(step(b, dx, pixel, column))
        for n in range(spec.behind, spec.windows):
            own(b).prefetch(step(b, grad, pixel, n))

    def made(arguments: list[Any], result: Any, emit: Any) -> Any:
        return word(lambda *given: result(*given), emit, arguments)

    return {
        "there": made([NUMBER, NUMBER], mask, lambda b, c, channels: own(b).on(c, channels)),
        "nothing": made([], state, lambda b: tuple([own(b).blank()] * spec.columns)),
        "add_places": made([state, *[NUMBER] * 7, mask], state, add_places),
        "add_means": made([state, *[NUMBER] * 6, mask], state, add_means),
        "prefetch": made([NUMBER, NUMBER, NUMBER], types.void, prefetch),
        "put": made([NUMBER, NUMBER, state, NUMBER, NUMBER, mask], types.void, put),
    }
