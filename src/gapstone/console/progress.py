"""Shows progress: bars on a terminal, otherwise a plain line from time to time."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from gapstone.console.formatting import count_noun, display
from gapstone.console.terminal import Terminal

FIRST = 0.8  # seconds without output after which the first plain line is printed
EVERY = 8.0  # seconds without output after which each later one is printed


@dataclass(eq=False)
class _Task:
    """A piece of work and its progress."""

    name: str
    total: int | None = None
    done: int = 0
    news: str = ""
    start: float = field(default_factory=time.monotonic)
    bar: TaskID | None = None

    def line(self) -> str:
        if self.total is None:
            return f"{self.name} … ({time.monotonic() - self.start:.0f} s)"
        return f"{self.name}: {self.done:,} of {self.total:,}" + (f" ({self.news})" if self.news else "")


class Bars:
    """Shows the progress of named tasks.

    >>> with Bars(console) as bars:
    ...     progress = bars("Decoding images")
    ...     progress(10, 100)
    ...     with bars.during("Loading the model"):
    ...         model = load(path)

    While no task is running, `idle` is shown, so that the output is never silent for long.
    """

    def __init__(self, console: Console, idle: str = "At work") -> None:
        self.console = console
        self.live: Progress | None = None
        self._tasks: list[_Task] = []
        self._announced: _Task | None = None  # has a name, but no progress yet
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._printed = False
        self._line_thread: threading.Thread | None = None
        self._idle = _Task(idle)
        if console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), _Count(), TimeElapsedColumn(),
                TextColumn("{task.fields[news]}", markup=False), console=console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> "Bars":
        if self.live:
            self._update_bars()
            self.live.start()
        else:
            self._line_thread = threading.Thread(target=self._print_lines, daemon=True)
            self._line_thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self.live:
            self.live.stop()
        if self._line_thread:
            self._line_thread.join()

    def log(self, text: str) -> None:
        """Print a line; bars stay below it."""
        with self._lock:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
            self.console.file.flush()  # so that a redirected output has the line now, not when the buffer is full
            Terminal.last = time.monotonic()

    def __call__(self, name: str) -> Callable[..., None]:
        """Announce a task; return the function of (done, total, news="") that reports its progress."""
        task = _Task(display(name))
        with self._lock:
            if self._announced is not None:
                self._remove(self._announced)
            self._announced = task
            self._add(task)

        def report(done: int, total: int, news: str = "") -> None:
            with self._lock:
                if self._announced is task:
                    self._announced = None
                task.done, task.total, task.news = done, total, display(news)
                if done >= total:
                    self._remove(task)
                else:
                    self._add(task)

        return report

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Show a task whose progress is unknown."""
        task = _Task(display(name))
        with self._lock:
            self._add(task)
        try:
            yield
        finally:
            with self._lock:
                self._remove(task)

    def _add(self, task: _Task) -> None:
        if task not in self._tasks:
            task.start = time.monotonic()
            self._tasks.append(task)
        self._update_bars()

    def _remove(self, task: _Task) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
            if self.live and task.bar is not None:
                self.live.remove_task(task.bar)
                task.bar = None
        self._update_bars()

    def _update_bars(self) -> None:
        """On a terminal, show a bar for each task, or the idle bar."""
        if not self.live:
            return
        for task in (self._idle, *self._tasks):
            if task.bar is None:
                task.bar = self.live.add_task(task.name, total=task.total, news=task.news)
            if task is not self._idle:
                self.live.update(task.bar, completed=task.done, total=task.total, news=task.news)
        assert self._idle.bar is not None
        self.live.update(self._idle.bar, visible=not self._tasks)

    def _print_lines(self) -> None:
        """Without a terminal, print a line whenever nothing was printed for a while."""
        while not self._end.wait(0.2):
            with self._lock:
                if time.monotonic() - Terminal.last >= (EVERY if self._printed else FIRST):
                    self._printed = True
                    # the innermost of nested tasks says most
                    self.log((self._tasks or [self._idle])[-1].line())


class _Count(ProgressColumn):
    """How many of how many are done; empty if the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}", "progress.download")


@contextmanager
def loading() -> Iterator[None]:
    """Show that a command's modules are being imported: torch alone takes seconds on a busy machine."""
    with Bars(Terminal(stderr=True)) as bars, bars.during("Loading PyTorch"):
        yield


def duration(seconds: float) -> str:
    """Seconds in a readable unit, rounded up.

    >>> duration(36.2), duration(170), duration(9000)
    ('40 seconds', '3 minutes', '2.5 hours')
    """
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds / 5)) * 5} seconds"
    minutes = math.ceil(seconds / 60)
    if minutes < 90:
        return count_noun(minutes, "minute")
    return f"{minutes / 60:.1f} hours"
