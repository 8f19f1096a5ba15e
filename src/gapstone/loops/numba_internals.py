"""Private names of Numba: with them, what kernels call is linked into them as it is written, and never runs by itself.

Numba optimises each function that it compiles, and makes machine code of it, in case Python calls it. A kernel is made
of some 20 functions that only it calls, nested: Numba's work on them was a third of the time. Here those that are
inlined are optimised where they end up; those that are not, once (a kernel that is optimised only as a whole can be 1.5
times slower); the kernel by all of Numba's passes. With a Numba that lacks these names, kernels take that time.
"""

from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
import numba

try:
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler
except ImportError:  # each is looked at more closely by `works`
    JITCodeLibrary = Compiler = object

OPTIONS = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Without the wrappers, which nobody calls, a kernel compiles in 4/5 of the time."""


class _Nowhere:
    """What code belongs to that never runs: no environment of Python's."""

    def set_env(self, *_: Any) -> None:
        pass


class _Inlined(JITCodeLibrary):  # type: ignore[misc]
    """The code of a function that kernels call: it is linked, not optimised, and has no address."""

    @property
    def codegen(self) -> _Nowhere:
        return _Nowhere()  # Numba's own would ask its engine where the code is

    def get_pointer_to_function(self, _: str) -> int:
        self._ensure_finalized()
        return 0

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout  # noqa: SLF001 - of Numba's, too

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Called(_Inlined):
    """The code of one that stays a function within the kernel."""

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()  # noqa: SLF001
        passes.run(self._final_module, builder)


class _Whole(_Inlined):
    """The code of a kernel."""

    def _optimize_final_module(self) -> None:
        super(_Inlined, self)._optimize_final_module()


class _Inline(Compiler):  # type: ignore[misc]
    """Numba's compiler, whose code goes into such a library."""

    library: type[_Inlined] = _Inlined

    def __init__(self, typing: Any, target: Any, _: Any, *more: Any) -> None:
        super().__init__(typing, target, self.library(target.codegen(), "gapstone"), *more)


class _Call(_Inline):
    library = _Called


class _Kernel(_Inline):
    library = _Whole


@lru_cache
def works() -> bool:
    """Whether this Numba has what is used of it here: a function and what it calls are compiled once, in 30 ms."""

    def inlined(x: Any) -> Any:
        return 3 * x

    def called(x: Any) -> Any:
        return first(x) * first(x + 1)

    def kernel(x: Any) -> Any:
        return first(x) + second(x)

    try:
        first, second = (_njit(one, kind) for one, kind in ((inlined, _Inline), (called, _Call)))
        text = _instructions(_njit(kernel, _Kernel, "int64(int64)"))
        bodies = [part for part in llvm.parse_assembly(text).functions if not part.is_declaration]
        return any("kernel" in part.name for part in bodies) and not any("inlined" in part.name for part in bodies)
    except Exception:  # whatever another Numba does with these classes, kernels are compiled without them
        return False


def _njit(function: Any, compiler: Any, *signature: str) -> Any:
    inline = {"forceinline": True} if compiler is _Inline else {}
    return numba.njit(*signature, **OPTIONS, **inline, pipeline_class=compiler)(function)


def _instructions(compiled: Any) -> str:
    (text,) = compiled.inspect_llvm().values()
    return str(text)


def helper(function: Any, inline: bool) -> Any:
    """A compiled function for kernels to call."""
    if works():
        return _njit(function, _Inline if inline else _Call)
    return numba.njit(forceinline=inline, **OPTIONS)(function)


def instructions(function: Any, signature: str) -> str:
    """LLVM's instructions of a kernel."""
    return _instructions(_njit(function, _Kernel, signature) if works() else numba.njit(signature, **OPTIONS)(function))
