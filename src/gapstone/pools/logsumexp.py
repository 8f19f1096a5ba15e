"""logsumexp: log(sum(exp(r x)) / n) / r, a smooth maximum; r = 0 is the mean, r = ∞ the max.

The division by n makes a constant map pool to that constant, whatever the size of the region. Its shares are a softmax:
`sum(x * share)` is a weighted mean of x and *not* the answer, so its maps do not add up. The state keeps the sum twice,
as exp and as exp - 1: near r = 0 the first has lost the digits that matter, at large r the second has.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = -inf, 0.0, 0.0, 0.0
state = "the largest x", "sum of exp(r (x − largest))", "sum of exp(r (x − largest)) − 1", "how many"
nothing = "NaN"
# 1e-18 stands for r = 0: exp(r d) - 1 is r d to the last digit, and r d does not underflow
parameters = {"r": Parameter(5.0, least=0.0, most=inf, learned=(1e-3, 1e3), computed=(1e-18, 1e30))}
adds_up = False
weighted = True
reference = "max"
source = "Pinheiro, Collobert: From image-level to pixel-level labeling, arXiv 1411.6228"


def lift(x: Any, _r: Any) -> Any:
    return x, 1.0, 0.0, 1.0


def terms(x: Any, top: Any, r: Any) -> Any:
    z = r * m.below(x, top)
    return m.exp(z), m.expm1(z), 1.0


def combine(top: Any, s: Any, d: Any, n: Any, top2: Any, s2: Any, d2: Any, n2: Any, r: Any) -> Any:
    new = m.maximum(top, top2)
    z = r * m.below(top, new)
    z2 = r * m.below(top2, new)
    # exp(a + z) - 1 = (exp(a) - 1) exp(z) + (exp(z) - 1)
    less = d * m.exp(z) + n * m.expm1(z) + d2 * m.exp(z2) + n2 * m.expm1(z2)
    return new, s * m.exp(z) + s2 * m.exp(z2), less, n + n2


def finish(top: Any, s: Any, d: Any, n: Any, r: Any) -> Any:
    small = s > 0.5 * n
    return top + m.where(small, m.log1p(m.where(small, d / n, 0.0)), m.log(s / n)) / r


def share(x: Any, _out: Any, top: Any, s: Any, _d: Any, _n: Any, r: Any) -> Any:
    return m.exp(r * m.below(x, top)) / s


def slope(x: Any, out: Any, top: Any, s: Any, _d: Any, _n: Any, r: Any) -> Any:
    e = m.exp(r * m.below(x, top))
    return m.where(e > 0.0, e * (x - out), 0.0) / (s * r)
