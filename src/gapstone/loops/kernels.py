"""Compiled kernels: from the disk where they were compiled before, else compiled, now or in the background."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Generic, NamedTuple, TypeVar

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


class Description(NamedTuple):
    """What a kernel is made of."""

    name: str
    """It tells all that the kernel is made of: two kernels never share a name."""
    bind: Callable[[], FunctionType]
    """Makes the function to compile."""
    on_disk: bool = True
    """Whether the name means the same in another process."""


class Kernels(Generic[Key]):
    """`kernels(kind)`: the kernel for it, compiled or loaded when first asked for."""

    def __init__(self, describe: Callable[[Key], Description]) -> None:
        self.made: dict[Key, Kernel] = {}
        self._describe = describe

    def __call__(self, kind: Key) -> Kernel:
        kernel = self.made.get(kind)
        return self._load(kind) if kernel is None else kernel

    def _load(self, kind: Key) -> Kernel:
        what = self._describe(kind)
        code = kernel_cache.read(what.name) if what.on_disk else None
        if code is not None:
            return self._add(kind, what.name, code)
        if background.defers() and background.builder.add(what.name, lambda: self._build(kind, what)):
            raise background.NotBuilt(what.name)
        return self._build(kind, what)

    def _build(self, kind: Key, what: Description) -> Kernel:
        with background.COMPILING:
            kernel = self.made.get(kind)
            if kernel is not None:  # by another thread, while this one waited
                return kernel
            code = emit(what.bind(), what.name)
            if what.on_disk:
                kernel_cache.write(what.name, code)
            return self._add(kind, what.name, code)

    def _add(self, kind: Key, name: str, code: bytes) -> Kernel:
        with background.COMPILING:  # LLVM's engine is one, too
            kernel = self.made.get(kind)
            if kernel is None:
                kernel = self.made[kind] = Kernel(name, code)
            return kernel
