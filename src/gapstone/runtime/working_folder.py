"""Nothing of the working folder is run or obeyed: it holds a user's photos, and whatever came with them.

Processes: `python -c`, which multiprocessing starts its servers with, looks for modules in the working folder first; a
`heapq.py` beside the photos would be run instead of Python's own. Libraries: some read a configuration file there.
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
"""The folder that gapstone is imported from: modules are taken from there even where it is the working folder."""

ELSEWHERE = os.path.dirname(os.__file__)
"""A folder that holds the standard library alone."""

_swapping = threading.RLock()


def leave_working_folder() -> None:
    """For a process that is gapstone's own (the command line), and for all that it starts from now on."""
    sys.path[:] = [entry for entry in sys.path if not _is_working_folder(entry)]
    os.environ.update(environment())
    around_import("torch", _elsewhere)


@contextlib.contextmanager
def without_working_folder() -> Iterator[None]:
    """Around the start of a process by multiprocessing, which reads `sys.path` and `os.environ`.

    >>> with without_working_folder():
    ...     process.start()

    Both are as before afterwards: what a user's own program starts itself is its own matter.
    """
    with _swapping:
        path, changed = sys.path[:], environment()
        before = {name: os.environ.get(name) for name in changed}
        sys.path[:] = search_path()
        os.environ.update(changed)
        try:
            yield
        finally:
            sys.path[:] = path
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def search_path() -> list[str]:
    """`sys.path` for a process that gapstone starts.

    Where the folder of a user's own script is the working folder, it comes last: the script is imported again in
    multiprocessing's processes, with the modules beside it, which replace no others.
    """
    last = [entry for entry in sys.path if entry and _is_working_folder(entry)]
    return [entry for entry in sys.path if not _is_working_folder(entry)] + last[:1]


def environment() -> dict[str, str]:
    """The variables to be changed for a process that gapstone starts."""
    changed = {"PYTHONSAFEPATH": "1"}
    if found := os.environ.get("PYTHONPATH"):
        # an empty entry, as `PYTHONPATH=$PYTHONPATH:…` leaves it, means the working folder
        kept = [entry for entry in found.split(os.pathsep) if not _is_working_folder(entry)]
        changed["PYTHONPATH"] = os.pathsep.join(kept)
    return changed


def import_without(file: str, module: str) -> ModuleType:
    """Import a library that looks for its configuration at `file`, a relative path, as though there were none.

    >>> import_without("matplotlibrc", "matplotlib")

    A library that was imported before is left as it is: its configuration was the user's own choice.
    """
    with hidden(file):
        return importlib.import_module(module)


@contextlib.contextmanager
def hidden(file: str) -> Iterator[None]:
    """Inside, a file that is asked for by this relative path is not there."""
    exists = os.path.exists

    def all_but(path: Any) -> bool:
        return path != file and exists(path)

    with _swapping:
        # not a change of folder for that long: other threads may open files by relative paths
        os.path.exists = all_but
        try:
            yield
        finally:
            os.path.exists = exists


def around_import(name: str, context: Callable[[], AbstractContextManager[Any]]) -> None:
    """Import a library within a context, whoever imports it first. One that was imported before is left as it is."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _Around(name, context))


class _Around(MetaPathFinder):
    def __init__(self, name: str, context: Callable[[], AbstractContextManager[Any]]) -> None:
        self.name, self.context = name, context

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def within(module: ModuleType) -> None:
            with self.context():
                execute(module)

        spec.loader.exec_module = within  # type: ignore[method-assign]
        return spec


def _elsewhere() -> AbstractContextManager[None]:
    """NVIDIA's libcusparseLt.so, which comes with torch, has `$ORIGIN:` as its RUNPATH, and the empty entry makes the
    loader take `libcuda.so.1` from the working folder.
    """
    return contextlib.chdir(ELSEWHERE) if os.path.exists(".") else contextlib.nullcontext()


def _is_working_folder(entry: str) -> bool:
    try:
        working = Path.cwd().resolve()
        return working != HOME and Path(entry or ".").resolve() == working
    except (OSError, RuntimeError, ValueError):  # deleted meanwhile; a circle of links; NUL in a name
        return False
