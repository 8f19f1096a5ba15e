"""A module's class with its methods rebound: a subclass that differs from the original in nothing else.

It has the name, module and documentation of the original, so isinstance, repr and error messages stay; the state is the
instance's and is not touched. `super().forward(x)` finds the rebound methods of the bases, which stand behind the
original in the order of resolution.
"""

from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakSet, WeakValueDictionary, finalize

from torch import nn

from gapstone.accelerating.namespaces import pool_of
from gapstone.accelerating.rebind import Rebound, rebound

# what runs before there is an instance to accelerate, or makes it anew
NOT_CALLED = ("__init__", "__new__", "__reduce_ex__")

KNOWN: WeakValueDictionary[type, type] = WeakValueDictionary()
"""Original: its accelerated subclass. While nothing uses the subclass, both may go."""


def original(kind: type) -> type:
    """The class as the user wrote it."""
    written: type = vars(kind).get("__gapstone_original__", kind)
    return written


def calls_of(kind: type) -> list[str]:
    """The pools that an accelerated class's methods call, as they are written."""
    return _gathered(kind, "__gapstone_calls__")


def left_in(kind: type) -> list[str]:
    return _gathered(kind, "__gapstone_left__")


def _gathered(kind: type, name: str) -> list[str]:
    return list(dict.fromkeys(call for base in kind.__mro__ for call in vars(base).get(name, ())))


def accelerated_class(kind: type) -> type | None:
    """The subclass to take; None where there is nothing to say: no method calls a pool."""
    if kind in (object, nn.Module):
        return None
    if "__gapstone_original__" in vars(kind):
        return kind
    if kind in KNOWN:
        return KNOWN[kind]
    fast = [accelerated_class(base) for base in kind.__bases__]
    # a subclass of an accelerated class (torch's parametrizations make such) has it already
    bases = tuple(base for base in fast if base and base not in kind.__mro__)
    methods: dict[str, Any] = {}
    globals_: list[tuple[dict[str, Any], dict[str, Any]]] = []
    calls: list[str] = []
    left: list[str] = []
    for name, value in vars(kind).items():
        if name not in NOT_CALLED:
            new, result = _attribute(value)
            calls += result.calls
            left += result.left
            globals_ += result.names
            if new is not None:
                methods[name] = new
    if not (methods or bases or left):
        return None
    names = methods | {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduce,
        "__gapstone_original__": kind,
        "__gapstone_calls__": tuple(calls),
        "__gapstone_left__": tuple(left),
        "__gapstone_names__": tuple(globals_),
    }
    KNOWN[kind] = made = type(kind)(kind.__name__, (kind, *bases), names)
    return made


def _attribute(value: Any) -> tuple[Any, Rebound]:
    """A class's attribute, rebound; None: as it is."""
    if isinstance(value, FunctionType):
        if pool := pool_of(value):
            return pool, Rebound(calls=[value.__name__])
        result = rebound(value)
        return result.function, result
    if isinstance(value, staticmethod | classmethod):
        new, result = _attribute(value.__func__)
        return (None if new is None else type(value)(new)), result
    if isinstance(value, property):
        parts = [rebound(f) if isinstance(f, FunctionType) else Rebound() for f in (value.fget, value.fset)]
        gets, puts = parts
        result = Rebound(None, gets.calls + puts.calls, gets.left + puts.left, gets.names + puts.names)
        if not result.calls:
            return None, result
        get, put = parts[0].function or value.fget, parts[1].function or value.fset
        return property(get, put, value.fdel, value.__doc__), result
    if pool := pool_of(value):
        # torch's is a builtin, which does not become a method
        return staticmethod(pool), Rebound(calls=[str(getattr(value, "__name__", value))])
    return None, Rebound()


# ---- the names that a class's methods read, in the modules where these were written


INSTALLED: WeakSet[type] = WeakSet()
USED: Counter[tuple[int, str]] = Counter()
"""How many classes read a name that was added to a module's globals."""


def install(kind: type) -> type:
    """Add the names that an accelerated class reads; they go with the last class that does."""
    for base in kind.__mro__:
        if base in INSTALLED or not (names := vars(base).get("__gapstone_names__")):
            continue
        INSTALLED.add(base)
        for globals_, added in names:
            globals_.update(added)
            USED.update((id(globals_), name) for name in added)
        finalize(base, _release, names).atexit = False
    return kind


def _release(names: tuple[tuple[dict[str, Any], dict[str, Any]], ...]) -> None:
    for globals_, added in names:
        for name in added:
            USED[id(globals_), name] -= 1
            if not USED[id(globals_), name]:
                del USED[id(globals_), name]
                globals_.pop(name, None)


# ---- pickle and copy


def _reduce(self: Any, protocol: Any) -> Any:
    """As the original class says; a pickle names that class, and the way from it to this one."""
    kind = type(self)
    plain: Any = original(kind)
    made = plain.__reduce_ex__(self, protocol)
    if isinstance(made, str):
        return made
    make, arguments, *state = made
    return _remade, (make, tuple(plain if a is kind else a for a in arguments)), *state


def _remade(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    module = make(*arguments)
    kind = accelerated_class(type(module))
    if kind is not None:
        module.__class__ = install(kind)
    return module
