"""Progress a person can follow: bars on a terminal, a plain line now and then elsewhere."""

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

EVERY = 20.0  # seconds between plain lines


class Bars:
    """Named pieces of work, each told how far it is.

    >>> with Bars(console) as bars:
    ...     tell = bars("Decoding images")
    ...     tell(10, 100)
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Progress | None = None
        if console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("{task.fields[news]}"), console=console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> "Bars":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, what: str) -> Callable[..., None]:
        """A function of (done, total, news="") for this piece of work."""
        if self.live:
            return self._bar(self.live, what)
        return self._lines(what)

    def _bar(self, live: Progress, what: str) -> Callable[..., None]:
        task: TaskID | None = None

        def tell(done: int, total: int, news: str = "") -> None:
            nonlocal task
            if task is None:
                task = live.add_task(what, total=total, news=news)
            live.update(task, completed=done, total=total, news=news)
            if done >= total:
                live.remove_task(task)
                task = None

        return tell

    def _lines(self, what: str) -> Callable[..., None]:
        last = time.monotonic()

        def tell(done: int, total: int, news: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= EVERY:
                last = now
                self.say(f"{what}: {done} of {total}" + (f" ({news})" if news else ""))

        return tell


def duration(seconds: float) -> str:
    """>>> duration(40), duration(170), duration(9000)
    ('1 minute', '3 minutes', '2.5 hours')
    """
    minutes = max(1, math.ceil(seconds / 60))
    if minutes < 90:
        return f"{minutes} minute{'s' * (minutes > 1)}"
    return f"{minutes / 60:.1f} hours"
