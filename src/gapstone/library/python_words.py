"""What the work says of the command line's options, in the words of Python: `--batch-size` is `batch_size`."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapstone.console.terminal import Terminal

OTHER = {"group": "groups"}
"""Options that are called otherwise in Python."""


def in_python(text: str) -> str:
    """>>> in_python("--batch-size 1: must be at least 2.")
    'batch_size 1: must be at least 2.'
    """
    text = re.sub(r"(?<![\w-])--([a-z][a-z-]*[a-z])\b", lambda m: OTHER.get(m[1], m[1].replace("-", "_")), text)
    return text.replace("The same command", "The same call").replace("the same command", "the same call")


@contextmanager
def errors_in_python() -> Iterator[None]:
    """Errors from inside speak of arguments, not of options."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_python(error.args[0]),)
        raise
    except KeyboardInterrupt as error:
        error.__notes__ = [in_python(note) for note in getattr(error, "__notes__", [])]
        raise


def console_of(progress: bool, stderr: bool = False) -> Terminal:
    """Where the work is shown; without `progress` nowhere."""
    return PythonTerminal(stderr=stderr) if progress else Terminal(file=io.StringIO())


class PythonTerminal(Terminal):
    """A console whose sentences speak of arguments."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(in_python(each) if isinstance(each, str) else each for each in objects), **options)
