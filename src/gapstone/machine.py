"""What a report says of the machine it was made on."""

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
