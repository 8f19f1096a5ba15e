"""Runs each job in a process of its own, several at a time; a process that dies does not stop the others."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle

from gapstone.runtime.interrupts import interrupts_blocked
from gapstone.runtime.working_folder import ELSEWHERE, without_working_folder
from gapstone.storage.paths import sentence

# the modules that the fork server imports; a program has only one such server, so its first user decides
LAUNCHERS = [f"gapstone.loops.tuned.{name}" for name in ("launch_pixels", "launch_rows", "launch_whole")]
PRELOAD = ["gapstone.workers.server_preload", "gapstone.comparing.plan", "torch._dynamo", *LAUNCHERS]

Work = Callable[[Any, Callable[[object], None]], None]
"""A function of a job and of a function that sends news to the parent process; cloudpickle takes both along."""


@dataclass(frozen=True)
class JobNews:
    """`kind` is "started", "news", "done" or "failed"; `what` is the job's news or the reason why it failed."""

    job: Any
    kind: str
    what: Any = None


def start_server(modules: Sequence[str] = ()) -> None:
    """Start the server that jobs are forked from, unless it runs. It imports for seconds, beside this process.

    `modules`: what it imports besides `PRELOAD`, if it is there.
    """
    forkserver.set_forkserver_preload([*PRELOAD, *modules])
    with without_working_folder():
        resource_tracker.ensure_running()  # first: where it starts it, Python lets Ctrl-C through again
    # the server must not receive Ctrl-C either
    with interrupts_blocked(), without_working_folder():
        # with `python -E` the server ignores PYTHONSAFEPATH, and "" on its path is the folder it starts in
        elsewhere = sys.flags.ignore_environment and not sys.flags.safe_path
        with contextlib.chdir(ELSEWHERE) if elsewhere else contextlib.nullcontext():
            forkserver.ensure_running()


def run_jobs(work: Work, jobs: Iterable[object], workers: int) -> Generator[JobNews, None, None]:
    """Run `work(job, send)` for each job, `workers` at a time, each in a new process; yield their news.

        for news in run_jobs(train, jobs, workers=2): ...

    The processes are forked from a server that has imported only `PRELOAD`, so a start takes milliseconds. They end
    when the iterator is closed or this process dies for any reason. If a job raises an exception or its process dies,
    its last news is of kind "failed", with the reason.
    """
    context = multiprocessing.get_context("forkserver")
    waiting, running = iter(jobs), dict[Any, tuple[object, BaseProcess]]()  # running: by the parent's end of the pipe
    try:
        while True:
            while len(running) < workers and (job := next(waiting, _END)) is not _END:
                parent_end, child_end = context.Pipe()
                # as bytes: what cannot be read there is a reason why the job failed, as any other
                process = context.Process(target=_run, args=(cloudpickle.dumps((work, job)), child_end), daemon=True)
                start_server()  # again, if it has died
                with interrupts_blocked(), without_working_folder(), _without_main():
                    process.start()
                child_end.close()  # so that the pipe closes when the child dies
                running[parent_end] = job, process
                yield JobNews(job, "started")
            if not running:
                return
            connection: Any
            for connection in wait(list(running)):
                job, worker = running[connection]
                try:
                    kind, what = connection.recv()
                except (EOFError, OSError):
                    worker.join()
                    kind, what = "failed", _cause_of_death(worker.exitcode)
                if kind != "news":
                    worker.join(timeout=10)
                    connection.close()
                    del running[connection]
                yield JobNews(job, kind, what)
    finally:
        for connection, (_, worker) in running.items():
            worker.kill()
            worker.join()
            connection.close()


def run_one(work: Work, job: object) -> Any:
    """Run one job in a process of its own; return its last news. Raises JobError with the reason if it fails."""
    last_news = None
    for news in run_jobs(work, [job], 1):
        if news.kind == "failed":
            raise JobError(news.what)
        if news.kind == "news":
            last_news = news.what
    return last_news


class JobError(RuntimeError):
    """A job failed; the message is the reason."""


_END = object()
_replacing = threading.Lock()  # held while multiprocessing's function is replaced


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not run the user's script again, which may have no `if __name__ == "__main__"`.

    What a job needs of a script or a notebook comes with it (`gapstone.comparing.user_code`).
    """
    with _replacing:
        prepared = spawn.get_preparation_data

        def without_main(name: str) -> dict[str, Any]:
            return {key: value for key, value in prepared(name).items() if not key.startswith("init_main_from_")}

        spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = prepared


def _run(pickled: bytes, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    # a job's numbers repeat, whoever started it: it waits for its kernels (gapstone.loops.background)
    os.environ.setdefault("GAPSTONE_WAIT_FOR_KERNELS", "command")
    try:
        work, job = pickle.loads(pickled)
        work(job, lambda what: parent.send(("news", what)))
    except Exception as error:
        parent.send(("failed", reason(error)))
    else:
        parent.send(("done", None))


def _end_with_parent(parent: Connection) -> None:
    try:
        parent.recv()  # the parent never sends anything, so this ends when the parent does
    except (EOFError, OSError):
        os._exit(1)


def reason(error: BaseException) -> str:
    """An error as one line that tells the user what to do."""
    if isinstance(error, OSError) and error.errno is not None:
        return sentence(error)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"out of memory: try a smaller --batch-size, --size or fewer --workers ({text[:200]})"
    return f"{text[:500]}" if type(error).__module__.startswith("gapstone") else f"{type(error).__name__}: {text[:500]}"


def _cause_of_death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            "its process was killed, most likely because memory ran out: try a smaller --batch-size or fewer --workers"
        )
    if code is not None and code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} before it was done"
