"""crew(function, tasks) = function(task) for every task, in worker processes that may die without taking us along.

A hostile file can crash a decoder, eat all memory or never come to an end. `concurrent.futures` gives up the whole pool
when one worker dies; here the task it was at is answered with a `Lost`, a fresh worker takes over, the rest goes on.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gapstone.workers.messages import LARGEST, MessageError
from gapstone.workers.worker_process import WorkerError, WorkerProcess

__all__ = ["Lost", "WorkerError", "run_workers"]

CHUNK = 16  # tasks handed over at once: one by one, the pipe's round trip costs as much as a small JPEG


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the result of a task whose worker died or took too long."""

    reason: str


def run_workers(
    function: str,
    tasks: Sequence[Any],
    constant: Any = None,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    memory_limit: int | None = None,
    read: Callable[[Any], Any] = lambda answer: answer,
    largest: int = LARGEST,
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the task, result or Lost) in the order in which they get done.

    ```python
    for i, facts in crew("gapstone.data.read_image_info:image_info_of", paths, constant, time_limit=30):
        ...
    ```

    function: "module:name", called as `name(constant, task)`; tasks, constant and results are `messages`.
    workers: processes; None for one per core, never more than the tasks are worth.
    time_limit: seconds for one task, after which its worker is killed.
    memory_limit: bytes of address space per worker (where the system can limit that); beyond it MemoryError.
    read: makes a result of what came from a process, and raises MessageError for what no honest one sends: a decoder
    that a hostile file has taken over says what it likes. largest: raw bytes of one answer.

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
    job = _Job(function, tasks, constant, memory_limit, read, largest, todo, done)
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
            since = w.since  # its own thread sets it to None meanwhile
            if since is not None and now - since > limit:
                w.overdue = f"took longer than {limit:g} s and was stopped"
                w.kill()


_Answers = queue.Queue[tuple[int, Any] | BaseException]


@dataclass
class _Job:
    function: str
    tasks: Sequence[Any]
    constant: Any
    memory_limit: int | None
    read: Callable[[Any], Any]
    largest: int
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
        self.worker = WorkerProcess(job.function, job.constant, job.memory_limit, job.largest)
        self.since: float | None = None  # when the task at hand began
        self.overdue: str | None = None

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
            self.worker.kill()
            self.worker.close()

    def _work(self, chunk: list[int]) -> None:
        while chunk and not self.job.stop.is_set():
            if not self.worker.started:
                self.worker.start()
            self.overdue = None
            self.since = time.monotonic()
            try:
                self.worker.send([self.job.tasks[i] for i in chunk])
                while chunk:
                    result = self.job.read(self.worker.receive())
                    self.since = None  # waiting for a slow reader is not the worker's fault
                    self.job.answer((chunk.pop(0), result))
                    self.since = time.monotonic()
                self.since = None
            except (EOFError, OSError, MessageError) as error:
                # the worker is gone, or talks nonsense: the first task without an answer was its end
                self.since = None
                if self.job.stop.is_set():
                    return
                if isinstance(error, MessageError):
                    reason = f"the process decoding it answered with {error}"
                else:
                    reason = self.overdue or self.worker.ended()
                self.kill()
                self.worker.close()
                self.job.answer((chunk.pop(0), Lost(reason)))

    def kill(self) -> None:
        self.worker.kill()
