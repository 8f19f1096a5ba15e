"""A digest of what code does and of the values it uses: of a function, a class, a network, a head of the user's own.

Results on disk are known again by it, so that those of an edited network are never taken for its own. What is
installed (the standard library, packages) is known by its name and version; the user's own code by its instructions,
its constants, the globals that it names and the variables that it closes over. Comments and layout do not count.
"""

import dis
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import io
import logging
import random
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gapstone.console.formatting import display

SIMPLE = (
    type(None), bool, int, float, complex, str, bytes, type(...), torch.dtype, torch.device, torch.layout,
    torch.memory_format, slice, range, PurePath, np.dtype, np.generic,
)  # fmt: skip

UNSAID = frozenset({
    "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__qualname__", "__type_params__", "_abc_impl",
    "__abstractmethods__", "__orig_bases__", "__parameters__", "__slotnames__", "__dataclass_fields__",
})  # fmt: skip
"""Of a class, what does nothing; the fields of a dataclass have become its methods."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PACKAGES = frozenset({"site-packages", "dist-packages"})
"""Folders that packages are installed into; what lies elsewhere, as an editable package does, may be edited."""


Generator = random.Random | np.random.Generator | np.random.RandomState | torch.Generator
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


class UnknownCodeError(ValueError):
    """What it does cannot be told from its code, so that an edited one could not be told from it."""


def code_digest(value: object) -> str:
    """Sixteen hex digits: equal for code that does the same, in any process.

    >>> code_digest(1) == code_digest(2)
    False

    Raises:
        UnknownCodeError: a part of it is neither code, nor a value whose content can be told; names the part.
    """
    digest = _Digest()
    found = digest.of(value)[:16]
    if digest.unknown:
        raise UnknownCodeError(digest.unknown[0])
    return found


def generators_in(value: object) -> list[Generator]:
    """The generators of random numbers that code and its values hold, in an order of their own.

    >>> generators_in({"noise": random.Random(0)})
    [<random.Random object at …>]
    """
    digest = _Digest()
    digest.of(value)
    return digest.generators


class _Digest:
    """Digests of all that one value consists of; what contains itself is known by its place."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.generators: list[Generator] = []
        self._begun: dict[int, str] = {}
        self._kept: list[object] = []  # what is only made here must not be freed: another would get its id

    def of(self, value: object) -> str:
        if id(value) in self._begun:
            return self._begun[id(value)]
        try:
            if isinstance(value, SIMPLE) and not isinstance(value, enum.Enum):
                return _hash(f"{type(value).__name__} {value!r}")
            self._begun[id(value)] = f"#{len(self._begun)}"
            self._kept.append(value)
            found = _hash(*self._facts(value))
        except UnknownCodeError as error:
            self.unknown.append(str(error))
            found = "unknown"
        except Exception as error:  # whatever another's object raises where it is looked at
            kind = type(value)
            named = f"{display(kind.__module__)}.{display(kind.__qualname__)}"
            self.unknown.append(f"a value of the class {named}, which cannot be looked at ({type(error).__name__})")
            found = "unknown"
        self._begun[id(value)] = found
        return found

    def _facts(self, value: Any) -> Iterable[str | bytes]:
        """The texts and bytes that a value is hashed from."""
        if isinstance(value, enum.Enum):
            return "enum", type(value).__qualname__, value.name
        if isinstance(value, Tensor | np.ndarray):
            return _of_array(value)
        if isinstance(value, GENERATORS):
            return self._of_generator(value)
        if isinstance(value, dict | Mapping) and not isinstance(value, nn.Module):
            return "dict", *(part for key, each in value.items() for part in (self.of(key), self.of(each)))
        if isinstance(value, set | frozenset):
            return "set", *sorted(self.of(part) for part in value)
        if isinstance(value, list | tuple):
            return type(value).__name__, *(self.of(part) for part in value)
        if isinstance(value, functools.partial):
            return "partial", self.of(value.func), self.of(value.args), self.of(value.keywords)
        if isinstance(value, types.MethodType):
            return "method", self.of(value.__self__), self.of(value.__func__)
        if isinstance(value, types.CodeType):
            return self._of_instructions(value)
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__, _version(value.__name__))  # what is named of it is beside it
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, staticmethod | classmethod):
            return type(value).__name__, self.of(value.__func__)
        if isinstance(value, property):
            return "property", *(self.of(function) for function in (value.fget, value.fset, value.fdel))
        if isinstance(value, logging.Logger):
            return "logger", value.name
        if not isinstance(value, nn.Module) and hasattr(value, "__wrapped__"):  # functools.cache, numba.njit
            return "wrapped", type(value).__qualname__, self.of(value.__wrapped__)
        if callable(value) and hasattr(value, "__module__") and hasattr(value, "__qualname__"):
            return "compiled", f"{value.__module__}.{value.__qualname__}", _version(str(value.__module__))
        return self._of_instance(value)

    def _of_generator(self, value: Generator) -> Iterable[str]:
        """By its state; those of Python, numpy and torch themselves are shared by all code, whatever theirs is."""
        kind = type(value).__qualname__
        shared = (random.seed, np.random.rand)
        if value is torch.default_generator or any(value is getattr(draw, "__self__", None) for draw in shared):
            return "shared generator", kind
        self.generators.append(value)
        if isinstance(value, random.SystemRandom):
            raise UnknownCodeError("a random.SystemRandom")
        if isinstance(value, random.Random):
            state: object = value.getstate()
        elif isinstance(value, np.random.Generator):
            state = value.bit_generator.state
        else:
            state = value.get_state()
        return "generator", kind, self.of(state)

    def _of_function(self, function: types.FunctionType) -> Iterable[str]:
        named = f"{function.__module__}.{function.__qualname__}"
        if is_installed(function.__module__) and "<locals>" not in function.__qualname__:
            return "installed", named, _version(function.__module__)
        code, known = function.__code__, function.__globals__
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        own = [] if is_installed(function.__module__) else self._named(code, known)
        used = [_version(function.__module__), *own]
        values = function.__defaults__, function.__kwdefaults__, cells
        return "function", function.__qualname__, self.of(code), *(self.of(value) for value in values), *used

    def _named(self, code: types.CodeType, known: Mapping[str, object]) -> list[str]:
        """Of the globals that a function names, and of what it names of a module of the user's own."""
        names, found = _names(code), []
        for name in sorted(_globals(code) & set(known)):
            value = known[name]
            found += [name, self.of(value)]
            if isinstance(value, types.ModuleType) and not is_installed(value.__name__):
                inner = [(key, getattr(value, key)) for key in sorted(names) if hasattr(value, key)]
                found += [text for key, each in inner for text in (key, self.of(each))]
        return found

    def _of_instructions(self, code: types.CodeType) -> Iterable[str | bytes]:
        """Instructions and constants, without line numbers."""
        return (
            "code",
            code.co_code,
            *(self.of(part) for part in (code.co_consts, code.co_names, code.co_varnames, code.co_freevars)),
        )

    def _of_class(self, kind: type) -> Iterable[str]:
        named = f"{kind.__module__}.{kind.__qualname__}"
        if is_installed(kind.__module__):
            return "installed", named, _version(kind.__module__)
        own = {key: value for key, value in vars(kind).items() if key not in UNSAID}
        members = (text for key, value in sorted(own.items()) if not _is_slot(value) for text in (key, self.of(value)))
        return "class", kind.__qualname__, *(self.of(base) for base in kind.__bases__), *members

    def _of_instance(self, value: Any) -> Iterable[str]:
        kind = type(value)
        held = getattr(value, "__dict__", None)
        slots = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]
        if (held is None and not slots) or isinstance(value, io.IOBase):
            raise UnknownCodeError(f"a value of the class {display(kind.__module__)}.{display(kind.__qualname__)}")
        facts = dict(held or {}) | {name: getattr(value, name, None) for name in slots if isinstance(name, str)}
        if kind.__module__.startswith("albumentations."):
            facts.pop("params", None)  # what its last call drew
        if isinstance(value, nn.Module):
            hooks = {name: list(facts.get(name, {}).values()) for name in HOOKS}
            facts = {key: each for key, each in facts.items() if not _is_torchs(key)} | hooks
            facts |= {"children": list(value.named_children()), "state": _own_tensors(value)}
        pairs = (text for key, each in sorted(facts.items()) for text in (key, self.of(each)))
        return "instance", self.of(kind), *pairs


def is_installed(module: str | None) -> bool:
    """Whether a module is part of Python or of an installed package, so that its name and version say what it does.

    >>> is_installed("torch.nn"), is_installed("__main__")
    (True, False)
    """
    if not module:  # of `exec`
        return False
    top = module.partition(".")[0]
    if top in ("gapstone", "builtins") or top in sys.stdlib_module_names:
        return True
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if found is None or top == "__main__" or file is None:
        return False
    return not PACKAGES.isdisjoint(Path(file).parts)


@functools.cache
def _version(module: str | None) -> str:
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or not is_installed(module):
        return ""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", ""))


def _of_array(value: Any) -> Iterable[str | bytes]:
    if isinstance(value, Tensor):
        if value.is_meta or value.layout != torch.strided:
            raise UnknownCodeError(f"a tensor without values ({value.device}, {value.layout})")
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return "tensor", f"{value.dtype} {tuple(value.shape)} {value.requires_grad}", data
    if value.dtype.hasobject:
        raise UnknownCodeError("an array of objects")
    return "array", f"{value.dtype} {value.shape}", np.ascontiguousarray(value).tobytes()


def _own_tensors(module: nn.Module) -> dict[str, Tensor | None]:
    """Parameters and buffers of a module itself."""
    tensors: dict[str, Tensor | None] = {}
    for name in ("_parameters", "_buffers"):
        tensors |= vars(module)[name]
    return tensors


def _is_torchs(name: str) -> bool:
    """Whether torch itself keeps this attribute in every module."""
    return name in _module_attributes() or name == "training"


@functools.cache
def _module_attributes() -> frozenset[str]:
    return frozenset(vars(nn.Module()))


def _names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _globals(code: types.CodeType) -> set[str]:
    """The globals that it reads; its names are also those of attributes, which may be called as a global is."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    own = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_globals, inner))


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # the variable has no value yet
        return False


def _is_slot(value: object) -> bool:
    return inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value)


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "backslashreplace") if isinstance(part, str) else part
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()
