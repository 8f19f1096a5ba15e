"""The machine: its processor, its memory, its installed packages and its load."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from pathlib import Path


def processor() -> str:
    """The processor's model name, or its architecture if the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return metadata_version(package)
    except PackageNotFoundError:
        return None


def memory() -> int:
    """How many bytes a process may use: the machine's memory, or the limit of its container if that is less."""
    try:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        limit = 1 << 36
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(file).read_text("ascii")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return limit


def free_mb() -> float | None:
    """Memory available without swapping; None if the system does not tell."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    return next(
        int(line.split()[1]) / 2**10 for line in info.read_text().splitlines() if line.startswith("MemAvailable")
    )


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BackgroundLoad:
    """Measures how many of this process's cores other programs keep busy; None if the system does not tell.

    ```python
    with BackgroundLoad() as load:
        measure()
    load.cores  # 1.4
    ```
    """

    cores: float | None = None

    def __enter__(self) -> "BackgroundLoad":
        self._start = _busy_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        (busy_before, own_before, clock), busy_after = self._start, _busy_seconds()
        wall = time.perf_counter() - clock
        if busy_before is None or busy_after is None or wall <= 0:
            return
        self.cores = max(0.0, (busy_after - busy_before - (time.process_time() - own_before)) / wall)


def _busy_seconds() -> float | None:
    """The seconds that the cores of this process have worked since boot, for all programs; None if unknown."""
    try:
        names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
        ticks = os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return None
    # columns: user, nice, system, (idle, iowait,) irq, softirq, steal; user includes the guests' time
    return sum(sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in names) / ticks
