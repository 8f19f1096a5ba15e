"""What a pool's functions compute, as a digest: two pools with one digest have the same kernels."""

import hashlib
import inspect
from collections.abc import Iterable
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import cast

from gapstone.pools import POOLS
from gapstone.pools.definition import FUNCTIONS, Definition
from gapstone.pools.registration import is_own
from gapstone.runtime.code_digest import UnknownCodeError, code_digest

SIMPLE = (int, float, str, bytes, type(None))


class _Unreadable(Exception):
    """What a function computes cannot be told from its source and from the values that it names."""


@lru_cache(256)
def digest(pool: Definition) -> str | None:
    """Of the source and the code of a pool's functions, of the functions and numbers that they name, and of all that
    the definition says; None where the source cannot be read (a session, `exec`), or they name other values.
    """
    functions = {key: function for key in FUNCTIONS if (function := getattr(pool, key)) is not None}
    try:
        code = {key: _of_function(function, frozenset()) for key, function in functions.items()}
    except _Unreadable:
        return None
    return hashlib.sha256(repr((_facts(pool), code)).encode()).hexdigest()


def _facts(pool: Definition) -> tuple[object, ...]:
    return (pool.empty, pool.reference, sorted(pool.parameters.items()), pool.positional, pool.integers, pool.count)


def identity(pool: Definition) -> str:
    """The digest of a pool whose numbers are kept on disk, and are known again by it; no source is needed, as a pool
    of a notebook has none in the processes of trials.

    Raises:
        ValueError: the pool has none, so that an edited one could not be told from it.
    """
    functions = {key: getattr(pool, key) for key in FUNCTIONS}
    try:
        return code_digest((_facts(pool), functions))
    except UnknownCodeError as error:
        raise ValueError(
            f"pool {pool.name!r}: results on disk could not be told from those of an edited pool, since its functions "
            f"use {error}: let them use numbers and functions alone."
        ) from None


def own_pools(names: Iterable[str]) -> dict[str, str]:
    """The identities of the user's own pools among these, on which numbers that are kept on disk depend."""
    return {str(name): identity(POOLS[name]) for name in names if is_own(name)}


def _of_function(function: FunctionType, above: frozenset[FunctionType]) -> str:
    """`above`: the functions that name this one."""
    if function in above:
        return function.__qualname__  # it names itself
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise _Unreadable(str(error)) from error
    code, above = function.__code__, above | {function}
    known = function.__globals__
    if function.__closure__:
        raise _Unreadable("a function that closes over variables")
    names = (name for name in sorted(_names(code)) if name != "m" and name in known)
    named = {name: _of_value(known[name], code, above) for name in names}
    what = source, _of_code(code), function.__defaults__, function.__kwdefaults__, named
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _of_code(code: CodeType) -> tuple[object, ...]:
    """Instructions and constants, without line numbers."""
    constants = tuple(_of_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code.hex(), constants, code.co_names, code.co_varnames


def _of_value(value: object, code: CodeType, above: frozenset[FunctionType]) -> str:
    """What a function's global stands for."""
    if isinstance(value, FunctionType):
        return _of_function(value, above)
    if isinstance(value, ModuleType):
        used = {key: getattr(value, key) for key in sorted(_names(code)) if hasattr(value, key)}
        return value.__name__ + repr({key: _of_value(each, code, above) for key, each in used.items()})
    if isinstance(value, SIMPLE):
        return repr(value)
    if isinstance(value, tuple):
        return repr([_of_value(part, code, above) for part in cast(tuple[object, ...], value)])
    if callable(value) and hasattr(value, "__module__") and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"  # a library's, compiled
    raise _Unreadable(f"a {type(value).__name__}")
