"""A process that answers tasks and may die: it can be started, asked, killed and restarted, and tells how it ended.

It is a plain subprocess that imports only what the function needs. It is not a fork, which is unsafe beside threads,
nor of multiprocessing, which imports the user's `__main__` again and breaks scripts without the `if __name__` guard.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from gapstone.runtime.working_folder import environment, search_path
from gapstone.workers.messages import LARGEST, MessageError, receive, send

START_LIMIT = 120.0  # seconds; a start takes 0.2 s on an idle machine


class WorkerError(RuntimeError):
    """The worker processes cannot work: they do not start, or the function raises."""


class WorkerProcess:
    """A worker process; call `start` again after its death.

        >>> worker = WorkerProcess("gapstone.data.image_info_cache:image_info_of", constant, memory_limit)
        >>> worker.start()
        >>> worker.send([path])
        >>> info = worker.receive()

    The arguments are those of `worker_pool.run_workers`.
    """

    def __init__(self, function: str, constant: object, memory_limit: int | None, largest: int = LARGEST) -> None:
        self.function, self._constant, self._memory_limit = function, constant, memory_limit
        self._largest = largest
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def dead(self) -> bool:
        """Whether the process was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start the process. Raises WorkerError with the process's standard error if it does not start."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close
        # in its own session, so that Ctrl-C reaches only this process, which then stops the workers in order
        code = (
            f"import sys; sys.path[:] = {search_path()!r}; from gapstone.workers.worker_process import serve; serve()"
        )
        # with one thread, because there is a worker per core and OpenBLAS reserves memory for every thread
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | environment() | threads,
            start_new_session=True,
        )
        requests, answers = self._pipes()
        timer = threading.Timer(START_LIMIT, self.kill)
        timer.start()
        try:
            send(requests, (self.function, self._constant, self._memory_limit))
            if receive(answers) != "ready":
                raise EOFError
        except (EOFError, OSError, MessageError) as error:
            self.kill()
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()
            raise WorkerError(
                f"a worker process for {self.function} does not start ({self.how_it_ended()}):\n{text[-2000:]}"
            ) from error
        finally:
            timer.cancel()

    def send(self, tasks: Sequence[object]) -> None:
        """Send tasks. Raises EOFError or OSError if the process is gone."""
        send(self._pipes()[0], list(tasks))

    def receive(self) -> Any:
        """The answer to the next task.

        Raises:
            WorkerError: the function raised.
            EOFError: the process is gone; likewise OSError.
            MessageError: the message is no answer; kill the process then, because what follows cannot be read.
        """
        match receive(self._pipes()[1], self._largest):
            case ["done", result]:
                return result
            case ["raised", str() as text]:
                raise WorkerError(f"{self.function} failed in a worker process:\n{text}")
        raise MessageError("a message that is no answer")

    def how_it_ended(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the process reading it stopped answering"
        if code == -signal.SIGSEGV:
            return "decoding it crashed the process (segmentation fault)"
        if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
            return "the process decoding it was killed by the system, most likely for using too much memory"
        if code < 0:
            return f"decoding it crashed the process ({signal.Signals(-code).name})"
        return f"the process decoding it ended with code {code}"

    def kill(self) -> None:
        process = self._process  # a copy, because another thread may close it
        if process is not None and process.returncode is None:
            with contextlib.suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)  # its own child processes would keep the pipe open
                else:
                    process.kill()

    def close(self) -> None:
        """Wait for the end of the process and release its pipes."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # flushing into a dead process
                        pipe.close()
            self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdin, process.stdout


def serve() -> None:
    """Answer tasks until standard input ends; a worker process runs this."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    function, constant, memory_limit = receive(requests, sys.maxsize)
    module, name = function.split(":")
    call: Callable[[Any, Any], Any] = getattr(importlib.import_module(module), name)
    _limit_memory(memory_limit)
    send(answers, "ready")
    # no library may write into the answers from here on, and libtiff's messages on stderr do not help the user
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        try:
            tasks = receive(requests, sys.maxsize)
        except EOFError:
            return
        for task in tasks:
            try:
                answer = ("done", call(constant, task))
            except Exception:
                import traceback

                answer = ("raised", traceback.format_exc())
            send(answers, answer)


def _limit_memory(limit: int | None) -> None:
    if limit is None:
        return
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit address space
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
