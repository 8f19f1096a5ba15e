"""From a template with names bound into it to a compiled kernel, kept on disk: what derived and tuned loops share."""

import hashlib
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, TypeVar

import llvmlite
import numba
import numpy as np
from numba.core.compiler import CompilerBase, DefaultPassBuilder

Key = TypeVar("Key")
Kernel = TypeVar("Kernel")

NOT_MET = {
    "WithLifting", "InlineClosureLikes", "RewriteDynamicRaises", "MakeFunctionToJitFunction", "InlineInlinables",
    "FindLiterallyCalls", "LiteralUnroll", "LiteralPropagationSubPipelinePass", "InlineOverloads", "NopythonRewrites",
    "AnnotateTypes", "DumpParforDiagnostics",
}  # fmt: skip


class _Steps(CompilerBase):  # type: ignore[misc]
    """Numba's own, less those for what no kernel has (closures, `with`, array expressions, literals): each looks for
    it in vain in some thirty functions. A tenth of the time; the same code to the byte."""

    def define_pipelines(self) -> list[Any]:
        steps = DefaultPassBuilder.define_nopython_pipeline(self.state)
        steps.passes = [(step, why) for step, why in steps.passes if step.__name__ not in NOT_MET]
        return [steps]


def bound(function: Any, names: dict[str, Any], name: str = "") -> FunctionType:
    """The function with these as its globals."""
    code = function.__code__.replace(co_name=name or function.__name__)
    made = FunctionType(code, names, name or function.__name__)
    made.__qualname__, made.__module__ = name or function.__name__, function.__module__
    return made


def njit(function: Callable[..., Any], tag: str, inline: bool = True) -> Any:
    """`tag` makes its name its own. Kernels from the disk bring their functions' symbols along, numbered by the process
    that compiled them: of two with one name, the linker takes the first, and a max is computed by a mean's code."""
    function.__name__ = function.__qualname__ = f"{function.__name__}_{tag}"
    # without the wrappers nobody calls, a kernel compiles in 4/5 of the time
    only = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(error_model="numpy", forceinline=inline, pipeline_class=_Steps, **only)(function)


def compiled(bind: Callable[[], FunctionType]) -> Any:
    """A C function of one address; from the disk where it was compiled before under that name."""
    for cache in (True, False):
        try:
            return numba.cfunc("void(int64)", error_model="numpy", cache=cache, pipeline_class=_Steps)(bind())
        except (RuntimeError, OSError) as problem:  # no place to keep it that can be written to
            if not cache or (isinstance(problem, RuntimeError) and "cannot cache" not in str(problem)):
                raise
    raise AssertionError


@lru_cache
def _sources(files: tuple[str, ...]) -> bytes:
    here = Path(__file__).parent
    code = b"".join((here / file).read_bytes() for file in ("building.py", "vectors.py", *files))
    return code + f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode()


def fingerprint(files: tuple[str, ...], *more: bytes) -> str:
    """Of the code that a kernel is made of (files of this folder), and of what it is made for."""
    return hashlib.sha256(b"".join((_sources(files), *more))).hexdigest()[:16]


_lock = threading.RLock()  # Numba's compiler is one for all threads


class Kernels(Generic[Key, Kernel]):
    """`kernels(kind)`: the kernel for it, compiled or loaded when first asked for."""

    def __init__(self, make: Callable[[Key], Kernel]) -> None:
        self.made: dict[Key, Kernel] = {}
        self._make = make

    def __call__(self, kind: Key) -> Kernel:
        found = self.made.get(kind)
        if found is None:
            with _lock:
                found = self.made.get(kind)
                if found is None:
                    found = self.made[kind] = self._make(kind)
        return found
