"""A tuned kernel: a template with its numbers and words bound into it (`spec.bind(tag)`), compiled, kept on disk."""

import ctypes
from typing import Any

from gapstone.loops import building
from gapstone.loops.building import Kernels, compiled


def fingerprint(spec: Any) -> str:
    files = tuple(f"tuned/{name}" for name in ("arguments.py", "lanes.py", *spec.files))
    return building.fingerprint(files, repr(spec).encode())


class Kernel:
    """A compiled kernel: its address, and a Python function of a table of arguments."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled  # keeps the code in memory
        self.address: int = compiled.address
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)


def _compile(spec: Any) -> Kernel:
    return Kernel(compiled(lambda: spec.bind(fingerprint(spec))))


kernel = Kernels(_compile)
"""kernel(spec): compiled, or loaded, when first asked for."""
