"""A few warm processes that read pictures: one may hang, crash or run out of memory, and only its own picture is lost.

A process takes 0.2 s to start, a small photo 10 ms to read: they are kept, where `images.crew` starts its own anew.
"""

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

from gapstone.data.memory_limits import worker_memory_limit
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing
from gapstone.serve.client_limits import ClientLimits
from gapstone.serve.read_picture import UploadedPicture, checked, largest, rules
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_process import WorkerProcess


class Readers:
    """`count` processes; `read` waits for a free one.

    >>> readers = Readers([model.preprocessing], Limits(), count=2)
    >>> readers.start()
    >>> picture = await readers.read(data, preview=True)
    >>> readers.stop()
    """

    def __init__(self, preprocessings: list[Preprocessing], limits: ClientLimits, count: int) -> None:
        self._all = [_Reader(preprocessings, limits) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Reader] = queue.SimpleQueue()
        for reader in self._all:
            self._idle.put(reader)
        self._threads = ThreadPoolExecutor(count, "gapstone-reader")

    def start(self) -> None:
        """Raises CrewError where processes cannot be started."""
        for reader in self._all:
            reader.start()

    async def read(self, data: bytes, preview: bool) -> UploadedPicture:
        """Raises ImageError with the reason, also where reading took too long or crashed its process."""
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, data, preview)
        if isinstance(answer, str):
            raise ImageError(answer)
        return answer

    def _ask(self, data: bytes, preview: bool) -> UploadedPicture | str:
        reader = self._idle.get()  # never waits: as many readers as threads
        try:
            return reader.ask(data, preview)
        finally:
            self._idle.put(reader)

    def stop(self) -> None:
        for reader in self._all:
            reader.kill()
        self._threads.shutdown(cancel_futures=True)
        for reader in self._all:
            reader.close()


class _Reader:
    """One process, replaced when it dies."""

    def __init__(self, preprocessings: list[Preprocessing], limits: ClientLimits) -> None:
        self._preprocessings = preprocessings
        self._worker = WorkerProcess(
            "gapstone.serve.read_picture:read",
            rules(preprocessings, limits.pixels),
            worker_memory_limit(limits.pixels),
            largest(preprocessings),
        )
        self._limit = limits.decode_seconds
        self._lock = threading.Lock()
        self._asking = False
        self._overdue = False

    def start(self) -> None:
        self._worker.start()

    def ask(self, data: bytes, preview: bool) -> UploadedPicture | str:
        if self._worker.dead:
            self.close()  # it died idle: not this picture's fault
        if not self._worker.started:
            self.start()
        self._asking, self._overdue = True, False
        timer = threading.Timer(self._limit, self._stop_overdue)
        timer.start()
        try:
            self._worker.send([(data, preview)])
            answer = checked(self._worker.receive(), self._preprocessings)
        except MessageError as error:
            self.kill()
            self.close()
            return f"the process reading it answered with {error}"
        except (EOFError, OSError):  # the process is gone
            took = f"reading it took longer than {self._limit:g} s and was stopped"
            reason = took if self._overdue else self._worker.how_it_ended()
            self.kill()
            self.close()
            return reason
        finally:
            timer.cancel()
            with self._lock:
                self._asking = False
        if self._overdue:  # at the last moment: this answer came, the next would not
            self.close()
        return answer

    def _stop_overdue(self) -> None:
        with self._lock:
            if self._asking:
                self._overdue = True
                self.kill()

    def kill(self) -> None:
        self._worker.kill()

    def close(self) -> None:
        self._worker.close()
