"""Keeps Python and libraries from running code or reading settings in the working folder, which holds foreign files.

Processes: multiprocessing starts its servers with `python -c`, which looks for modules in the working folder first; a
`heapq.py` beside the photos would run instead of Python's own. Libraries: some read a configuration file there.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HOME = Path(__file__).resolve().parents[2]
"""The folder that gapstone is imported from: it stays on the search path even if it is the working folder."""

ELSEWHERE = os.path.dirname(os.__file__)
"""A folder that holds only the standard library."""

_lock = threading.RLock()  # held while process-wide state is replaced


def leave_working_folder() -> None:
    """Protect a process of gapstone's own (the command line), and all processes that it starts from now on."""
    sys.path[:] = _outside(sys.path)
    os.environ.update(environment())
    around_import("torch", _elsewhere)


@contextlib.contextmanager
def nothing_importable_there() -> Iterator[None]:
    """Take the working folder off `sys.path` inside, for what gapstone imports by a name that it did not choose.

    >>> from importlib.metadata import entry_points
    >>> with nothing_importable_there():
    ...     plugins = entry_points(group="gapstone.pools")
    """
    with _lock, _replaced_path(_outside(sys.path)):
        yield


@contextlib.contextmanager
def _replaced_path(entries: list[str]) -> Iterator[None]:
    path = sys.path[:]
    sys.path[:] = entries
    try:
        yield
    finally:
        sys.path[:] = path


def _outside(path: list[str]) -> list[str]:
    return [entry for entry in path if not _is_working_folder(entry)]


@contextlib.contextmanager
def without_working_folder() -> Iterator[None]:
    """Protect a process that multiprocessing starts inside: it inherits a variables `sys.path` and `os.environ`.

    >>> with without_working_folder():
    ...     process.start()

    Both are restored afterwards, because processes that a user's program starts itself are not gapstone's business.
    """
    with _lock, _replaced_path(search_path()):
        variables = environment()
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def search_path() -> list[str]:
    """`sys.path` for a process that gapstone starts.

    If the folder of a user's script is the working folder, it comes last: a network of the user's own may lie in a
    module beside the script; being last, these replace no others.
    """
    script_folders = [entry for entry in sys.path if entry and _is_working_folder(entry)]
    return _outside(sys.path) + script_folders[:1]


def environment() -> dict[str, str]:
    """The environment variables to change for a process that gapstone starts."""
    variables = {"PYTHONSAFEPATH": "1"}
    if python_path := os.environ.get("PYTHONPATH"):
        # an empty entry, as `PYTHONPATH=$PYTHONPATH:…` leaves it, means the working folder
        entries = [entry for entry in python_path.split(os.pathsep) if not _is_working_folder(entry)]
        variables["PYTHONPATH"] = os.pathsep.join(entries)
    return variables


def import_without(file: str, module: str) -> ModuleType:
    """Import a library, but hide its configuration at `file`, a relative path, from it.

    >>> import_without("matplotlibrc", "matplotlib")

    A library that is already imported does not change: the user chose its configuration.
    """
    with hidden(file):
        return importlib.import_module(module)


@contextlib.contextmanager
def hidden(file: str) -> Iterator[None]:
    """Make `os.path.exists` return False for this relative path."""
    exists = os.path.exists

    def exists_unless_hidden(path: Any) -> bool:
        return path != file and exists(path)

    with _lock:
        # no change of the working folder for that long: other threads may open files by relative paths
        os.path.exists = exists_unless_hidden
        try:
            yield
        finally:
            os.path.exists = exists


def around_import(name: str, context: Callable[[], AbstractContextManager[object]]) -> None:
    """Make the first import of a library, wherever it happens, run inside a context; nothing if it is imported."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _ContextFinder(name, context))


class _ContextFinder(MetaPathFinder):
    def __init__(self, name: str, context: Callable[[], AbstractContextManager[object]]) -> None:
        self.name, self.context = name, context

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        exec_module = spec.loader.exec_module

        def exec_in_context(module: ModuleType) -> None:
            with self.context():
                exec_module(module)

        spec.loader.exec_module = exec_in_context  # type: ignore[method-assign]
        return spec


def _elsewhere() -> AbstractContextManager[None]:
    """A context that changes to `ELSEWHERE` while torch is imported.

    NVIDIA's libcusparseLt.so, which comes with torch, has `$ORIGIN:` as its RUNPATH, and the empty entry makes the
    loader take `libcuda.so.1` from the working folder.
    """
    return contextlib.chdir(ELSEWHERE) if os.path.exists(".") else contextlib.nullcontext()


def _is_working_folder(entry: str) -> bool:
    try:
        working_folder = Path.cwd().resolve()
        return working_folder != HOME and Path(entry or ".").resolve() == working_folder
    except (OSError, RuntimeError, ValueError):  # the folder was deleted; a circle of links; NUL in a name
        return False
