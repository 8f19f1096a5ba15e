"""gem: (sum(x^p) / n)^(1/p), generalised mean; p = 1 is the mean, as p grows it becomes the max.

Values below 1e-6 count as 1e-6, as in the authors' code (Radenović, Tolias, Chum, arXiv 1711.02512): feature maps after
a ReLU are not negative, and the root has no slope at zero. `share` is zero there.
"""

from typing import Any

m: Any = None  # the maths of the loop that is asking

LEAST = 1e-6
TINY = 1e-38  # p = 10 sends LEAST^p below what float32 holds: a root of exactly 0 has no finite slope

empty = 0.0, 0.0  # sum of x^p, how many
parameters = {"p": 3.0}
adds_up = True


def lift(x: Any, p: Any) -> Any:
    return m.pow(m.maximum(x, LEAST), p), 1.0


def combine(s: Any, n: Any, s2: Any, n2: Any, p: Any) -> Any:
    return s + s2, n + n2


def finish(s: Any, n: Any, p: Any) -> Any:
    return m.pow(m.maximum(s / n, TINY), 1 / p)


def share(x: Any, out: Any, s: Any, n: Any, p: Any) -> Any:
    return m.where(x > LEAST, m.pow(m.maximum(x, LEAST) / out, p - 1) / n, 0.0)


def fold(x: Any, p: Any) -> Any:
    return m.sum(m.pow(m.maximum(x, LEAST), p)), m.count(x)
