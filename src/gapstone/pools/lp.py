"""lp: sum(|x|^p)^(1/p), the p-norm; p = 1 adds absolute values, p = ∞ is the largest of them.

Below p = 1 it is no norm. Powers are taken of |x| over the largest |x|, so none overflows. At x = 0 the gradient is 0.
torch's `lp_pool` takes powers with their sign: the two agree where x ≥ 0 or p is even.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0
state = "the largest |x|", "sum of (|x| / largest)^p"
nothing = "0"
parameters = {"p": Parameter(2.0, least=1e-2, most=inf, learned=(0.1, 100.0), computed=(1e-2, 1e30))}
adds_up = True
weighted = True
reference = "max"
source = "Gulcehre, Cho, Pascanu, Bengio: Learned-norm pooling, arXiv 1311.1780"


def lift(x: Any, _p: Any) -> Any:
    return m.abs(x), 1.0


def key(x: Any, _p: Any) -> Any:
    return m.abs(x)


def terms(x: Any, top: Any, p: Any) -> Any:
    return (m.pow(m.ratio(m.abs(x), top), p),)


def combine(top: Any, s: Any, top2: Any, s2: Any, p: Any) -> Any:
    new = m.maximum(top, top2)
    return new, s * m.pow(m.ratio(top, new), p) + s2 * m.pow(m.ratio(top2, new), p)


def finish(top: Any, s: Any, p: Any) -> Any:
    return top * m.pow(s, 1.0 / p)


def share(x: Any, _out: Any, top: Any, s: Any, p: Any) -> Any:
    size = m.pow(m.ratio(m.abs(x), top), p - 1.0) * m.pow(s, 1.0 / p - 1.0)
    return m.where(x > 0.0, size, m.where(x < 0.0, -size, 0.0))


def slope(x: Any, out: Any, top: Any, s: Any, p: Any) -> Any:
    u = m.ratio(m.abs(x), top)
    logarithm = m.where(u > 0.0, m.log(m.where(u > 0.0, u, 1.0)), 0.0)
    return out * m.pow(u, p) * (logarithm - m.log(s) / p) / (s * p)
