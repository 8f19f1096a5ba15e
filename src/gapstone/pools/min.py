"""min: the smallest x; NaN wins over every number.

The first position wins a tie and takes the whole gradient (torch's `x.amin` shares it out among equals).
"""

from math import inf
from typing import Any

from gapstone.pools.max import finish as finish
from gapstone.pools.max import lift as lift
from gapstone.pools.max import share as share

m: Any = None  # the maths of the loop that is asking

empty = inf, 2**62
state = "the smallest x", "its position"
nothing = "+∞ (the largest integer for integers)"
adds_up = True
positional = True
integers = "same"
source = "Durand, Thome, Cord: WELDON, CVPR 2016 (the lowest region beside the highest)"


def combine(v: Any, i: Any, v2: Any, i2: Any) -> Any:
    nan, nan2 = v != v, v2 != v2
    tie = (v2 == v) | (nan & nan2)
    second = (v2 < v) | (nan2 & (v == v)) | (tie & (i2 < i))
    return m.where(second, v2, v), m.where(second, i2, i)


def fold(x: Any) -> Any:
    return m.first_smallest(x)
