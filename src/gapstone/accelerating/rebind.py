"""A function with the same code, in which the names of torch's pools stand for gapstone's.

`F.max_pool2d(x, 2)` in a method reads the global F. The copy reads the global `_gapstone_F` in its place: a namespace
whose pools are gapstone's and whose every other name is F's. Only the table of names differs from the original's code,
so the copy runs as fast, sees later changes of its module's globals, and is traced by torch.compile like the original.
(A function with globals of another kind, a dict that answers for missing names, cannot be traced.)
"""

import dis
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from gapstone.accelerating.namespaces import NAMES, NAMESPACES, foreign, pool_of

PREFIX = "_gapstone_"
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
NAMES_OF_POOLS = frozenset(NAMES)


@dataclass
class Rebound:
    """What became of a function: `function` None where nothing in it is to change."""

    function: Callable[..., Any] | None = None
    calls: list[str] = field(default_factory=list)
    """As they are written: F.max_pool2d."""
    left: list[str] = field(default_factory=list)
    """What was seen and is not followed, and why."""
    names: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """Globals of a module, and what `install` adds to them."""


def rebound(function: FunctionType, inside: tuple[FunctionType, ...] = ()) -> Rebound:
    """`inside`: the functions that called for this one; one that calls itself is not followed in circles."""
    result = Rebound()
    names: dict[str, Any] = {}
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name, chain in _loads(function.__code__):
        value = _value(name, cells, function.__globals__)
        if name in names and isinstance(value, FunctionType):
            continue
        reached = Rebound()
        new = _replacement(value, name, chain, reached, (*inside, function))
        result.left += reached.left
        result.names += reached.names
        if new is None:
            continue
        if name not in cells and _otherwise_used(function.__code__, name):
            result.left.append(f"{function.__qualname__}: {name!r} is a global name and an attribute's name too")
        else:
            names[name] = new
            result.calls += reached.calls
    if any(_imports_pools(code) for code in _codes(function.__code__)):
        result.left.append(f"{function.__qualname__}: torch is imported inside the function")
    if names:
        own = {n: v for n, v in names.items() if n not in cells}
        result.function = _copy(function, own, names)
        result.names.append((function.__globals__, {PREFIX + name: value for name, value in own.items()}))
    return result


def _replacement(
    value: Any, name: str, chain: tuple[str, ...], reached: Rebound, inside: tuple[FunctionType, ...]
) -> Any | None:
    """What the name shall stand for; None: what it does."""
    if new := pool_of(value):
        reached.calls.append(name)
        return new
    if isinstance(value, FunctionType):
        # a helper of the network, or what a decorator wraps
        if value in inside or not (foreign(value) and foreign(inside[-1])):
            return None
        helper = rebound(value, inside)
        reached.calls += [f"{name}() → {call}" for call in helper.calls]
        reached.left += helper.left
        reached.names += helper.names
        return helper.function
    path, at = name, value
    for attribute in chain:
        if not (isinstance(at, ModuleType) and at in NAMESPACES):
            return None
        path, at = f"{path}.{attribute}", getattr(at, attribute, None)
        if pool_of(at):
            reached.calls.append(path)
            return NAMESPACES[value]
    return None


def _value(name: str, cells: dict[str, CellType], names: dict[str, Any]) -> Any:
    if name not in cells:
        return names.get(name)
    try:
        return cells[name].cell_contents
    except ValueError:  # not filled yet
        return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code and what is defined inside it: lambdas, comprehensions, inner functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@lru_cache(4096)  # networks share their modules' code
def _loads(code: CodeType) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every name that is read, and the attributes that are read of it: `torch.nn.functional` gives
    ("torch", ("nn", "functional")).
    """
    return tuple(_each_load(code))


def _each_load(code: CodeType) -> Iterator[tuple[str, tuple[str, ...]]]:
    for part in _codes(code):
        name, chain = "", []
        for instruction in dis.get_instructions(part):
            if name and instruction.opname in ATTRIBUTES:
                chain.append(instruction.argval)
                continue
            if name:
                yield name, tuple(chain)
            name, chain = (instruction.argval, []) if instruction.opname in LOADS else ("", [])


def _otherwise_used(code: CodeType, name: str) -> bool:
    """The name stands in the table for something else than reading the global."""
    return any(
        instruction.opcode in dis.hasname and instruction.argval == name and instruction.opname not in LOADS
        for part in _codes(code)
        for instruction in dis.get_instructions(part)
    )


def _imports_pools(code: CodeType) -> bool:
    if NAMES_OF_POOLS.isdisjoint(code.co_names):
        return False
    return any(i.opname == "IMPORT_NAME" and i.argval.partition(".")[0] == "torch" for i in dis.get_instructions(code))


def _copy(function: FunctionType, globals_: dict[str, Any], values: dict[str, Any]) -> FunctionType:
    code = _renamed(function.__code__, globals_)
    closure = tuple(
        CellType(values[name]) if name in values else cell
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
    )
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    copy.__qualname__, copy.__module__, copy.__doc__ = function.__qualname__, function.__module__, function.__doc__
    copy.__dict__.update(function.__dict__)
    return copy


def _renamed(code: CodeType, names: dict[str, Any]) -> CodeType:
    return code.replace(
        co_names=tuple(PREFIX + name if name in names else name for name in code.co_names),
        co_consts=tuple(_renamed(c, names) if isinstance(c, CodeType) else c for c in code.co_consts),
    )
