"""crew(function, tasks) = function(task) for every task, in worker processes that may die without taking us along.

A hostile file can crash a decoder, eat all memory or never come to an end. `concurrent.futures` gives up the whole pool
when one worker dies; here the task it was at is answered with a `Lost`, a fresh worker takes over, the rest goes on.
Workers are plain subprocesses that import only what the function needs: no fork (unsafe beside threads), and none of
multiprocessing's re-import of the user's `__main__`, which breaks scripts without the `if __name__` guard.
"""

import contextlib
import importlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

CHUNK = 16  # tasks handed over at once: one by one, the pipe's round trip costs as much as a small JPEG
_LENGTH = struct.Struct("<Q")


class CrewError(RuntimeError):
    """The worker processes cannot work at all (they don't start, or the function itself raises)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the result of a task whose worker died or took too long."""

    reason: str


def crew(
    function: str,
    tasks: Sequence[Any],
    constant: Any = None,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    memory_limit: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the task, result or Lost) in the order in which they get done.

    ```python
    for i, facts in crew("gapstone.images.facts:facts_of", paths, constant, time_limit=30):
        ...
    ```

    function: "module:name", called as `name(constant, task)`; tasks, constant and results are pickled.
    workers: processes; None for one per core, never more than the tasks are worth.
    time_limit: seconds for one task, after which its worker is killed.
    memory_limit: bytes of address space per worker (where the system can limit that); beyond it MemoryError.

    Raises CrewError where workers don't start or the function raises: hostile input is the function's to handle.
    """
    if not tasks:
        return
    # a worker costs 0.2 s to start: not for a handful of files
    most = max(1, -(-len(tasks) // CHUNK))
    count = min(workers or os.cpu_count() or 1, most)
    todo: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    chunk = max(1, min(CHUNK, len(tasks) // (count * 4)))
    for start in range(0, len(tasks), chunk):
        todo.put(list(range(start, min(start + chunk, len(tasks)))))
    done: _Answers = queue.Queue(maxsize=8 * count)  # bounded: decoded pictures must not pile up in memory
    job = _Job(function, tasks, constant, memory_limit, todo, done)
    crews = [_Worker(job) for _ in range(count)]
    threads = [threading.Thread(target=w.run, daemon=True, name="gapstone-crew") for w in crews]
    try:
        for t in threads:
            t.start()
        yield from _collect(crews, done, time_limit, len(tasks))
    finally:
        job.stop.set()
        for w in crews:
            w.kill()
        for t in threads:
            t.join(timeout=10)


def _collect(crews: "list[_Worker]", done: "_Answers", limit: float, count: int) -> Iterator[tuple[int, Any]]:
    received = 0
    while received < count:
        with contextlib.suppress(queue.Empty):
            answer = done.get(timeout=0.1)
            if isinstance(answer, BaseException):
                raise answer
            received += 1
            yield answer
        now = time.monotonic()
        for w in crews:
            if w.since is not None and now - w.since > limit:
                w.overdue = f"took longer than {limit:g} s and was stopped"
                w.kill()


_Answers = queue.Queue[tuple[int, Any] | BaseException]


@dataclass
class _Job:
    function: str
    tasks: Sequence[Any]
    constant: Any
    memory_limit: int | None
    todo: "queue.SimpleQueue[list[int]]"
    done: "_Answers"
    stop: threading.Event = field(default_factory=threading.Event)

    def answer(self, answer: tuple[int, Any] | BaseException) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                self.done.put(answer, timeout=0.1)
                return


class _Worker:
    """One thread of this process that feeds one worker process, and replaces it when it dies."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.process: subprocess.Popen[bytes] | None = None
        self.since: float | None = None  # when the task at hand began
        self.overdue: str | None = None
        self._errors: IO[bytes] | None = None

    def run(self) -> None:
        try:
            while not self.job.stop.is_set():
                try:
                    chunk = self.job.todo.get_nowait()
                except queue.Empty:
                    return
                self._work(chunk)
        except BaseException as e:
            self.job.answer(e)
        finally:
            self.since = None
            self.kill()
            self._close()

    def _work(self, chunk: list[int]) -> None:
        while chunk and not self.job.stop.is_set():
            if self.process is None:
                self._start()
            process = self.process
            assert process is not None
            assert process.stdin is not None
            assert process.stdout is not None
            self.overdue = None
            self.since = time.monotonic()
            try:
                _send(process.stdin, [self.job.tasks[i] for i in chunk])
                while chunk:
                    kind, result = _receive(process.stdout)
                    if kind == "raised":
                        raise CrewError(f"{self.job.function} failed in a worker process:\n{result}")
                    self.since = None  # waiting for a slow reader is not the worker's fault
                    self.job.answer((chunk.pop(0), result))
                    self.since = time.monotonic()
                self.since = None
            except (EOFError, OSError):  # the worker is gone: the first task without an answer was its end
                self.since = None
                if self.job.stop.is_set():
                    return
                reason = self.overdue or _how(process)
                self.kill()
                self._close()
                self.job.answer((chunk.pop(0), Lost(reason)))

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in _close
        # its own session: Ctrl-C reaches this process alone, which then stops the workers in order
        code = f"import sys; sys.path[:] = {sys.path!r}; from gapstone.images.crew import serve; serve()"
        # one thread each: there is a worker per core, and OpenBLAS would reserve memory for every thread
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            _send(self.process.stdin, (self.job.function, self.job.constant, self.job.memory_limit))
            if _receive(self.process.stdout) != "ready":
                raise EOFError
        except (EOFError, OSError) as e:
            if self.job.stop.is_set():
                raise
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()
            how = _how(self.process)
            raise CrewError(f"a worker process for {self.job.function} does not start ({how}):\n{text[-2000:]}") from e

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()

    def _close(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # flushing into a dead process
                        pipe.close()
            self.process.wait()
            self.process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _how(process: "subprocess.Popen[bytes]") -> str:
    """How a process ended, in words."""
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "the process reading it stopped answering"
    if code == -signal.SIGSEGV:
        return "decoding it crashed the process (segmentation fault)"
    if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
        return "the process decoding it was killed by the system, most likely for using too much memory"
    if code < 0:
        return f"decoding it crashed the process ({signal.Signals(-code).name})"
    return f"the process decoding it ended with code {code}"


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)  # from our own child over our own pipe


def serve() -> None:
    """What a worker process runs: answer tasks until its standard input ends."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    function, constant, memory_limit = _receive(asked)
    module, name = function.split(":")
    call: Callable[[Any, Any], Any] = getattr(importlib.import_module(module), name)
    _limit_memory(memory_limit)
    _send(answers, "ready")
    # from here on nothing else may write into the answers, and libtiff's chatter on stderr helps nobody
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        try:
            tasks = _receive(asked)
        except EOFError:
            return
        for task in tasks:
            try:
                answer = ("done", call(constant, task))
            except Exception:
                import traceback

                answer = ("raised", traceback.format_exc())
            _send(answers, answer)


def _limit_memory(limit: int | None) -> None:
    if limit is None:
        return
    try:
        import resource
    except ImportError:  # Windows has no such limit; the system's own killer remains
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit address space
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
