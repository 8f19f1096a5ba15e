"""`gapstone check DATA`: scan, print what was found, write it down. DATA is only ever read."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gapstone.storage.folder import CHECK, own_folder

from .load import MAX_PIXELS
from .names import display
from .scan import Scan, scan
from .sources import DataError, Source, open_source

if TYPE_CHECKING:
    from rich.console import Console


def check(data: str, out: Path | None = None, workers: int | None = None, max_pixels: int = MAX_PIXELS) -> Scan:
    """Scan DATA, print the findings and write scan.json, scan.txt and scan.csv into `out`.

    ```python
    check("flowers")                       # writes into runs/check-flowers
    check("flowers", Path("findings"))
    ```

    Raises DataError where DATA is none of the accepted forms, or where `out` lies inside it.
    """
    from rich.console import Console

    console = Console()
    source = open_source(data)
    folder = out if out is not None else Path("runs") / f"check-{_slug(data)}"
    _refuse_inside(folder, data)
    with own_folder(folder, CHECK):
        found = _scan_with_progress(source, console, workers, max_pixels)
        found.render(console)
        found.write(folder)
    console.print(
        f"written: {display(folder / 'scan.txt')}, scan.json, and scan.csv with a row per file",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return found


def _scan_with_progress(source: Source, console: "Console", workers: int | None, max_pixels: int) -> Scan:
    if console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("looking at the images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=len(source))
            return scan(
                source,
                workers=workers,
                max_pixels=max_pixels,
                progress=lambda done, count: bar.update(task, completed=done, total=count),
            )
    return scan(source, workers=workers, max_pixels=max_pixels, progress=_Lines())


class _Lines:
    """Progress where there is no terminal: a line every ten seconds, so that a log stays short."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, done: int, count: int) -> None:
        if time.monotonic() - self.last >= 10:
            self.last = time.monotonic()
            print(f"looked at {done:,} of {count:,} images", file=sys.stderr, flush=True)


def _slug(data: str) -> str:
    """A folder name made of what was given: letters of any script, digits, dots and dashes."""
    name = display(Path(data).absolute().name or "data")
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"


def _refuse_inside(out: Path, data: str) -> None:
    root = Path(data).expanduser()
    if data == "digits" or not root.is_dir():
        return
    # the findings would be images' neighbours at the next scan, and the user's folder is not ours to write into
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"the findings would be written into DATA itself ({display(out)}): give --out another folder")
