"""Helpers for command-line options: the range of a number, and the default folder of a command's results."""

import os
import re
from pathlib import Path

from gapstone.console.formatting import display


def at_least(least: int, **values: int | None) -> None:
    """Raise a ValueError that names the option if a value is too small: at_least(1, batch_size=0)."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least {least}.")


def results_folder(command: str, source: str) -> Path:
    """The default folder for the results of a command; `source` is its DATA or MODEL.

    >>> results_folder("compare", "photos/My roses.csv"), results_folder("explain", "timm:resnet50")
    (PosixPath('runs/compare-My-roses'), PosixPath('runs/explain-timm-resnet50'))

    The name consists of letters of any script, digits, dots and dashes.
    """
    name = os.path.basename(os.path.abspath(os.path.expanduser(source)))
    for ending in (".csv", ".tsv", ".npz", ".safetensors"):
        name = name.removesuffix(ending)
    # a file name has at most 255 bytes; the command's name and a dash come before these 200
    short = re.sub(r"[^\w.-]+", "-", display(name)).strip(".-").encode()[:200].decode(errors="ignore")
    return Path("runs") / f"{command}-{short or 'data'}"
