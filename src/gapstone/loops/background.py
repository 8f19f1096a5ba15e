"""Compiling kernels behind the scenes: while one is built, torch's own kernels answer."""

import atexit
import os
import queue
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

COMPILING = threading.RLock()
"""Held while a kernel is compiled: Numba's compiler is one for all threads."""


class NotBuilt(Exception):
    """The kernel is being compiled in the background; whoever asked has another way to answer."""


VARIABLE = "GAPSTONE_WAIT_FOR_KERNELS"
COMMAND = "command"
"""What gapstone's commands set it to, for themselves and for their processes."""


def must_wait() -> bool:
    """Whether calls wait for their kernels, so that every run takes the same way: where the environment variable is
    set, or torch's algorithms are to be deterministic.
    """
    return bool(os.environ.get(VARIABLE)) or torch.are_deterministic_algorithms_enabled()


_this_thread = threading.local()


def defers() -> bool:
    """Whether this thread would rather have `NotBuilt` than wait."""
    return getattr(_this_thread, "defers", False)


@contextmanager
def not_waiting() -> Iterator[None]:
    """Inside, a kernel that is not on disk is compiled by another thread, and `NotBuilt` is raised."""
    _this_thread.defers = True
    try:
        yield
    finally:
        _this_thread.defers = False


YIELD_SECONDS = 1e-4
"""How long the compiler keeps Python's lock from other threads. At Python's own 5 ms, GoogLeNet's first step waits for
it for a second more (benchmarks/first_step.py)."""


@contextmanager
def _yielding() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(YIELD_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Builder:
    """One thread that compiles what nobody waits for."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._asked: set[Hashable] = set()
        self._failed: set[Hashable] = set()
        self._jobs: queue.SimpleQueue[tuple[Hashable, Callable[[], object]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()

    def add(self, key: Hashable, build: Callable[[], object]) -> bool:
        """Have it built; False where that failed before: whoever asks builds it and meets the error."""
        with self._changing:
            if key not in self._asked:
                self._asked.add(key)
                self._idle.clear()
                self._jobs.put((key, build))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="gapstone kernels", daemon=True)
                    self._thread.start()
            return key not in self._failed

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, build = job
            try:
                with _yielding():
                    build()
            except Exception:
                self._failed.add(key)
            with self._changing:
                if self._jobs.empty():
                    self._idle.set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._idle.wait(timeout)

    def stop(self) -> None:
        """At the end of the process: the kernel at hand is finished, the others are not begun."""
        with self._changing:
            thread, self._thread = self._thread, None
            while not self._jobs.empty():
                self._jobs.get()
            self._jobs.put(None)
        if thread is not None:
            thread.join()


builder = Builder()


def wait_for_kernels(timeout: float | None = None) -> bool:
    """Wait until every kernel that was asked for so far is compiled.

    Examples:
        >>> pooled = gs.pool(x, "max", over=gs.Window(3, 2, 1))  # the first time on a machine torch's kernel answers
        >>> gs.wait_for_kernels()  # from here on gapstone's do
        True

    Args:
        timeout: seconds; None: however long it takes.

    Returns:
        False where the time was too short.
    """
    return builder.wait(timeout)


def _in_the_child() -> None:
    """A forked process has none of its parent's threads."""
    global builder
    COMPILING.release()
    builder = Builder()


if hasattr(os, "register_at_fork"):
    # never in the middle of a compilation: the child would wait for ever for a thread that it does not have
    os.register_at_fork(before=COMPILING.acquire, after_in_parent=COMPILING.release, after_in_child=_in_the_child)
atexit.register(lambda: builder.stop())
