"""sum: sum(x); the mean times how many."""

from typing import Any

m: Any = None  # the maths of the loop that is asking

empty = (0.0,)
adds_up = True
integers = "int64"  # 400 ones of uint8 would wrap to 144


def lift(x: Any) -> Any:
    return (x,)


def combine(s: Any, s2: Any) -> Any:
    return (s + s2,)


def finish(s: Any) -> Any:
    return s


def share(x: Any, out: Any, s: Any) -> Any:
    return 1.0


def fold(x: Any) -> Any:
    return (m.sum(x),)
