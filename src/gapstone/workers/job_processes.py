"""Run jobs in processes of their own, some at a time: one that dies takes nobody with it."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from gapstone.runtime.interrupts import held_back
from gapstone.runtime.working_folder import ELSEWHERE, without_working_folder
from gapstone.storage.paths import sentence

# imported by the server that the processes of trials are forked from, once for a whole program: its first user decides
LAUNCHERS = [f"gapstone.loops.tuned.{name}" for name in ("launch_pixels", "launch_rows", "launch_whole")]
PRELOAD = ["gapstone.workers.server_preload", "gapstone.compare.plan", "torch._dynamo", *LAUNCHERS]

Work = Callable[[Any, Callable[[Any], None]], None]
"""A picklable function of a job and of a function that sends news home."""


@dataclass(frozen=True)
class JobNews:
    """`kind` is "started", "news", "done" or "failed"; `what` the job's news or the reason it failed."""

    job: Any
    kind: str
    what: Any = None


def run_jobs(work: Work, jobs: Iterable[Any], workers: int) -> Generator[JobNews, None, None]:
    """Run `work(job, send)` for every job, `workers` at a time, each in a fresh process; yield what happens.

        for news in run_jobs(train, jobs, workers=2): ...

    The processes are forked from a server that has imported `PRELOAD` and nothing else, so a start takes milliseconds.
    When the iterator is closed, or this process dies in whatever way, they end too. A job's exception, or its death,
    becomes News("failed") with the reason.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    waiting, running = iter(jobs), dict[Any, tuple[Any, BaseProcess]]()
    try:
        while True:
            while len(running) < workers and (job := next(waiting, _END)) is not _END:
                home, away = context.Pipe()
                process = context.Process(target=_run, args=(work, job, away), daemon=True)
                with held_back():  # the server of forks, which this may start, must not hear Ctrl-C either
                    _start(process)
                away.close()  # so that its end of the pipe closes when it dies
                running[home] = job, process
                yield JobNews(job, "started")
            if not running:
                return
            ready: Any
            for ready in wait(list(running)):
                job, owner = running[ready]
                try:
                    kind, what = ready.recv()
                except (EOFError, OSError):
                    owner.join()
                    kind, what = "failed", _death(owner.exitcode)
                if kind != "news":
                    owner.join(timeout=10)
                    ready.close()
                    del running[ready]
                yield JobNews(job, kind, what)
    finally:
        for ready, (_, owner) in running.items():
            owner.kill()
            owner.join()
            ready.close()


def run_one(work: Work, job: Any) -> Any:
    """The last news of one job in a process of its own. Raises JobError with the reason where it failed."""
    answer = None
    for news in run_jobs(work, [job], 1):
        if news.kind == "failed":
            raise JobError(news.what)
        if news.kind == "news":
            answer = news.what
    return answer


class JobError(RuntimeError):
    """A job failed; the message is the reason."""


_END = object()


def _start(process: BaseProcess) -> None:
    with without_working_folder():
        if sys.flags.ignore_environment and not sys.flags.safe_path:
            # `python -E`: the server knows nothing of PYTHONSAFEPATH, and "" on its path is the folder it starts in
            with contextlib.chdir(ELSEWHERE):
                forkserver.ensure_running()
        process.start()


def _run(work: Work, job: Any, away: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(away,), daemon=True).start()
    try:
        work(job, lambda what: away.send(("news", what)))
    except Exception as error:
        away.send(("failed", reason(error)))
    else:
        away.send(("done", None))


def _end_with_parent(away: Connection) -> None:
    try:
        away.recv()  # nothing is ever sent: this returns when the other end is gone
    except (EOFError, OSError):
        os._exit(1)


def reason(error: BaseException) -> str:
    """One line a person can act on."""
    if isinstance(error, OSError) and error.errno is not None:
        return sentence(error)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"out of memory: try a smaller --batch-size, --size or fewer --workers ({text[:200]})"
    return f"{text[:500]}" if type(error).__module__.startswith("gapstone") else f"{type(error).__name__}: {text[:500]}"


def _death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            "its process was killed, most likely because memory ran out: try a smaller --batch-size or fewer --workers"
        )
    if code is not None and code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} before it was done"
