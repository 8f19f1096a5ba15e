"""sum: sum(x); the mean times how many.

Integers add up in int64: 400 ones of uint8 would wrap to 144.
"""

from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = (0.0,)
state = ("sum of x",)
nothing = "0"
adds_up = True
weighted = True
integers = "int64"
source = "Babenko, Lempitsky: Aggregating deep convolutional features (SPoC), arXiv 1510.07493"


def lift(x: Any) -> Any:
    return (x,)


def combine(s: Any, s2: Any) -> Any:
    return (s + s2,)


def finish(s: Any) -> Any:
    return s


def share(_x: Any, _out: Any, _s: Any) -> Any:
    return 1.0
