"""logsumexp: log(sum(exp(r x)) / n) / r; r near 0 is the mean, large r the max.

The smooth maximum of Pinheiro and Collobert (arXiv 1411.6228), r > 0. The division by n makes a constant map pool to
that constant, whatever the size of the region. Its shares are a softmax: `sum(x * share)` is a weighted mean of x and
*not* the answer, so its maps do not add up.
"""

from math import inf
from typing import Any

m: Any = None  # the maths of the loop that is asking

# the largest x so far, sum of exp(r (x - largest)), how many. An infinite x is taken against 0: inf - inf would be NaN.
empty = -inf, 0.0, 0.0
parameters = {"r": 5.0}
adds_up = False


def lift(x: Any, r: Any) -> Any:
    return x, m.exp(r * (x - m.finite(x))), 1.0


def combine(top: Any, s: Any, n: Any, top2: Any, s2: Any, n2: Any, r: Any) -> Any:
    new = m.maximum(top, top2)
    return new, s * m.exp(r * (top - m.finite(new))) + s2 * m.exp(r * (top2 - m.finite(new))), n + n2


def finish(top: Any, s: Any, n: Any, r: Any) -> Any:
    return m.finite(top) + m.log(s / n) / r


def share(x: Any, out: Any, top: Any, s: Any, n: Any, r: Any) -> Any:
    return m.exp(r * (x - m.finite(top))) / s


def fold(x: Any, r: Any) -> Any:
    top = m.constant(m.max(x))  # the answer does not depend on the reference: no gradient goes through it
    return top, m.sum(m.exp(r * (x - m.finite(top)))), m.count(x)
