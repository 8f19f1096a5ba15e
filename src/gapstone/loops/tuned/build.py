"""A tuned kernel: a template with its numbers and words bound into it (`spec.bind(tag)`), compiled, kept on disk."""

import ctypes
import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba


@lru_cache
def _sources(files: tuple[str, ...]) -> bytes:
    here = Path(__file__).parent
    paths = [here / name for name in ("arguments.py", "lanes.py", *files)] + [here.parent / "vectors.py"]
    return b"".join(path.read_bytes() for path in paths) + f"{numba.__version__} {llvmlite.__version__}".encode()


def fingerprint(spec: Any) -> str:
    return hashlib.sha256(_sources(spec.files) + repr(spec).encode()).hexdigest()[:16]


class Kernel:
    """A compiled kernel: its address, and a Python function of a table of arguments."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled  # keeps the code in memory
        self.address: int = compiled.address
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)


_lock = threading.RLock()  # Numba's compiler is one for all threads
_kernels: dict[Any, Kernel] = {}


def kernel(spec: Any) -> Kernel:
    """Compiled, or loaded, when first asked for."""
    found = _kernels.get(spec)
    if found is None:
        with _lock:
            found = _kernels.get(spec)
            if found is None:
                found = _kernels[spec] = Kernel(_compile(spec))
    return found


def _compile(spec: Any) -> Any:
    for cache in (True, False):
        try:
            return numba.cfunc("void(int64)", error_model="numpy", cache=cache)(spec.bind(fingerprint(spec)))
        except (RuntimeError, OSError) as problem:  # no place to keep it that can be written to
            if not cache or (isinstance(problem, RuntimeError) and "cannot cache" not in str(problem)):
                raise
    raise AssertionError
