"""attention: sum(x exp(score)) / sum(exp(score)), score = query · x / sqrt(C); a learned query says where to look.

One score per position weighs all channels. A query of zeros is the mean. `share` is the weight of a position, with the
scores held: so maps add up to the answer, though the gradient of x has a second way through its score.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = -inf, 0.0, 0.0
state = "the largest score", "sum of exp(score − largest)", "sum of x exp(score − largest)"
nothing = "NaN"
parameters = {"score": Parameter(per_position=True)}
adds_up = True
weighted = True
reference = "max"
source = "Ilse, Tomczak, Welling: Attention-based deep multiple instance learning, arXiv 1802.04712"


def lift(x: Any, score: Any) -> Any:
    return score, 1.0, x


def key(_x: Any, score: Any) -> Any:
    return score


def terms(x: Any, top: Any, score: Any) -> Any:
    e = m.exp(m.below(score, top))
    return e, m.where(e == 0.0, 0.0, x * e)


def combine(top: Any, s: Any, w: Any, top2: Any, s2: Any, w2: Any, _score: Any) -> Any:
    new = m.maximum(top, top2)
    e = m.exp(m.below(top, new))
    e2 = m.exp(m.below(top2, new))
    return new, s * e + s2 * e2, m.where(e == 0.0, 0.0, w * e) + m.where(e2 == 0.0, 0.0, w2 * e2)


def finish(_top: Any, s: Any, w: Any, _score: Any) -> Any:
    return w / s


def share(_x: Any, _out: Any, top: Any, s: Any, _w: Any, score: Any) -> Any:
    return m.exp(m.below(score, top)) / s


def slope(x: Any, out: Any, top: Any, s: Any, _w: Any, score: Any) -> Any:
    e = m.exp(m.below(score, top))
    return m.where(e == 0.0, 0.0, e * (x - out) / s)
