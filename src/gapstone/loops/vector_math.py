"""The maths that pools speak, for vectors in compiled loops (vectors.py).

exp, log and pow of float32 are polynomials of our own, within 1-2 units in the last place: LLVM has none for vectors,
and would call libm once per lane. NaN stays NaN, and infinities are right. Pools take powers of numbers >= 0 only.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from gapstone.loops.vectors import FAST, SCALARS, Vector, as_lanes, call, constant

WORD = ir.IntType(32)
LOG2_E, LN2 = 1.4426950408889634, 0.6931471805599453
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # together ln 2; the first has 9 bits, so its multiples are exact
ROUND = 12582912.0  # 1.5 x 2^23: added to a number below 2^22 it leaves the nearest whole number in the last bits
ROUND_BITS = 0x4B400000
SQRT_HALF_BITS = 0x3F3504F3

# exp(r) = 1 + r + r² E(r) for |r| <= ln 2 / 2 (Cephes)
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# log(1 + f) = f - f²/2 + f³ L(f) for sqrt(1/2) <= 1 + f < sqrt(2) (Cephes)
LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
       2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
LOG2_E_HIGH = 1.44140625  # 10 bits
LOG2_E_LOW = LOG2_E - LOG2_E_HIGH


class Speaker:
    """Instructions on float32 vectors, written as formulas. None may be reordered: roundings are made use of."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.builder = builder
        self.kind = ir.VectorType(ir.FloatType(), lanes)
        self.words = ir.VectorType(WORD, lanes)

    def number(self, value: float) -> Any:
        return constant(self.kind, value)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return call(self.builder, "fma", *(self.number(v) if isinstance(v, float) else v for v in (a, b, c)))

    def polynomial(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        total = self.number(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, c)
        return total

    def less(self, x: Any, limit: float) -> Any:
        return self.builder.fcmp_ordered("<", x, self.number(limit))

    def more(self, x: Any, limit: float) -> Any:
        return self.builder.fcmp_ordered(">", x, self.number(limit))

    def equal(self, x: Any, value: float) -> Any:
        return self.builder.fcmp_ordered("==", x, self.number(value))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        a, b = (self.number(v) if isinstance(v, float) else v for v in (a, b))
        return self.builder.select(condition, a, b)

    def held(self, x: Any, least: float, most: float) -> Any:
        x = self.where(self.less(x, least), least, x)
        return self.where(self.more(x, most), most, x)

    def nan_of(self, x: Any, otherwise: Any) -> Any:
        return self.builder.select(self.builder.fcmp_unordered("uno", x, x), x, otherwise)

    def rounded(self, x: Any) -> tuple[Any, Any]:
        """The nearest whole number of |x| < 2^22, as float and as int. No fptosi: of NaN it may be anything."""
        moved = self.builder.fadd(x, self.number(ROUND))
        whole = self.builder.sub(self.builder.bitcast(moved, self.words), constant(self.words, ROUND_BITS))
        return self.builder.fsub(moved, self.number(ROUND)), whole

    def times_power_of_two(self, x: Any, whole: Any) -> Any:
        """x 2^n for -125 <= n <= 128: 2^128 has no float32 to multiply with, so (2 x) 2^(n - 1)."""
        bits = self.builder.shl(self.builder.add(whole, constant(self.words, 126)), constant(self.words, 23))
        return self.builder.fmul(self.builder.fadd(x, x), self.builder.bitcast(bits, self.kind))

    def exp_parts(self, x: Any) -> tuple[Any, Any]:
        """exp(r) - 1 and n, where x = r + n ln 2."""
        n, whole = self.rounded(self.builder.fmul(x, self.number(LOG2_E)))
        r = self.fma(n, -LN2_LOW, self.fma(n, -LN2_HIGH, x))
        square = self.builder.fmul(r, r)
        return self.fma(self.polynomial(r, EXP), square, r), whole

    def exp_and_less_one(self, x: Any) -> tuple[Any, Any]:
        less_one, whole = self.exp_parts(self.held(x, -87.0, 89.0))
        result = self.times_power_of_two(self.builder.fadd(less_one, self.number(1.0)), whole)
        power = self.times_power_of_two(self.number(1.0), whole)
        less = self.fma(power, less_one, self.builder.fsub(power, self.number(1.0)))
        # below 2^-125 all is 0: where it matters it is added to 1
        return self.where(self.less(x, -87.0), 0.0, result), self.where(self.more(x, 20.0), result, less)

    def exp(self, x: Any) -> Any:
        return self.nan_of(x, self.exp_and_less_one(x)[0])

    def expm1(self, x: Any) -> Any:
        return self.nan_of(x, self.exp_and_less_one(x)[1])

    def split(self, x: Any) -> tuple[Any, Any]:
        """x > 0 as 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); numbers below 2^-126 too."""
        tiny = self.less(x, 1.1754944e-38)
        x = self.where(tiny, self.builder.fmul(x, self.number(16777216.0)), x)
        bits = self.builder.sub(self.builder.bitcast(x, self.words), constant(self.words, SQRT_HALF_BITS))
        exponent = self.builder.ashr(bits, constant(self.words, 23))
        mantissa = self.builder.sub(
            self.builder.bitcast(x, self.words), self.builder.shl(exponent, constant(self.words, 23))
        )
        e = self.builder.sitofp(exponent, self.kind)
        e = self.where(tiny, self.builder.fsub(e, self.number(24.0)), e)
        return e, self.builder.fsub(self.builder.bitcast(mantissa, self.kind), self.number(1.0))

    def log(self, x: Any) -> Any:
        e, f = self.split(x)
        square = self.builder.fmul(f, f)
        cubes = self.builder.fmul(self.builder.fmul(self.polynomial(f, LOG), f), square)
        small = self.fma(square, -0.5, self.fma(e, LN2_LOW, cubes))
        result = self.fma(e, LN2_HIGH, self.builder.fadd(f, small))
        result = self.where(self.equal(x, inf), inf, self.where(self.equal(x, 0.0), -inf, result))
        return self.nan_of(x, self.where(self.less(x, 0.0), float("nan"), result))

    def log1p(self, x: Any) -> Any:
        """log(1 + x), and what 1 + x lost in rounding."""
        u = self.builder.fadd(x, self.number(1.0))
        lost = self.builder.fdiv(self.builder.fsub(x, self.builder.fsub(u, self.number(1.0))), u)
        result = self.builder.fadd(self.log(u), lost)
        return self.where(self.equal(x, inf), inf, self.where(self.equal(x, -1.0), -inf, result))

    def pow(self, x: Any, p: Any) -> Any:
        """2^(p log2(x)); log2(x) in three parts, so that the error does not grow with p."""
        b = self.builder
        e, f = self.split(x)
        # log2(1 + f) = f times the upper bits of log2(e), + the rest
        square = b.fmul(f, f)
        rest = self.fma(b.fmul(self.polynomial(f, LOG), f), square, b.fmul(square, self.number(-0.5)))
        upper = b.fmul(f, self.number(LOG2_E_HIGH))
        lower = self.fma(f, LOG2_E_LOW, self.fma(f, LOG2_E_HIGH, b.fneg(upper)))
        lower = self.fma(rest, LOG2_E, lower)
        high = b.fmul(p, e)
        total = self.fma(p, lower, self.fma(p, upper, high))
        n, whole = self.rounded(total)
        r = b.fadd(self.fma(p, upper, b.fsub(high, n)), self.fma(p, lower, self.fma(p, e, b.fneg(high))))
        r = b.fmul(r, self.number(LN2))
        result = b.fadd(self.fma(self.polynomial(r, EXP), b.fmul(r, r), r), self.number(1.0))
        result = self.times_power_of_two(result, whole)
        result = self.where(self.more(total, 128.0), inf, self.where(self.less(total, -125.0), 0.0, result))
        # the sides of these depend on p alone: they are computed outside the loop
        at_zero = self.where(self.more(p, 0.0), 0.0, self.where(self.less(p, 0.0), inf, 1.0))
        at_infinity = self.where(self.more(p, 0.0), inf, self.where(self.less(p, 0.0), 0.0, 1.0))
        result = self.where(self.equal(x, 0.0), at_zero, self.where(self.equal(x, inf), at_infinity, result))
        return self.where(b.fcmp_ordered(">=", x, self.number(0.0)), result, float("nan"))

    def small_pow(self, x: Any, p: Any) -> Any:
        """x² and x³ by multiplication, 3x faster: where every lane asks for the same."""
        b = self.builder
        cubes, squares, other, end = (b.append_basic_block(name) for name in ("cubes", "squares", "other", "end"))
        mixed = b.append_basic_block("not_cubes")
        b.cbranch(self.every(self.equal(p, 3.0)), cubes, mixed)
        results = []
        b.position_at_end(mixed)
        b.cbranch(self.every(self.equal(p, 2.0)), squares, other)
        for block in (cubes, squares, other):
            b.position_at_end(block)
            if block is other:
                value = self.pow(x, p)
            else:
                value = b.fmul(x, x)
                value = b.fmul(value, x) if block is cubes else value
            results.append((value, b.block))
            b.branch(end)
        b.position_at_end(end)
        phi = b.phi(self.kind)
        for value, block in results:
            phi.add_incoming(value, block)
        return phi

    def every(self, condition: Any) -> Any:
        bits = ir.IntType(self.kind.count)
        return self.builder.icmp_unsigned("==", self.builder.bitcast(condition, bits), ir.Constant(bits, -1))


def _function(name: str, by_polynomial: bool = True) -> Any:
    """A function of LLVM's (libm's, lane by lane, for exp and log); `by_polynomial`: Speaker's for float32."""

    @intrinsic
    def word(typing: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            if by_polynomial and x.kind == "f32":
                return getattr(Speaker(builder, x.lanes), name)(values[0])
            return call(builder, name, values[0])

        return x(x), emit

    return word


exp, log, expm1, log1p = map(_function, ("exp", "log", "expm1", "log1p"))
sqrt, abs = _function("sqrt", False), _function("fabs", False)


@intrinsic
def pow(typing: Any, x: Any, p: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        power = as_lanes(context, builder, values[1], p, x)
        if x.kind == "f32":
            return Speaker(builder, x.lanes).small_pow(values[0], power)
        return call(builder, "pow", values[0], power)

    return x(x, p), emit


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger; NaN if one of them is NaN."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first, second = values[0], as_lanes(context, builder, values[1], b, a)
        if a.kind.startswith("f"):
            return call(builder, "maximum", first, second, flags=("nsz",))
        return builder.select(builder.icmp_signed(">", first, second), first, second)

    return a(a, b), emit


@intrinsic
def where(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    kinds = [k for k in (a, b) if isinstance(k, Vector)]
    kind = kinds[0] if kinds else Vector(next(n for n, s in SCALARS.items() if s == a), condition.lanes)

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first, second = (as_lanes(context, builder, v, k, kind) for v, k in zip(values[1:], (a, b), strict=True))
        return builder.select(values[0], first, second)

    return kind(condition, a, b), emit


def _unless_equal(value: float, name: str) -> Any:
    """x / top, x - top; where x == top, both perhaps infinite, the number that it should be."""

    @intrinsic
    def word(typing: Any, x: Any, top: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            same = builder.fcmp_ordered("==", values[0], values[1])
            otherwise: Callable[..., Any] = getattr(builder, name)
            kind = values[0].type
            return builder.select(same, constant(kind, value), otherwise(*values, flags=FAST))

        return x(x, top), emit

    return word


ratio, below = _unless_equal(1.0, "fdiv"), _unless_equal(0.0, "fsub")
