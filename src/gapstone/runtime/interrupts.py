"""Handles Ctrl-C and SIGTERM: the first signal ends the work in order, the second one at once; one line says so.

Imports the standard library only: `gapstone` installs the handlers before it imports anything else.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
_sections: list["Section"] = []
_received: int | None = None  # the first signal
_command = "gapstone"


class Section:
    """Work that ends in order; its message says what was stopped, where the results are and how to continue."""

    def __init__(self, message: str | Callable[[], str]) -> None:
        self.message = message

    def text(self) -> str:
        return self.message if isinstance(self.message, str) else self.message()


@contextmanager
def stoppable(message: str | Callable[[], str]) -> Iterator[Section]:
    """Make Ctrl-C inside raise KeyboardInterrupt, with the message of the innermost section as its note.

    >>> with stoppable(f"Stopped before the first trial; kept in {out}. The same command goes on.") as section:
    ...     section.message = lambda: f"Stopped after {done} trials; kept in {out}. The same command goes on."

    Outside all sections there is no work to end in order: Ctrl-C ends the process at once.
    """
    section = Section(message)
    _sections.append(section)
    try:
        yield section
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", []):
            error.add_note(section.text())
        raise
    finally:
        _sections.remove(section)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the end of this block; a process started inside never receives it, its parent stops it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen(command: str) -> None:
    """Install the signal handlers; for the command line only, in its main thread."""
    global _command
    _command = f"gapstone {command}" if command.isidentifier() else "gapstone"
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
            signal.signal(number, _first)
    sys.unraisablehook = _unraisable


def finish(code: int) -> int:
    """Ignore signals from now on, because the command is done or has printed that it was stopped; return the exit code.

    Without this, Ctrl-C during Python's shutdown would end a finished command with an error. And after a
    KeyboardInterrupt that passed through code given as text (`exec`), Python kills itself by the signal.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) in (_first, _at_once):
            signal.signal(number, signal.SIG_IGN)
    if stop_requested():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def stop_requested() -> bool:
    """Whether this process has received a signal to stop."""
    return _received is not None


def exit_code() -> int:
    """The exit code of a stopped process: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_received or signal.SIGINT)


def stop_message(error: BaseException) -> str:
    """A line that says what was stopped."""
    notes = getattr(error, "__notes__", [])
    return str(notes[0]) if notes else _default_message()


def _default_message() -> str:
    return f"{_command} was stopped before it was done. The same command starts again."


def _first(number: int, frame: FrameType | None) -> None:
    global _received
    for other in _SIGNALS:
        if signal.getsignal(other) is _first:
            signal.signal(other, _at_once)
    _received = number
    if not _sections:
        _at_once(number, frame)
    raise KeyboardInterrupt


def _at_once(number: int, frame: FrameType | None) -> None:
    """Print the message and end the process at once: files on disk are complete at any moment."""
    text = _default_message()
    if _sections:
        with suppress(Exception):
            text = _sections[-1].text()
    cursor = "\x1b[?25h" if sys.__stderr__ is not None and sys.__stderr__.isatty() else ""  # progress bars hide it
    with suppress(OSError):
        # not sys.stderr, whose buffer may be in use
        os.write(2, f"{cursor}\ngapstone: {text}\n".encode("utf-8", "backslashreplace"))
    os._exit(128 + number)


def _unraisable(hook: "sys.UnraisableHookArgs") -> None:
    """End the process on a KeyboardInterrupt in a destructor, which Python would only print."""
    if isinstance(hook.exc_value, KeyboardInterrupt):
        _at_once(_received or signal.SIGINT, None)
    sys.__unraisablehook__(hook)
