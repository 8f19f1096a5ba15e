"""mean: sum(x) / n.

Global average pooling is this over the whole map.
"""

from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0
state = "sum of x", "how many"
nothing = "NaN"
adds_up = True
weighted = True
count = 1
source = "Lin, Chen, Yan: Network in Network, arXiv 1312.4400"


def lift(x: Any) -> Any:
    return x, 1.0


def combine(s: Any, n: Any, s2: Any, n2: Any) -> Any:
    return s + s2, n + n2


def finish(s: Any, n: Any) -> Any:
    return s / n


def share(_x: Any, _out: Any, _s: Any, n: Any) -> Any:
    return 1.0 / n
