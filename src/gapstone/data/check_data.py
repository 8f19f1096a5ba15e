"""`gapstone check DATA` scans the images, prints the findings and writes them to a folder; DATA is only read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from gapstone.console.formatting import display
from gapstone.console.options import at_least, results_folder
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data import scan_gallery, scan_report
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.open_source import check_outside_data, open_source
from gapstone.data.python_objects import described
from gapstone.data.scan import Scan, scan
from gapstone.data.sources import Source
from gapstone.data.split import DataSplitError, split
from gapstone.images.load import MAX_PIXELS
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import CHECK, check_folder, own_folder


def check(
    data: Any,
    out: Path | None = None,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    threshold: float | None = None,
    group: str | None = None,
    group_pattern: str | None = None,
    multi_label: bool = False,
    console: Console | None = None,
) -> Scan:
    """Scan DATA, print the findings and write them into `out`.

    The files are scan.json, scan.txt, scan.csv and, if there are duplicates, scan.html, which shows them.

    ```python
    check("flowers")                       # writes into runs/check-flowers
    check("flowers", Path("findings"))
    ```

    `console` shows findings and progress; None: on standard output and standard error.

    `Scan.refused` says why `compare` would refuse the images, for example because a class has a single image.

    Raises:
        ValueError: DATA has none of the accepted forms, or `out` lies inside it.
    """
    at_least(1, workers=workers, max_pixels=max_pixels)
    check_threshold(threshold)
    folder = out if out is not None else results_folder("check", described(data))
    # the next scan would find the findings among the images, and gapstone does not write into the user's folder
    check_outside_data(folder, data)
    check_folder(folder, CHECK)
    # a killed scan leaves nothing in `out`; the facts of the images are in the cache
    with (
        stoppable("Stopped before the end of the scan; nothing was written. The same command starts again."),
        Bars(console or Terminal(stderr=True), idle="Comparing the images with each other") as bars,
    ):
        source = open_source(data, group, group_pattern, multi_label, bars)
        progress = bars("Looking at the images")
        result = scan(source, workers=workers, max_pixels=max_pixels, progress=progress, threshold=threshold)
        result = replace(result, refused=_why_refused(source, result))
        with own_folder(folder, CHECK, log=bars.log):
            scan_report.write(result, folder)
            gallery = scan_gallery.write(source, result, folder, bars("Drawing duplicates"), max_pixels)
    shown = console or Terminal()
    scan_report.render(result, shown)
    shown.print(
        f"written: {display(folder / 'scan.txt')}, scan.json, and scan.csv with a row per file"
        + (f"; {display(gallery)} shows the duplicates" if gallery else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return result


def _why_refused(source: Source, result: Scan) -> str | None:
    """Why `compare` would refuse DATA; None if it would not."""
    try:
        split(source, result)
    except DataSplitError as error:
        return str(error)
    return None
