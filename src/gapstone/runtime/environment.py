"""What a report says of the machine it was made on."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from pathlib import Path
from types import TracebackType


def processor() -> str:
    """Its name as sold, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """The version; None where it is not installed."""
    try:
        return metadata_version(package)
    except PackageNotFoundError:
        return None


def memory() -> int:
    """Bytes that a process may have here: what the machine has, or less where its container is given less."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        found = 1 << 36
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(file).read_text("ascii")))
        except (OSError, ValueError):  # no such file; "max"
            continue
    return found


class Others:
    """How many of this process's cores other programs kept busy meanwhile; None where the system does not tell.

    ```python
    with Others() as others:
        measure()
    others.cores  # 1.4
    ```
    """

    cores: float | None = None

    def __enter__(self) -> "Others":
        self._before = _busy(), time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (busy, own, clock), now = self._before, _busy()
        wall = time.perf_counter() - clock
        if busy is None or now is None or wall <= 0:
            return
        self.cores = max(0.0, (now - busy - (time.process_time() - own)) / wall)


def _busy() -> float | None:
    """Seconds in which the cores that this process may use have worked, for whomever."""
    try:
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
        ticks = os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return None
    # user, nice, system, (idle, iowait,) irq, softirq, steal; what guests do is in user
    return sum(sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in mine) / ticks
