"""max: the largest x; NaN wins over every number.

The first position wins a tie and takes the whole gradient (torch's `x.amax` shares it out among equals).
"""

from math import inf
from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = -inf, 2**62
state = "the largest x", "its position"
nothing = "−∞ (the least integer for integers)"
adds_up = True
positional = True
integers = "same"
source = "Oquab, Bottou, Laptev, Sivic: Is object localization for free?, CVPR 2015"


def lift(x: Any, i: Any) -> Any:
    return x, i


def combine(v: Any, i: Any, v2: Any, i2: Any) -> Any:
    nan, nan2 = v != v, v2 != v2
    tie = (v2 == v) | (nan & nan2)
    second = (v2 > v) | (nan2 & (v == v)) | (tie & (i2 < i))
    # not where(second, …) twice: who asks for no position is spared the comparisons, 1.6x on 3x3 windows
    return m.maximum(v, v2), m.where(second, i2, i)


def finish(v: Any, _i: Any) -> Any:
    return v


def share(_x: Any, i: Any, _out: Any, _v: Any, winner: Any) -> Any:
    return m.where(i == winner, 1.0, 0.0)


def fold(x: Any) -> Any:
    return m.first_largest(x)
