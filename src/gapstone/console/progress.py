"""Progress a person can follow: bars on a terminal, a plain line now and then elsewhere."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from gapstone.console.formatting import count_noun, display
from gapstone.console.terminal import Terminal

FIRST = 0.8  # seconds of silence after the start of a command until a plain line says what it does
EVERY = 8.0  # seconds of silence between plain lines from then on


@dataclass(eq=False)
class _Piece:
    """A piece of work, and how far it is."""

    what: str
    total: int | None = None
    done: int = 0
    news: str = ""
    began: float = field(default_factory=time.monotonic)
    bar: TaskID | None = None

    def line(self) -> str:
        if self.total is None:
            return f"{self.what} … ({time.monotonic() - self.began:.0f} s)"
        return f"{self.what}: {self.done:,} of {self.total:,}" + (f" ({self.news})" if self.news else "")


class Bars:
    """Named pieces of work, each told how far it is.

    >>> with Bars(console) as bars:
    ...     tell = bars("Decoding images")
    ...     tell(10, 100)
    ...     with bars.during("Loading the model"):
    ...         model = load(path)

    Never silent for long: where no piece is running, `idle` is shown.
    """

    def __init__(self, console: Console, idle: str = "At work") -> None:
        self.console = console
        self.live: Progress | None = None
        self._pieces: list[_Piece] = []
        self._named: _Piece | None = None  # named, not told of yet
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._said = False
        self._pulse: threading.Thread | None = None
        self._idle = _Piece(idle)
        if console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), _Count(), TimeElapsedColumn(),
                TextColumn("{task.fields[news]}", markup=False), console=console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> "Bars":
        if self.live:
            self._show()
            self.live.start()
        else:
            self._pulse = threading.Thread(target=self._beat, daemon=True)
            self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self.live:
            self.live.stop()
        if self._pulse:
            self._pulse.join()

    def say(self, text: str) -> None:
        with self._lock:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
            self.console.file.flush()  # into a log it must come now, not when the buffer is full
            Terminal.last = time.monotonic()

    def __call__(self, what: str) -> Callable[..., None]:
        """A function of (done, total, news="") for this piece of work."""
        piece = _Piece(display(what))
        with self._lock:
            if self._named is not None:
                self._remove(self._named)
            self._named = piece
            self._add(piece)

        def tell(done: int, total: int, news: str = "") -> None:
            with self._lock:
                if self._named is piece:
                    self._named = None
                piece.done, piece.total, piece.news = done, total, display(news)
                if done >= total:
                    self._remove(piece)
                else:
                    self._add(piece)

        return tell

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """A piece of work of which nobody knows how far it is."""
        piece = _Piece(display(what))
        with self._lock:
            self._add(piece)
        try:
            yield
        finally:
            with self._lock:
                self._remove(piece)

    def _add(self, piece: _Piece) -> None:
        if piece not in self._pieces:
            piece.began = time.monotonic()
            self._pieces.append(piece)
        self._show()

    def _remove(self, piece: _Piece) -> None:
        if piece in self._pieces:
            self._pieces.remove(piece)
            if self.live and piece.bar is not None:
                self.live.remove_task(piece.bar)
                piece.bar = None
        self._show()

    def _show(self) -> None:
        """On a terminal: a bar for each piece, or the idle one."""
        if not self.live:
            return
        for piece in (self._idle, *self._pieces):
            if piece.bar is None:
                piece.bar = self.live.add_task(piece.what, total=piece.total, news=piece.news)
            if piece is not self._idle:
                self.live.update(piece.bar, completed=piece.done, total=piece.total, news=piece.news)
        assert self._idle.bar is not None
        self.live.update(self._idle.bar, visible=not self._pieces)

    def _beat(self) -> None:
        """Elsewhere: a line after some silence."""
        while not self._end.wait(0.2):
            with self._lock:
                if time.monotonic() - Terminal.last >= (EVERY if self._said else FIRST):
                    self._said = True
                    # of pieces within pieces the inner one says most
                    self.say((self._pieces or [self._idle])[-1].line())


class _Count(ProgressColumn):
    """How many of how many; nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}", "progress.download")


@contextmanager
def loading() -> Iterator[None]:
    """While a command's modules are imported: torch alone takes seconds on a busy machine."""
    with Bars(Terminal(stderr=True)) as bars, bars.during("Loading PyTorch"):
        yield


def duration(seconds: float) -> str:
    """>>> duration(40), duration(170), duration(9000)
    ('1 minute', '3 minutes', '2.5 hours')
    """
    minutes = max(1, math.ceil(seconds / 60))
    if minutes < 90:
        return count_noun(minutes, "minute")
    return f"{minutes / 60:.1f} hours"
