"""std: sqrt(sum((x − mean)²) / (n − correction)), the standard deviation; correction = 0 divides by n.

NaN where no more positions are seen than the correction, as in torch. Where all x are equal the gradient is 0. A
position below the mean lowers the answer: shares may be negative, and still add up.
"""

from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0, 0.0, 0.0
# no number of x's own type is the mean exactly: of values like 1000.001 its rounding is as large as the spread
state = "a number next to the mean", "sum of x − that number", "sum of (x − that number)²", "how many"
nothing = "NaN"
parameters = {"correction": Parameter(0.0, least=0.0)}
adds_up = True
weighted = True
reference = "mean"
source = "Snyder, Garcia-Romero, Povey, Khudanpur: statistics pooling, Interspeech 2017"


def lift(x: Any, _correction: Any) -> Any:
    return x, x - x, x - x, 1.0  # 0; NaN where x is infinite, for the mean is so too


def terms(x: Any, near: Any, _correction: Any) -> Any:
    return x - near, (x - near) * (x - near), 1.0


def combine(near: Any, d: Any, s: Any, n: Any, near2: Any, d2: Any, s2: Any, n2: Any, _correction: Any) -> Any:
    part = m.where(n2 > 0.0, n2 / (n + n2), 0.0)
    new = near + (near2 - near) * part
    # sums about `near` as sums about `new`
    a = near - new
    a2 = near2 - new
    moved = s + a * (2.0 * d + n * a)
    moved2 = s2 + a2 * (2.0 * d2 + n2 * a2)
    return new, d + n * a + d2 + n2 * a2, moved + moved2, n + n2


def finish(_near: Any, d: Any, s: Any, n: Any, correction: Any) -> Any:
    variance = m.maximum(s - d * d / n, 0.0) / m.maximum(n - correction, 0.0)
    # the root has no slope at 0, and NaN is not above it
    return m.where(variance > 0.0, m.sqrt(m.where(variance > 0.0, variance, 1.0)), variance)


def share(x: Any, out: Any, near: Any, d: Any, _s: Any, n: Any, correction: Any) -> Any:
    scale = m.where(out > 0.0, out, 1.0) * m.maximum(n - correction, 0.0)
    return m.where(out > 0.0, (x - near - d / n) / scale, 0.0)
