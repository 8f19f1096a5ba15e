"""mean: sum(x) / n.

Global average pooling is this over the whole map (Lin, Chen, Yan: Network in Network, arXiv 1312.4400).
"""

from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0  # sum of x, how many
adds_up = True


def lift(x: Any) -> Any:
    return x, 1.0


def combine(s: Any, n: Any, s2: Any, n2: Any) -> Any:
    return s + s2, n + n2


def finish(s: Any, n: Any) -> Any:
    return s / n


def share(x: Any, out: Any, s: Any, n: Any) -> Any:
    return 1 / n


def fold(x: Any) -> Any:
    return m.sum(x), m.count(x)
