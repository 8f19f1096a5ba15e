"""Pools of one's own: what a definition must say, and how it becomes known by its name."""

import builtins
import dis
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from types import FunctionType

from gapstone.pools import BUILT_IN, COMPOSITIONS, POOLS, WHOLE_ONLY
from gapstone.pools.aliases import KNOWN
from gapstone.pools.definition import FUNCTIONS, MATHS, Definition, Parameter
from gapstone.pools.name_types import OwnPool
from gapstone.runtime.working_folder import nothing_importable_there

ENTRY_POINTS = "gapstone.pools"
"""The group in which an installed package names its pools: `mine = "package.module:definition"`."""

UNREGISTERED = " A pool of your own is registered first, by gs.register_pool or an installed package."
"""What to do about a name that is no pool's, and near none."""

HEADS = frozenset({"gap", "gmp", "lse", "nin", "fc", "cls", "cls+gap", "own"})
"""Heads that are not named as their pool is: `gs.Head("fc")` could not be told from a head with the pool "fc"."""


def register_pool(definition: Definition) -> OwnPool:
    """Make a pool of your own known by its name.

    Examples:
        >>> def lift(x): return 1.0 / x, 1.0
        >>> def combine(s, n, s2, n2): return s + s2, n + n2
        >>> def finish(s, n): return n / s
        >>> def share(x, out, _s, n): return out * out / (x * x * n)
        >>> harmonic = gs.Definition("harmonic", (0.0, 0.0), lift, combine, finish, share, adds_up=True)
        >>> mine = gs.register_pool(harmonic)
        >>> gs.pool(torch.rand(2, 64, 7, 7) + 0.1, mine).shape
        torch.Size([2, 64])

    From then on its name works wherever a pool's name does: `gs.pool`, `gs.Pool`, `gs.partial`, in heads
    (`gs.Head("harmonic", …)`, `--heads harmonic`) and in class activation maps. Gradients, merging and the compiled
    loop follow from the definition; `gapstone.testing.check_pool` checks that its functions agree. docs/own-pool.md
    is a guide.

    Args:
        definition: the pool. Its functions are plain functions at the top of a module, which call `m.exp`, `m.log`, …

    Returns:
        The name; for type checkers, a name that `gs.pool` takes.

    Raises:
        ValueError: the name is taken, or functions and state do not fit together; the message says which.
    """
    _check_name(definition.name)
    check_definition(definition)
    POOLS[definition.name] = definition
    return OwnPool(definition.name)


@contextmanager
def registered(definition: Definition) -> Iterator[None]:
    """Inside, the pool is known by its name; afterwards as before."""
    if POOLS.get(definition.name) is definition:
        yield
        return
    register_pool(definition)
    try:
        yield
    finally:
        del POOLS[definition.name]


def is_own(name: str) -> bool:
    """Whether a pool is the user's own."""
    return name in POOLS and name not in BUILT_IN


@cache
def load_installed() -> None:
    """Register the pools that installed packages name, once: asked where a name is not known.

    A package that lies in the working folder is not installed: whoever sends a folder of photos could add one.
    """
    with nothing_importable_there():
        loaded = [(point, point.load()) for point in entry_points(group=ENTRY_POINTS)]
    for point, definition in loaded:
        if not isinstance(definition, Definition):
            raise ValueError(f"{point.value} of the group {ENTRY_POINTS} is not a gs.Definition.")
        if POOLS.get(definition.name) is not definition:
            register_pool(definition)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise ValueError(f"pool {name!r}: a pool's name is letters, digits and _, such as 'harmonic'.")
    if name in POOLS or name in WHOLE_ONLY or name in COMPOSITIONS or name in HEADS:
        raise ValueError(f"pool {name!r}: the name is taken; call yours something else.")
    if name in KNOWN:
        raise ValueError(f"pool {name!r}: other libraries call {KNOWN[name]!r} so; call yours something else.")


def check_definition(definition: Definition) -> None:
    """Refuse what does not fit together, before any number is computed."""
    for key in FUNCTIONS:
        function = getattr(definition, key)
        if function is not None:
            _check_function(definition, key, function)
    where = f"pool {definition.name!r}"
    if (definition.reference is None) != (definition.terms is None):
        raise ValueError(f"{where}: reference and terms come together: sums of terms are taken against a reference.")
    if definition.positional and len(definition.empty) < 2:
        raise ValueError(f"{where}: a positional pool keeps a value and its position: empty has two numbers or more.")
    if definition.count is not None and not 0 <= definition.count < len(definition.empty):
        raise ValueError(f"{where}: count={definition.count} is no part of a state of {len(definition.empty)}.")
    for key, parameter in definition.parameters.items():
        if parameter.per_position:
            raise ValueError(f"{where}: {key} is a map: a parameter of each position is attention's alone.")
        if parameter.learned is not None and definition.slope is None:
            raise ValueError(f"{where}: {key} can be learned only by its slope; give one, or learned=None.")
    if definition.slope is not None and len(definition.parameters) != 1:
        raise ValueError(f"{where}: slope is of one parameter, and there are {len(definition.parameters)}.")


def arguments_of(definition: Definition) -> Mapping[str, int]:
    """How many arguments each function takes."""
    state, own, at = len(definition.empty), len(definition.parameters), int(definition.positional)
    return {
        "lift": 1 + at + own, "combine": 2 * state + own, "finish": state + own, "share": 2 + at + state + own,
        "slope": 2 + state + own, "key": 1 + own, "terms": 2 + own, "fold": 1 + own,
    }  # fmt: skip


def _check_function(definition: Definition, key: str, function: object) -> None:
    where = f"pool {definition.name!r}: {key}"
    if not isinstance(function, FunctionType):
        raise ValueError(f"{where} is a {type(function).__name__}: write a plain Python function.")
    if function.__closure__:
        raise ValueError(
            f"{where} uses {', '.join(function.__code__.co_freevars)} of the function it was made in: write it at the "
            f"top of a module, and numbers that change as parameters."
        )
    code, wanted = function.__code__, arguments_of(definition)[key]
    if code.co_argcount != wanted or code.co_kwonlyargcount or code.co_flags & 0x0C:
        raise ValueError(f"{where} takes {code.co_argcount} arguments, and must take {wanted}: see gs.Definition.")
    if key in ("share", "slope"):
        out = 2 if definition.positional and key == "share" else 1
        names = tuple(name.removeprefix("_") for name in (code.co_varnames[0], code.co_varnames[out]))
        if names != ("x", "out"):
            raise ValueError(f"{where}: the arguments for the position and the answer are called x and out.")
    for name in sorted(_globals(function)):
        if name != "m" and name not in function.__globals__ and not hasattr(builtins, name):
            hint = f": write m.{name}" if name in MATHS else ""
            raise ValueError(f"{where} uses {name}, which is not defined{hint}.")
    if unknown := sorted(_maths(function) - MATHS):
        raise ValueError(f"{where} uses m.{unknown[0]}; m has {', '.join(sorted(MATHS))}.")


def _globals(function: FunctionType) -> set[str]:
    return {str(step.argval) for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"}


def _maths(function: FunctionType) -> set[str]:
    """The functions of `m` that a function calls."""
    steps = list(dis.get_instructions(function))
    pairs = itertools.pairwise(steps)
    return {str(b.argval) for a, b in pairs if a.argval == "m" and b.opname in ("LOAD_ATTR", "LOAD_METHOD")}


__all__ = ["Definition", "Parameter", "check_definition", "is_own", "load_installed", "register_pool", "registered"]
