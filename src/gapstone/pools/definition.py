"""A pool's definition: what its file must say, gathered in one value.

A pool keeps a small running state. Five functions say everything about it:

    empty                     the state of no position at all             mean: (0, 0)
    lift(x)                   one position becomes a state                      (x, 1)
    combine(*s, *t)           two states become one                             (s0+t0, s1+t1)
    finish(*s)                the state becomes the answer                      s0 / s1
    share(x, out, *s)         d answer / d x at one position                    1 / s1

and, optionally, `fold(x)`: the state of a whole block at once, where that is cheaper than lift-then-combine (a test
holds the two together). Parameters (gem's p) follow as last arguments of all of them. A *positional* pool (max) also
receives the
position's number: `lift(x, i)`, `share(x, i, out, *s)`.

The functions speak `m`, the maths of the loop that is asking (torch here): the loop binds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Literal

Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Definition:
    name: str
    formula: str
    empty: tuple[float, ...]
    lift: Function
    combine: Function
    finish: Function
    share: Function
    fold: Function | None
    parameters: dict[str, float]
    adds_up: bool
    """Homogeneous of degree 1, so `sum(x * share) == out`: its maps add up to the score."""
    positional: bool
    integers: Literal["same", "int64"] | None
    """What integer input gives: an answer of its own type, or int64, which a sum fits into; None: it is refused."""

    def spoken(self, maths: object) -> "Definition":
        """The same pool with `m` bound to one loop's maths."""
        bound = {key: speak(getattr(self, key), maths) for key in ("lift", "combine", "finish", "share")}
        fold = speak(self.fold, maths) if self.fold else None
        return Definition(**{**vars(self), **bound, "fold": fold})


def speak(function: Any, maths: object) -> Function:
    """The same function, its global `m` bound to `maths`."""
    bound = FunctionType(
        function.__code__, {**function.__globals__, "m": maths}, function.__name__, function.__defaults__
    )
    bound.__qualname__ = function.__qualname__
    bound.__module__ = function.__module__
    return bound


def define(file: ModuleType) -> Definition:
    """Read a pool's file."""
    return Definition(
        name=file.__name__.rpartition(".")[2],
        formula=(file.__doc__ or "").partition("\n")[0],
        empty=file.empty,
        lift=file.lift,
        combine=file.combine,
        finish=file.finish,
        share=file.share,
        fold=getattr(file, "fold", None),
        parameters=getattr(file, "parameters", {}),
        adds_up=file.adds_up,
        positional=getattr(file, "positional", False),
        integers=getattr(file, "integers", None),
    )
