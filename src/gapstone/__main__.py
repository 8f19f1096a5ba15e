"""`gapstone`, and `python -m gapstone`: listen for Ctrl-C first, then import the command line."""

import sys

from gapstone.stopping import listen


def main() -> int:
    """The entry point; the exit code."""
    listen("".join(sys.argv[1:2]))
    from gapstone.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
