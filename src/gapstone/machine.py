"""What a report says of the machine it was made on."""

import os
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from pathlib import Path


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
