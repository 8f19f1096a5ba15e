"""Processes that read pictures: if one hangs, crashes or runs out of memory, only its current picture fails.

Starting a process takes 0.2 s, reading a small photo 10 ms. So the processes are reused.
"""

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

from gapstone.data.memory_limits import worker_memory_limit
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing
from gapstone.serve.client_limits import ClientLimits
from gapstone.serve.read_picture import UploadedPicture, check_result, largest_result, worker_arguments
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_process import WorkerProcess


class Readers:
    """`count` reader processes.

    >>> readers = Readers([model.preprocessing], ClientLimits(), count=2)
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
        """Start the processes."""
        for reader in self._all:
            reader.start()

    async def read(self, data: bytes, preview: bool) -> UploadedPicture:
        """Read a picture in a free process.

        Raises:
            ImageError: If it cannot be read, took too long or crashed its process; the message has the reason.
        """
        result = await asyncio.get_running_loop().run_in_executor(self._threads, self._read, data, preview)
        if isinstance(result, str):
            raise ImageError(result)
        return result

    def _read(self, data: bytes, preview: bool) -> UploadedPicture | str:
        reader = self._idle.get()  # never blocks: there are as many readers as threads
        try:
            return reader.read(data, preview)
        finally:
            self._idle.put(reader)

    def stop(self) -> None:
        """Kill the processes."""
        for reader in self._all:
            reader.kill()
        self._threads.shutdown(cancel_futures=True)
        for reader in self._all:
            reader.close()


class _Reader(WorkerProcess):
    """A process that is replaced when it dies."""

    def __init__(self, preprocessings: list[Preprocessing], limits: ClientLimits) -> None:
        super().__init__(
            "gapstone.serve.read_picture:read",
            worker_arguments(preprocessings, limits.pixels),
            worker_memory_limit(limits.pixels),
            largest_result(preprocessings),
        )
        self._preprocessings = preprocessings
        self._limit = limits.decode_seconds
        self._lock = threading.Lock()
        self._busy = False
        self._overdue = False

    def read(self, data: bytes, preview: bool) -> UploadedPicture | str:
        if self.dead:
            self.close()  # it died while idle, not because of this picture
        if not self.started:
            self.start()
        self._busy, self._overdue = True, False
        timer = threading.Timer(self._limit, self._stop_overdue)
        timer.start()
        try:
            self.send([(data, preview)])
            result = check_result(self.receive(), self._preprocessings)
        except MessageError as error:
            self.kill()
            self.close()
            return f"the process reading it answered with {error}"
        except (EOFError, OSError):  # the process died
            timeout = f"reading it took longer than {self._limit:g} s and was stopped"
            reason = timeout if self._overdue else self.how_it_ended()
            self.kill()
            self.close()
            return reason
        finally:
            timer.cancel()
            with self._lock:
                self._busy = False
        if self._overdue:  # killed just after it sent this result
            self.close()
        return result

    def _stop_overdue(self) -> None:
        with self._lock:
            if self._busy:
                self._overdue = True
                self.kill()
