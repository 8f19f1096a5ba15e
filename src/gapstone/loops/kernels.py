"""Compiled kernels: from the disk where they were compiled before, else compiled, now or in the background."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Generic, TypeVar

import llvmlite.binding as llvm

from gapstone.loops import background, kernel_cache
from gapstone.loops.kernel_code import emit

Key = TypeVar("Key")


@lru_cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    own = llvm.Target.from_default_triple().create_target_machine()  # an engine takes its machine for itself
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), own)


class Kernel:
    """A kernel's address, and a Python function of a table of arguments."""

    def __init__(self, name: str, code: bytes) -> None:
        engine = _engine()
        engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self.name = name
        self.address: int = engine.get_function_address(name)
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)


class Kernels(Generic[Key]):
    """`kernels(kind)`: the kernel for it, compiled or loaded when first asked for.

    `describe(kind)`: its name, which tells all that it is made of, and what makes the function to compile.
    """

    def __init__(self, describe: Callable[[Key], tuple[str, Callable[[], FunctionType]]]) -> None:
        self.made: dict[Key, Kernel] = {}
        self._describe = describe

    def __call__(self, kind: Key) -> Kernel:
        found = self.made.get(kind)
        return self._load(kind) if found is None else found

    def _load(self, kind: Key) -> Kernel:
        name, bind = self._describe(kind)
        code = kernel_cache.read(name)
        if code is None and background.defers() and background.builder.add(name, lambda: self._build(kind, name, bind)):
            raise background.NotBuilt(name)
        return self._build(kind, name, bind) if code is None else self._keep(kind, name, code)

    def _build(self, kind: Key, name: str, bind: Callable[[], FunctionType]) -> Kernel:
        with background.COMPILING:
            found = self.made.get(kind)
            if found is not None:  # by another thread, while this one waited
                return found
            code = emit(bind(), name)
            kernel_cache.write(name, code)
            return self._keep(kind, name, code)

    def _keep(self, kind: Key, name: str, code: bytes) -> Kernel:
        with background.COMPILING:  # LLVM's engine is one, too
            found = self.made.get(kind)
            if found is None:
                found = self.made[kind] = Kernel(name, code)
            return found
