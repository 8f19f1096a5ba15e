"""topk: the mean of the k largest x; k = 1 is the max. Where a region has fewer than k positions, the mean of them all.

The state's numbers are lists of k, largest first; of equals, the first position goes before. NaN goes before all.
"""

from math import inf
from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = -inf, 2**62
state = "the k largest x", "their positions"
nothing = "NaN"
parameters = {"k": Parameter(least=1, whole=True)}
adds_up = True
positional = True
source = "Durand, Mordan, Thome, Cord: WILDCAT, CVPR 2017"


def lift(x: Any, i: Any, k: Any) -> Any:
    return m.list(x, k, -inf), m.list(i, k, 2**62)


def combine(v: Any, i: Any, v2: Any, i2: Any, _k: Any) -> Any:
    return m.merge_largest(v, i, v2, i2)


def finish(v: Any, i: Any, _k: Any) -> Any:
    return m.mean_of_list(v, i)


def share(x: Any, i: Any, _out: Any, v: Any, where: Any, _k: Any) -> Any:
    least, last = m.last_of_list(v, where)
    chosen = (x > least) | ((x != x) & (least == least)) | (((x == least) | (x != x)) & (i <= last))
    return m.where(chosen, 1.0 / m.count_of_list(v, where), 0.0)


def fold(x: Any, k: Any) -> Any:
    return m.largest(x, k)
