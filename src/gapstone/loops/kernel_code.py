"""From a template with names bound into it to machine code: what derived and tuned loops share.

Numba types the functions and writes LLVM's instructions; they are emitted for this processor once. What is kept on
disk and when it is compiled: kernels.py.
"""

import builtins
import dis
import hashlib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from gapstone.loops import numba_internals

SIGNATURE = "void(int64)"


def bound(function: Any, names: dict[str, Any], name: str = "") -> FunctionType:
    """The function with these as its globals."""
    code = function.__code__.replace(co_name=name or function.__name__)
    made = FunctionType(code, names, name or function.__name__)
    made.__qualname__, made.__module__ = name or function.__name__, function.__module__
    return made


def njit(function: Callable[..., Any], inline: bool = True) -> Any:
    """A function that kernels call: compiled once for all kernels of this process in which it is made of the same."""
    parts = made_of(function)
    if parts is None:
        return numba_internals.helper(function, inline)
    made = _helpers.get((*parts, inline))
    if made is None:
        made = _helpers[*parts, inline] = numba_internals.helper(function, inline)
    return made


_helpers: dict[tuple[object, ...], Any] = {}


def made_of(function: Any) -> tuple[object, ...] | None:
    """All that decides what a function does: equal for two, they do the same. None: that cannot be told.

    Numba reads a function's names when it compiles it, so what is not bound yet cannot be told.
    """
    code, names = function.__code__, function.__globals__
    parts = [*(function.__defaults__ or ()), *(cell.cell_contents for cell in function.__closure__ or ())]
    for name, attribute in _reads(code):
        value = names.get(name, vars(builtins).get(name, _UNBOUND))
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is not value:  # a kernel's own namespace
            value = vars(value).get(attribute, _UNBOUND)
        parts.append(value)
    # a plain function is one that has yet to be replaced by a compiled one
    if any(part is _UNBOUND or isinstance(part, (FunctionType, CodeType)) for part in (*parts, *code.co_consts)):
        return None
    if not all(isinstance(part, Hashable) for part in parts):
        return None
    # 1, 1.0 and True are equal, and 0.0 and -0.0
    return code, *(
        (type(part), repr(part) if isinstance(part, (float, np.floating, tuple)) else part) for part in parts
    )


@lru_cache
def _reads(code: CodeType) -> tuple[tuple[str, str], ...]:
    """The global names that a function reads, each with the attribute of it that it reads next."""
    steps = itertools.pairwise(dis.get_instructions(code))
    return tuple(
        (step.argval, after.argval if after.opname in ("LOAD_ATTR", "LOAD_METHOD") else "")
        for step, after in steps
        if step.opname == "LOAD_GLOBAL"
    )


_UNBOUND = object()


def namespace(functions: Mapping[str, Any]) -> Any:
    """What a template reads as `k.name`."""
    made = ModuleType("k")
    vars(made).update(functions)
    return made


# ---- names


# a hundred times faster than ast, at the start of every process
COMMENT = re.compile(r"#.*")
IMPORT = re.compile(r"^ *(?:from (\S+) )?import (\([^)]*\)|.*)$", re.M)


def fingerprint(module: str, *more: str) -> str:
    """Of all code that a kernel of this module is made of, of what compiles it, and of the processor it is for."""
    return hashlib.sha256(_code(module) + repr((target(), more)).encode()).hexdigest()[:16]


@lru_cache
def _code(module: str) -> bytes:
    known = hashlib.sha256(repr((sys.version_info[:2], llvm.get_default_triple())).encode())
    for library in ("numba", "llvmlite", "numpy"):
        known.update(f"{library} {version(library)} ".encode())
    for file in sources(module):
        known.update(file.read_bytes())
    return known.digest()


@lru_cache
def sources(module: str) -> tuple[Path, ...]:
    """The files of gapstone that a module is made of: its own, and those it imports, wherever in it it does so."""
    found: dict[str, Path] = {}
    ahead = [module]
    while ahead:
        name = ahead.pop()
        file = _file(name)
        if name in found or file is None:
            continue
        found[name] = file
        inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for base, names in IMPORT.findall(COMMENT.sub("", file.read_text("utf-8"))):
            parts = [one.split()[0] for one in names.strip("()").split(",") if one.strip()]
            if base:
                base = importlib.util.resolve_name(base, inside)
                parts = [base, *(f"{base}.{part}" for part in parts)]
            ahead += parts
    return tuple(found[name] for name in sorted(found))


@lru_cache
def _file(module: str) -> Path | None:
    """Of gapstone's modules; None for other libraries', and for a name in a module."""
    if module.partition(".")[0] != "gapstone":
        return None
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


# ---- machine code


@lru_cache
def target() -> tuple[str, str]:
    """The processor that kernels are emitted for, and its features: this one, or the one that NUMBA_CPU_NAME names."""
    named, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if named else llvm.get_host_cpu_features().flatten()
    return named or llvm.get_host_cpu_name(), features


@lru_cache
def machine() -> Any:
    """What LLVM emits code with."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = target()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def emit(function: FunctionType, name: str) -> bytes:
    """An object file with one symbol, `name`: a C function of one address."""
    module = llvm.parse_assembly(numba_internals.instructions(function, SIGNATURE))
    bodies = [part for part in module.functions if not part.is_declaration]
    (inner,) = (part.name for part in bodies if function.__name__ in part.name)
    # Numba's functions are given a place for the answer and one for an exception, and return a status; kernels raise
    # nothing. The triple and layout are the module's
    caller = f"""
        target triple = "{module.triple}"
        target datalayout = "{module.data_layout}"
        declare i32 @"{inner}"(ptr, ptr, i64)
        define void @"{name}"(i64 %arguments) {{
            %answer = alloca ptr
            %exception = alloca ptr
            %status = call i32 @"{inner}"(ptr %answer, ptr %exception, i64 %arguments)
            ret void
        }}"""
    module.link_in(llvm.parse_assembly(caller))
    for part in module.functions:
        if not part.is_declaration and part.name != name:
            part.linkage = "internal"  # of two kernels' helpers with one name, none is taken for the other's
    module.verify()
    code: bytes = machine().emit_object(module)
    return code
