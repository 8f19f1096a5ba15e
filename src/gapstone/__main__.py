"""`gapstone`, and `python -m gapstone`: leave the working folder, listen for Ctrl-C, then import the command line."""

import sys

from gapstone.runtime.interrupts import finish, listen
from gapstone.runtime.working_folder import leave_working_folder


def main() -> int:
    """The entry point; the exit code."""
    leave_working_folder()  # `python -m` puts it first on the path
    listen("".join(sys.argv[1:2]))
    from gapstone.cli import main as run

    return finish(run())


if __name__ == "__main__":
    sys.exit(main())
