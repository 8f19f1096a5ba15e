"""What is typed on a command line: numbers in their range, and the folder that results of DATA or MODEL go to."""

import os
import re

from gapstone.console.formatting import display


def at_least(least: int, **values: int | None) -> None:
    """Raises ValueError that names the option: at_least(1, batch_size=0)."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least {least}.")


def results_place(given: str) -> str:
    """A folder name for DATA or MODEL, the same for every command: letters of any script, digits, dots and dashes.

    >>> place("photos/My roses.csv"), place("timm:resnet50"), place("../flowers/")
    ('My-roses', 'timm-resnet50', 'flowers')
    """
    name = os.path.basename(os.path.abspath(os.path.expanduser(given)))
    for ending in (".csv", ".tsv", ".npz", ".safetensors"):
        name = name.removesuffix(ending)
    # a file system takes 255 bytes of a name; some of them are for what stands before it
    short = re.sub(r"[^\w.-]+", "-", display(name)).strip(".-").encode()[:200].decode(errors="ignore")
    return short or "data"
