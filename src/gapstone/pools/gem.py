"""gem: (sum(x^p) / n)^(1/p), generalised mean; p = 1 is the mean, p = ∞ the max.

Values below 1e-6 count as 1e-6, as in the authors' code: feature maps after a ReLU are not negative, and the root has
no slope at zero. `share` is zero there. Powers are taken of x over the largest x: 10^50 would not fit into float32.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

LEAST = 1e-6

empty = LEAST, 0.0, 0.0
state = "the largest x", "sum of (x / largest)^p", "how many"
nothing = "NaN"
parameters = {"p": Parameter(3.0, least=1e-2, most=inf, learned=(0.1, 100.0), computed=(1e-2, 1e30))}
adds_up = True
weighted = True
reference = "max"
source = "Radenović, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation, arXiv 1711.02512"


def lift(x: Any, _p: Any) -> Any:
    return m.maximum(x, LEAST), 1.0, 1.0


def key(x: Any, _p: Any) -> Any:
    return m.maximum(x, LEAST)


def terms(x: Any, top: Any, p: Any) -> Any:
    return m.pow(m.ratio(m.maximum(x, LEAST), top), p), 1.0


def combine(top: Any, s: Any, n: Any, top2: Any, s2: Any, n2: Any, p: Any) -> Any:
    new = m.maximum(top, top2)
    return new, s * m.pow(m.ratio(top, new), p) + s2 * m.pow(m.ratio(top2, new), p), n + n2


def finish(top: Any, s: Any, n: Any, p: Any) -> Any:
    return top * m.pow(s / n, 1.0 / p)


def share(x: Any, _out: Any, top: Any, s: Any, n: Any, p: Any) -> Any:
    root = m.pow(s / n, 1.0 / p - 1.0) / n
    return m.where(x > LEAST, m.pow(m.ratio(m.maximum(x, LEAST), top), p - 1.0) * root, 0.0)


def slope(x: Any, out: Any, top: Any, s: Any, n: Any, p: Any) -> Any:
    u = m.ratio(m.maximum(x, LEAST), top)
    return out * (m.pow(u, p) * m.log(u) / s - m.log(s / n) / (p * n)) / p
