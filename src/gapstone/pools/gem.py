"""gem: (sum(x^p) / n)^(1/p), generalised mean; p = 1 is the mean, as p grows it becomes the max.

Values below 1e-6 count as 1e-6, as in the authors' code (Radenović, Tolias, Chum, arXiv 1711.02512): feature maps after
a ReLU are not negative, and the root has no slope at zero. `share` is zero there. Powers are taken of x over the
largest x: 10^50 would not fit into float32.
"""

from math import inf
from typing import Any

m: Any = None  # the maths of the loop that is asking

LEAST = 1e-6

empty = LEAST, 0.0, 0.0  # the largest x so far, sum of (x / largest)^p, how many
parameters = {"p": 3.0}
adds_up = True


def lift(x: Any, p: Any) -> Any:
    return m.maximum(x, LEAST), 1.0, 1.0


def combine(top: Any, s: Any, n: Any, top2: Any, s2: Any, n2: Any, p: Any) -> Any:
    new = m.maximum(top, top2)
    old, old2 = m.where(new < inf, top / new, 1.0), m.where(new < inf, top2 / new, 1.0)
    return new, s * m.pow(old, p) + s2 * m.pow(old2, p), n + n2


def finish(top: Any, s: Any, n: Any, p: Any) -> Any:
    return top * m.pow(s / n, 1 / p)


def share(x: Any, out: Any, top: Any, s: Any, n: Any, p: Any) -> Any:
    return m.where(x > LEAST, m.pow(m.maximum(x, LEAST) / out, p - 1) / n, 0.0)


def fold(x: Any, p: Any) -> Any:
    positive = m.maximum(x, LEAST)
    top = m.constant(m.max(positive))  # the answer does not depend on the reference: no gradient goes through it
    return top, m.sum(m.pow(m.where(top < inf, positive / top, 1.0), p)), m.count(x)
