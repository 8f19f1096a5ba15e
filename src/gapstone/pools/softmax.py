"""softmax: sum(x exp(r x)) / sum(exp(r x)), SoftPool; r = 0 is the mean, r = ∞ the max.

Each position is weighted by the exponential of its own value. A larger x also takes weight from the others, so a share
can be negative, and `sum(x * share)` is *not* the answer: its maps do not add up.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = -inf, 0.0, 0.0
state = "the largest x", "sum of exp(r (x − largest))", "sum of x exp(r (x − largest))"
nothing = "NaN"
parameters = {"r": Parameter(1.0, least=0.0, most=inf, learned=(0.0, 1e3), computed=(0.0, 1e30))}
adds_up = False
weighted = True
reference = "max"
source = "Stergiou, Poppe, Kalliatakis: Refining activation downsampling with SoftPool, arXiv 2101.00440"


def lift(x: Any, _r: Any) -> Any:
    return x, 1.0, x


def terms(x: Any, top: Any, r: Any) -> Any:
    e = m.exp(r * m.below(x, top))
    return e, m.where(e == 0.0, 0.0, x * e)


def combine(top: Any, s: Any, w: Any, top2: Any, s2: Any, w2: Any, r: Any) -> Any:
    new = m.maximum(top, top2)
    e = m.exp(r * m.below(top, new))
    e2 = m.exp(r * m.below(top2, new))
    return new, s * e + s2 * e2, m.where(e == 0.0, 0.0, w * e) + m.where(e2 == 0.0, 0.0, w2 * e2)


def finish(_top: Any, s: Any, w: Any, _r: Any) -> Any:
    return w / s


def share(x: Any, out: Any, top: Any, s: Any, _w: Any, r: Any) -> Any:
    e = m.exp(r * m.below(x, top))
    return m.where(e == 0.0, 0.0, e * (1.0 + r * (x - out)) / s)


def slope(x: Any, out: Any, top: Any, s: Any, _w: Any, r: Any) -> Any:
    e = m.exp(r * m.below(x, top))
    return m.where(e == 0.0, 0.0, e * (x - out) * (x - out) / s)
