"""Ctrl-C, and a polite kill: work ends in order at the first and at once at the second, and one line says what stopped.

Standard library only: `gapstone` listens before anything else is imported.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

Says = Callable[[], str]

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
_sections: list["Section"] = []
_asked: int | None = None
_command = "gapstone"


class Section:
    """Work that ends in order when it is stopped; `says` what was stopped, where results are and how to go on."""

    def __init__(self, says: str | Says) -> None:
        self.says = says

    def text(self) -> str:
        return self.says if isinstance(self.says, str) else self.says()


@contextmanager
def stoppable(says: str | Says) -> Iterator[Section]:
    """Ctrl-C within raises KeyboardInterrupt, with what the innermost section `says` as its note.

    >>> with stoppable(f"Stopped before the first trial; kept in {out}. The same command goes on.") as section:
    ...     section.says = lambda: f"Stopped after {done} trials; kept in {out}. The same command goes on."

    Outside of every section a command has nothing to bring to an end: there Ctrl-C ends the process at once.
    """
    section = Section(says)
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
def held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of this block, and a process started in it never hears it: its parent stops it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen(command: str) -> None:
    """From here on signals end this process as described above; for the command line alone, in its main thread."""
    global _command
    _command = f"gapstone {command}" if command.isidentifier() else "gapstone"
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs do not hear Ctrl-C
            signal.signal(number, _first)
    sys.unraisablehook = _unraisable


def finish(code: int) -> int:
    """The command is done, or has said that it was stopped: what comes now stops nothing. The exit code.

    Without it Ctrl-C while Python takes itself apart would end the process as though it had not been done. And where
    KeyboardInterrupt has passed through code that was given as text (`exec`), Python kills itself by the signal.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) in (_first, _at_once):
            signal.signal(number, signal.SIG_IGN)
    if asked():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def asked() -> bool:
    """Has this process been asked to stop?"""
    return _asked is not None


def code() -> int:
    """The exit code of a process that was stopped: 130 after Ctrl-C, 143 after a kill."""
    return 128 + (_asked or signal.SIGINT)


def said(error: BaseException) -> str:
    """What was stopped, in a line."""
    notes = getattr(error, "__notes__", [])
    return str(notes[0]) if notes else _default()


def _default() -> str:
    return f"{_command} was stopped before it was done. The same command starts again."


def _first(number: int, frame: FrameType | None) -> None:
    global _asked
    for one in _SIGNALS:
        if signal.getsignal(one) is _first:
            signal.signal(one, _at_once)
    _asked = number
    if not _sections:
        _at_once(number, frame)
    raise KeyboardInterrupt


def _at_once(number: int, frame: FrameType | None) -> None:
    """Say so and end, whatever is going on: what is on disk is whole at any moment."""
    text = _default()
    if _sections:
        with suppress(Exception):
            text = _sections[-1].text()
    cursor = "\x1b[?25h" if sys.__stderr__ is not None and sys.__stderr__.isatty() else ""  # a bar had hidden it
    with suppress(OSError):
        os.write(2, f"{cursor}\ngapstone: {text}\n".encode("utf-8", "backslashreplace"))  # no buffer: it may be in use
    os._exit(128 + number)


def _unraisable(hook: Any) -> None:
    """A KeyboardInterrupt that came up within a destructor would be printed and forgotten."""
    if isinstance(hook.exc_value, KeyboardInterrupt):
        _at_once((_asked or signal.SIGINT), None)
    sys.__unraisablehook__(hook)
