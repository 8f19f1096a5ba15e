"""The pools' formulas on vectors of float32: what one position adds, how a reference is raised, what sums become.

    gem         top u, u = (sum(x / top)^p / n)^(1/p)        sums: (x / top)^p; x³ or x² where p is 3 or 2
    logsumexp   top + log(sum exp(r (x - top)) / n) / r      sums: exp(z), exp(z) - 1 (pools/logsumexp.py says why)
    softmax     sum x exp(r (x - top)) / sum exp(r (x - top))

`top` is the largest x so far. Where it is NaN, infinite, or gem's beyond 1e30, `refuses` says that it is not to be had
here, and the derived loop takes the call: no formula below looks for such numbers, and none meets a ratio under 2^-126.
"""

from math import inf, log
from typing import Any

from llvmlite import ir

from gapstone.loops.vector_math import LOG2_E, ROUND, SQRT_HALF_BITS, Speaker
from gapstone.loops.vectors import call, constant
from gapstone.pools.gem import LEAST

ROUND_127 = ROUND + 127.0  # leaves n + 127 in the last bits: shifted by 23 they are 2^n
LEAST_EXPONENT = -126.0
LARGEST = 3.4028234663852886e38  # of float32
MOST_CUBED = 1e12  # its own square and cube, and what they are divided by, are normal numbers
MOST_TOP = 1e30  # 1e-6 / 1e30 is a normal number still, and so is 1 / 1e30
# log2(1 + f) = f A(f) for sqrt(1/2) <= 1 + f < sqrt(2), within 7e-9; 2^r = 1 + r B(r) for |r| <= 1/2, within 2e-9.
# Fitted by weighted least squares at Chebyshev's points
LOG2 = (0.12541243, -0.21030334, 0.21737939, -0.23851943, 0.28765666, -0.3607212, 0.48092252, -0.72134715, 1.4426949)
EXP2 = (1.5353362e-4, 1.3398874e-3, 9.618437e-3, 5.5503324e-2, 0.24022648, 0.69314718)


class Maths(Speaker):
    """Powers of numbers in (0, 1], and the pools."""

    def at_least(self, x: Any, least: float) -> Any:
        """One instruction; NaN stays."""
        limit = self.number(least)
        return self.builder.select(self.builder.fcmp_ordered(">", limit, x), limit, x)

    def largest(self, a: Any, b: Any) -> Any:
        """NaN if one of them is."""
        return call(self.builder, "maximum", a, b, flags=("nsz",))

    def ratio(self, x: Any, top: Any, inverse: Any) -> Any:
        """x / top; 1 where they are equal, whatever the rounding: of p = 1e30 nothing else would be left."""
        same = self.builder.fcmp_ordered("==", x, top)
        return self.builder.select(same, self.number(1.0), self.builder.fmul(x, inverse))

    def below(self, x: Any, top: Any) -> Any:
        """x - top; 0 where they are equal, both perhaps infinite."""
        same = self.builder.fcmp_ordered("==", x, top)
        return self.builder.select(same, self.number(0.0), self.builder.fsub(x, top))

    def log2(self, u: Any) -> tuple[Any, Any]:
        """Of normal u > 0: a whole number and what is added to it, from -1/2 to 1/2."""
        b = self.builder
        bits = b.bitcast(u, self.words)
        whole = b.ashr(b.sub(bits, constant(self.words, SQRT_HALF_BITS)), constant(self.words, 23))
        mantissa = b.bitcast(b.sub(bits, b.shl(whole, constant(self.words, 23))), self.kind)
        f = b.fsub(mantissa, self.number(1.0))
        return b.sitofp(whole, self.kind), b.fmul(self.polynomial(f, LOG2), f)

    def two_to(self, t: Any, rest: Any = None) -> tuple[Any, Any]:
        """2^t and 2^t - 1 for t <= 0; below 2^-126 it is that. `rest`: what t lost in rounding.

        Half of Speaker's instructions: t is rounded, so 2^t is off by a factor of 1 + t 2^-24. In a sum whose largest
        term is 1, a term of 2^t weighs as much less.
        """
        b = self.builder
        held = self.at_least(t, LEAST_EXPONENT)
        moved = b.fadd(held if rest is None else b.fadd(held, rest), self.number(ROUND_127))
        r = b.fsub(held, b.fsub(moved, self.number(ROUND_127)))
        r = r if rest is None else b.fadd(r, rest)
        less_one = b.fmul(self.polynomial(r, EXP2), r)
        power = b.bitcast(b.shl(b.bitcast(moved, self.words), constant(self.words, 23)), self.kind)
        return self.fma(power, less_one, power), self.fma(power, less_one, b.fsub(power, self.number(1.0)))

    def power(self, u: Any, p: Any) -> tuple[Any, Any]:
        """u^p, 0 below 2^-126, and log2(u), for u in (0, 1]; as exact where p is negative and u^p large."""
        b = self.builder
        e, more = self.log2(u)
        t = b.fmul(p, e)
        rest = self.fma(p, more, self.fma(p, e, b.fneg(t)))
        far = self.less(b.fadd(t, rest), LEAST_EXPONENT)
        return self.where(far, 0.0, self.two_to(t, rest)[0]), b.fadd(e, more)

    # ---- the pools

    def refuses(self, op: str, power: int, out: Any, top: Any) -> Any:
        """Where the derived loop is to be asked."""
        if op == "gem" and power:  # a cube overflowed, or there was an infinity or NaN
            return self.builder.not_(self.less(out, inf))
        size = call(self.builder, "fabs", top)
        return self.builder.not_(self.less(size, MOST_TOP if op == "gem" else inf))

    def key(self, op: str, x: Any) -> Any:
        """What the largest is taken of."""
        return self.at_least(x, LEAST) if op == "gem" else x

    def given(self, op: str, top: Any, p: Any) -> list[Any]:
        """What `terms` needs to know of an answer."""
        if op == "gem":
            return [top, self.builder.fdiv(self.number(1.0), top), p]
        return [top, self.builder.fmul(p, self.number(LOG2_E))]

    def terms(self, op: str, power: int, x: Any, given: list[Any]) -> list[Any]:
        """What one position adds to the sums."""
        b = self.builder
        if op == "gem":
            x = self.key(op, x)
            if not power:
                top, inverse, p = given
                return [self.two_to(b.fmul(p, b.fadd(*self.log2(self.ratio(x, top, inverse)))))[0]]
            square = b.fmul(x, x)
            return [square if power == 2 else b.fmul(square, x)]
        if op in ("logsumexp", "softmax"):
            top, r = given
            t = b.fmul(r, b.fsub(x, top))
            e, less = self.two_to(t)
            if op == "logsumexp":
                return [e, less]
            e = self.where(self.less(t, LEAST_EXPONENT), 0.0, e)
            # -∞ has no weight, but would make 0 a NaN; rounded once, with the addition
            return [e, b.fmul(self.at_least(x, -LARGEST), e, flags=("contract",))]
        return [x]

    def rescaled(self, op: str, top: Any, new: Any, sums: list[Any], before: Any, p: Any) -> list[Any]:
        """The sums of `before` positions, float64, taken against `top`, against a new reference."""
        b = self.builder
        if op == "gem":
            factor = self.pow(self.ratio(top, new, b.fdiv(self.number(1.0), new)), p)
            return [b.fmul(sums[0], self.wide(factor))]
        e, less = (self.wide(value) for value in self.exp_and_less_one(b.fmul(p, self.below(top, new))))
        first, second = sums
        if op == "logsumexp":
            return [b.fmul(first, e), b.fadd(b.fmul(second, e), b.fmul(before, less))]
        nothing = b.fcmp_ordered("==", e, constant(e.type, 0.0))  # of an infinite sum too
        return [b.fmul(first, e), b.select(nothing, e, b.fmul(second, e))]

    def wide(self, x: Any) -> Any:
        return self.builder.fpext(x, ir.VectorType(ir.DoubleType(), x.type.count))

    def narrow(self, x: Any) -> Any:
        return self.builder.fptrunc(x, self.kind)

    def root(self, a: Any, power: int, p: Any) -> Any:
        """a^(1/p)."""
        b = self.builder
        if power == 2:
            return call(b, "sqrt", a)
        if power == 0:
            return self.pow(a, b.fdiv(self.number(1.0), p))
        y = self.pow(a, self.number(1 / 3))  # 1/3 is rounded: of 1e-18 four units off. One of Newton's steps
        square = b.fmul(y, y)
        return b.fsub(y, b.fdiv(self.fma(square, y, b.fneg(a)), b.fmul(square, self.number(3.0))))

    def answer(self, op: str, power: int, top: Any, sums: list[Any], n: Any, p: Any) -> tuple[Any, Any]:
        """The answer, and the sum that is kept. Sums and n are float64."""
        b, count = self.builder, self.narrow(n)
        s = self.narrow(sums[0])
        if op == "gem" and power:
            wide = self.wide(top)
            at_top = b.fmul(wide, wide)
            at_top = at_top if power == 2 else b.fmul(at_top, wide)
            return self.root(self.narrow(b.fdiv(sums[0], n)), power, p), self.narrow(b.fdiv(sums[0], at_top))
        if op == "gem":
            return b.fmul(top, self.root(self.narrow(b.fdiv(sums[0], n)), 0, p)), s
        if op == "softmax":
            return self.narrow(b.fdiv(sums[1], sums[0])), s
        small = b.fcmp_ordered(">", s, b.fmul(count, self.number(0.5)))
        near = self.log1p(self.where(small, self.narrow(b.fdiv(sums[1], n)), 0.0))
        far = self.log(self.narrow(b.fdiv(sums[0], n)))
        return b.fadd(top, b.fdiv(b.select(small, near, far), p)), s

    # ---- backward

    def factors(self, op: str, power: int, known: dict[str, Any], n: Any, p: Any) -> list[Any]:
        """What `share` needs to know of an answer. `known`: grad, second_grad, out, top, sum."""
        b, g = self.builder, known["grad"]
        if op in ("mean", "avgmax"):
            mean = b.fdiv(g, n)
            return [mean] if op == "mean" else [mean, known["second_grad"]]
        if op == "max":
            return [known["second_grad"]]
        top, s = known["top"], known["sum"]
        if op in ("logsumexp", "softmax"):
            return [top, b.fmul(p, self.number(LOG2_E)), b.fdiv(g, s), known["out"], p]
        # root^(1 - p) / n = (s / n)^(1/p - 1) / n
        less = b.fsub(b.fdiv(self.number(1.0), p), self.number(1.0))
        own = b.fdiv(b.fmul(g, self.pow(b.fdiv(s, n), less)), n)
        if power:  # x² own / top²: nothing is rounded on the way
            wide = self.wide(top)
            return [self.narrow(b.fdiv(self.wide(own), wide if power == 2 else b.fmul(wide, wide)))]
        return [own, top, b.fdiv(self.number(1.0), top), b.fsub(p, self.number(1.0))]

    def share(self, op: str, power: int, x: Any, factors: list[Any]) -> tuple[Any, Any]:
        """One position's dx, and what the slope of p or r has from it (not of a power that is a number)."""
        b = self.builder
        if op == "gem":
            own, slope = factors[0], None
            if power:
                dx = b.fmul(x if power == 2 else b.fmul(x, x), own)
            else:
                top, inverse, less = factors[1:]
                u = self.ratio(self.key(op, x), top, inverse)
                shrunk, bits = self.power(u, less)
                dx, slope = b.fmul(shrunk, own), b.fmul(b.fmul(shrunk, u), bits)
            return self.where(self.more(x, LEAST), dx, 0.0), slope
        top, r, own, out, rate = factors
        t = b.fmul(r, b.fsub(x, top))
        far = self.less(t, LEAST_EXPONENT)
        e, off = self.where(far, 0.0, self.two_to(t)[0]), b.fsub(x, out)
        if op == "logsumexp":
            return b.fmul(e, own), self.where(far, 0.0, b.fmul(e, off))
        more = self.fma(rate, off, self.number(1.0))
        dx = self.where(far, 0.0, b.fmul(b.fmul(e, own), more))
        return dx, self.where(far, 0.0, b.fmul(b.fmul(e, off), off))

    def slope(self, op: str, known: dict[str, Any], total: Any, n: Any, p: Any) -> Any:
        """d answer / d p, times grad, from the positions' sum."""
        b, g, s = self.builder, known["grad"], known["sum"]
        if op == "gem":
            total = b.fmul(total, self.number(log(2.0)))
            parts = b.fsub(b.fdiv(total, s), b.fdiv(self.log(b.fdiv(s, n)), p))
            return b.fmul(b.fmul(g, b.fdiv(known["out"], p)), parts)
        return b.fdiv(b.fmul(total, g), s if op == "softmax" else b.fmul(s, p))
