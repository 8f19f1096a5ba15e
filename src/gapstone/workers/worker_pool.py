"""`run_workers` runs a function on many tasks in worker processes, and survives the death of a worker.

A hostile file can crash a decoder, use all memory or never finish decoding. `concurrent.futures` gives up the whole
pool when a worker dies; here its current task results in a `Lost`, and a new worker continues with the other tasks.
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
from gapstone.workers.worker_process import WorkerError as WorkerError
from gapstone.workers.worker_process import WorkerProcess

CHUNK = 16  # tasks sent at once; with single tasks, the pipe's round trip costs as much as decoding a small JPEG


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of a task whose worker died or took too long."""

    reason: str


def run_workers(
    function: str,
    tasks: Sequence[object],
    constant: object = None,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    memory_limit: int | None = None,
    read: Callable[[Any], Any] = lambda answer: answer,
    largest: int = LARGEST,
) -> Iterator[tuple[int, Any]]:
    """Run a function on every task in worker processes; yield (index of the task, result or Lost) as they finish.

    ```python
    for i, info in run_workers("gapstone.data.image_info_cache:image_info_of", paths, constant, time_limit=30):
        ...
    ```

    `function` is "module:name", called as `name(constant, task)`; tasks, constant and results are what `messages` can
    hold. Without `workers` there is one per core, but no more than the number of tasks justifies. A task that takes
    more than `time_limit` seconds is killed; beyond `memory_limit` bytes of address space it gets a MemoryError.
    `read` converts and checks an answer of at most `largest` raw bytes; it raises MessageError for one that no intact
    worker sends, because a hostile file may have taken over the decoder.

    Raises:
        WorkerError: workers do not start, or the function raises; the function must handle hostile input itself.
    """
    if not tasks:
        return
    # a worker takes 0.2 s to start: too much for a few files
    count = min(workers or os.cpu_count() or 1, -(-len(tasks) // CHUNK))
    todo: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    chunk = max(1, min(CHUNK, len(tasks) // (count * 4)))
    for start in range(0, len(tasks), chunk):
        todo.put(list(range(start, min(start + chunk, len(tasks)))))
    done: _Answers = queue.Queue(maxsize=8 * count)  # bounded: decoded images must not pile up in memory
    job = _Job(function, tasks, constant, memory_limit, read, largest, todo, done)
    pool = [_Worker(job) for _ in range(count)]
    threads = [threading.Thread(target=worker.run, daemon=True, name="gapstone-worker") for worker in pool]
    try:
        for thread in threads:
            thread.start()
        yield from _collect(pool, done, time_limit, len(tasks))
    finally:
        job.stop.set()
        for worker in pool:
            worker.process.kill()
        for thread in threads:
            thread.join(timeout=10)


def _collect(pool: "list[_Worker]", done: "_Answers", limit: float, count: int) -> Iterator[tuple[int, Any]]:
    """Yield `count` answers; kill workers whose task takes longer than the limit."""
    received = 0
    while received < count:
        with contextlib.suppress(queue.Empty):
            answer = done.get(timeout=0.1)
            if isinstance(answer, BaseException):
                raise answer
            received += 1
            yield answer
        now = time.monotonic()
        for worker in pool:
            task_start = worker.task_start  # a copy, because the worker's thread may set it to None
            if task_start is not None and now - task_start > limit:
                worker.overdue = f"took longer than {limit:g} s and was stopped"
                worker.process.kill()


_Answers = queue.Queue[tuple[int, Any] | BaseException]


@dataclass
class _Job:
    function: str
    tasks: Sequence[object]
    constant: object
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
    """A thread of this process that sends tasks to a worker process, and starts a new process if it dies."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.process = WorkerProcess(job.function, job.constant, job.memory_limit, job.largest)
        self.task_start: float | None = None  # of the current task; None while there is none
        self.overdue: str | None = None  # why the process was killed

    def run(self) -> None:
        try:
            while not self.job.stop.is_set():
                try:
                    chunk = self.job.todo.get_nowait()
                except queue.Empty:
                    return
                self._work(chunk)
        except BaseException as error:
            self.job.answer(error)
        finally:
            self.task_start = None
            self.process.kill()
            self.process.close()

    def _work(self, chunk: list[int]) -> None:
        while chunk and not self.job.stop.is_set():
            if not self.process.started:
                self.process.start()
            self.overdue, self.task_start = None, time.monotonic()
            try:
                self.process.send([self.job.tasks[i] for i in chunk])
                while chunk:
                    result = self.job.read(self.process.receive())
                    self.task_start = None  # a wait for a slow reader does not count
                    self.job.answer((chunk.pop(0), result))
                    self.task_start = time.monotonic()
                self.task_start = None
            except (EOFError, OSError, MessageError) as error:
                # the worker died or sent nonsense: the first task without an answer is the cause
                self.task_start = None
                if self.job.stop.is_set():
                    return
                if isinstance(error, MessageError):
                    reason = f"the process decoding it answered with {error}"
                else:
                    reason = self.overdue or self.process.how_it_ended()
                self.process.kill()
                self.process.close()
                self.job.answer((chunk.pop(0), Lost(reason)))
