"""`gapstone`, and `python -m gapstone`: leave the working folder, listen for Ctrl-C, then import the command line."""

import atexit
import os
import sys
from contextlib import suppress

from gapstone.runtime.interrupts import finish, listen
from gapstone.runtime.working_folder import leave_working_folder


def main() -> int:
    """The entry point; the exit code."""
    leave_working_folder()  # `python -m` puts it first on the path
    listen("".join(sys.argv[1:2]))
    from gapstone.cli import main as run

    return finish(run())


def program() -> None:
    """`main` in a process of its own, which ends without taking apart what it imported: that takes seconds."""
    code = 1

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(leave)  # the first, so that it is called last: temporary files of others are gone by then
    code = main()
    sys.exit(code)


if __name__ == "__main__":
    program()
