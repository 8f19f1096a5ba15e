"""What is typed on a command line: numbers in their range, and the folder that results of DATA or MODEL go to."""

import os
import re
from pathlib import Path

from gapstone.console.formatting import display


def at_least(least: int, **values: int | None) -> None:
    """Raises ValueError that names the option: at_least(1, batch_size=0)."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least {least}.")


def results_folder(command: str, given: str) -> Path:
    """The folder that the results of a command on DATA or MODEL go to, unless the user names another.

    >>> results_folder("compare", "photos/My roses.csv"), results_folder("explain", "timm:resnet50")
    (PosixPath('runs/compare-My-roses'), PosixPath('runs/explain-timm-resnet50'))

    The name holds letters of any script, digits, dots and dashes.
    """
    name = os.path.basename(os.path.abspath(os.path.expanduser(given)))
    for ending in (".csv", ".tsv", ".npz", ".safetensors"):
        name = name.removesuffix(ending)
    # a file system takes 255 bytes of a name; some of them are for what stands before it
    short = re.sub(r"[^\w.-]+", "-", display(name)).strip(".-").encode()[:200].decode(errors="ignore")
    return Path("runs") / f"{command}-{short or 'data'}"
