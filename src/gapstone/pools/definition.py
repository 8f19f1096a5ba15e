"""A pool's definition: what it keeps, in one value.

A pool keeps a small running state. Five functions say everything about it:

    empty                     the state of no position at all             mean: (0, 0)
    lift(x)                   one position becomes a state                      (x, 1)
    combine(*s, *t)           two states become one                             (s0+t0, s1+t1)
    finish(*s)                the state becomes the answer                      s0 / s1
    share(x, out, *s)         d answer / d x at one position                    1 / s1

Parameters (gem's p) follow as last arguments of all of them. A *positional* pool (max) also receives the position's
number: `lift(x, i)`, `share(x, i, out, *s)`. What follows is optional; `gapstone.testing` holds it to the five.

    slope(x, out, *s, p)      one position's part of d answer / d p, for a parameter that can be learned
    reference, key, terms     sums that are taken against a reference (the largest key, or the mean): a block is folded
                              in two passes, first state[0] = the largest `key(x)`, then the rest = sum of
                              `terms(x, state[0])`. Element by element, log-sum-exp is 5-7x slower
    fold(x)                   the state of a whole block at once, where tensors have a function for it

The functions call `m.exp`, `m.log`, …: the maths of the loop that runs them (tensors, or vectors in a compiled loop).
Each loop binds its own `m`. Numbers in them are written 1.0, not 1: a compiled loop keeps them in its own precision. An
argument of `share` or `slope` whose name begins with an underscore is not read, so the backward pass does not save it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from math import inf
from types import FunctionType, ModuleType
from typing import Any, Literal

Function = Callable[..., Any]
MATHS = frozenset({"exp", "expm1", "log", "log1p", "pow", "sqrt", "abs", "maximum", "where", "ratio", "below"}) | {
    # of tensors alone
    *("list", "merge_largest", "mean_of_list", "count_of_list", "last_of_list"),
    *("first_largest", "first_smallest", "largest"),
}
"""The functions of `m`."""
FUNCTIONS = ("lift", "combine", "finish", "share", "slope", "key", "terms", "fold")


@dataclass(frozen=True)
class Parameter:
    """A pool's own number: its default, where it may lie, and where a learned one is held."""

    default: float | None = None
    """None: it must be given."""
    least: float = -inf
    most: float = inf
    whole: bool = False
    """A whole number."""
    learned: tuple[float, float] | None = None
    """The range in which a learned one is held; None: it cannot be learned."""
    computed: tuple[float, float] = (-inf, inf)
    """What is put for a value outside: the formulas meet no 0 × ∞, and their limits are reached to the last digit."""
    per_position: bool = False
    """A map beside x (N, 1, *spatial), not a number."""


@dataclass(frozen=True, eq=False)
class Definition:
    """A pool as a value: the functions of its state, and what no function says.

    `gs.register_pool` makes one of your own known by its name; docs/own-pool.md is a guide.

    Examples:
        >>> def lift(x): return 1.0 / x, 1.0
        >>> def combine(s, n, s2, n2): return s + s2, n + n2
        >>> def finish(s, n): return n / s
        >>> def share(x, out, _s, n): return out * out / (x * x * n)
        >>> gs.Definition("harmonic", (0.0, 0.0), lift, combine, finish, share, adds_up=True).parameters
        {}

    Args:
        name: what the pool is called.
        empty: the state of no position at all.
        lift: the state of one position, of its value x.
        combine: the state of two sets of positions together, of both states.
        finish: the answer, of the state.
        share: d answer / d x at one position.
        slope: d answer / d parameter, a position's part of it; for parameters that are learned.
        key: what is compared with the reference, where that is not x.
        terms: the parts of the state that one position adds, against the reference.
        reference: what sums are taken against, so that they do not overflow; None: nothing.
        fold: the state of a block of positions at once, where that is faster than lift and combine.
        parameters: the pool's own, by name.
        adds_up: homogeneous of degree 1, so `sum(x * share) == out`: its maps add up to the score.
        positional: lift and share are given the position's number.
        integers: what integer input gives: an answer of its own type, or int64, which a sum fits into; None: refused.
        weighted: a position can count in part: the state is sums, but for the reference, and a weight multiplies them.
        count: the part of the state that says how many, where a window's padding may be counted as zeros.
        about: a text for the docs; its first line is the formula.
        state: what the numbers of the state are, in words.
        nothing: the answer over no position at all, in words.
        source: where the formula is from.
    """

    name: str
    empty: tuple[float, ...]
    lift: Function
    combine: Function
    finish: Function
    share: Function
    slope: Function | None = None
    key: Function | None = None
    terms: Function | None = None
    reference: Literal["max", "mean"] | None = None
    fold: Function | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    adds_up: bool = False
    positional: bool = False
    integers: Literal["same", "int64"] | None = None
    weighted: bool = False
    count: int | None = None
    about: str = ""
    state: tuple[str, ...] = ()
    nothing: str = ""
    source: str = ""
    words: frozenset[str] = field(init=False)
    """The names that the functions use, among them the functions of `m`."""

    def __post_init__(self) -> None:
        own = (getattr(self, key) for key in FUNCTIONS)
        codes = (function.__code__ for function in own if isinstance(function, FunctionType))
        object.__setattr__(self, "words", frozenset(name for code in codes for name in code.co_names))

    @property
    def formula(self) -> str:
        return self.about.partition("\n")[0].partition(": ")[2]

    def bind(self, maths: object, number: Callable[[float], Any] | None = None) -> "Definition":
        """The same pool for one loop: its functions call that loop's maths.

        Args:
            maths: what the functions find as `m`.
            number: makes each number that the functions hold; None: they stay as they are.

        Returns:
            A definition whose functions are bound.
        """
        own: dict[str, Any] = {key: getattr(self, key) for key in FUNCTIONS}
        own = {key: bind_function(value, maths, number) for key, value in own.items() if value}
        return replace(self, **own)


def bind_function(function: Any, maths: object, number: Callable[[float], Any] | None = None) -> Function:
    """The same function, its global `m` bound to `maths`."""
    code, known = function.__code__, {**function.__globals__, "m": maths}
    if number is not None:
        code = code.replace(co_consts=tuple(number(c) if isinstance(c, float) else c for c in code.co_consts))
        known |= {key: number(value) for key, value in known.items() if isinstance(value, float)}
    bound = FunctionType(code, known, function.__name__, function.__defaults__)
    bound.__qualname__, bound.__module__ = function.__qualname__, function.__module__
    return bound


def looks_at(function: Function) -> tuple[str, ...]:
    """The names of the arguments that a function reads."""
    code = function.__code__
    return tuple(name for name in code.co_varnames[: code.co_argcount] if not name.startswith("_"))


@lru_cache  # asked on every call that is differentiated
def read_by_backward(pool: Definition, slope: bool) -> frozenset[str]:
    """The names of the arguments that share reads, and slope where it is asked for."""
    names = set(looks_at(pool.share))
    if slope and pool.slope:
        names |= set(looks_at(pool.slope))
    return frozenset(names)


def define(file: ModuleType) -> Definition:
    """Read a pool's file, whose globals are named as the fields are."""
    stated = {field.name: vars(file)[field.name] for field in fields(Definition) if field.name in vars(file)}
    return Definition(name=file.__name__.rpartition(".")[2], about=file.__doc__ or "", **stated)
