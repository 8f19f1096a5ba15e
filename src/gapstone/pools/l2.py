"""l2: sqrt(sum(x²)), the Euclidean norm; `lp` with p = 2, without its powers.

Squares are taken of x over the largest |x|, so none overflows. At an all-zero region the gradient is 0.
"""

from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0
state = "the largest |x|", "sum of (x / largest)²"
nothing = "0"
adds_up = True
weighted = True
reference = "max"
source = "Hyvärinen, Köster: Complex cell pooling and the statistics of natural images, 2007"


def lift(x: Any) -> Any:
    return m.abs(x), 1.0


def key(x: Any) -> Any:
    return m.abs(x)


def terms(x: Any, top: Any) -> Any:
    u = m.ratio(m.abs(x), top)
    return (u * u,)


def combine(top: Any, s: Any, top2: Any, s2: Any) -> Any:
    new = m.maximum(top, top2)
    u, u2 = m.ratio(top, new), m.ratio(top2, new)
    return new, s * u * u + s2 * u2 * u2


def finish(top: Any, s: Any) -> Any:
    return top * m.sqrt(s)


def share(x: Any, _out: Any, top: Any, s: Any) -> Any:
    size = m.ratio(m.abs(x), top) / m.sqrt(s)
    return m.where(x > 0.0, size, m.where(x < 0.0, -size, 0.0))
