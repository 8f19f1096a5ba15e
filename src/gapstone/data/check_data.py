"""`gapstone check DATA` scans the images, prints the findings and writes them to a folder; DATA is only read."""

from dataclasses import replace
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.console.options import at_least, results_folder
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data import scan_gallery, scan_report
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.open_source import open_source
from gapstone.data.scan import Scan, scan
from gapstone.data.sources import DataError, Source
from gapstone.data.split import DataSplitError, split
from gapstone.images.load import MAX_PIXELS
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import CHECK, check_folder, own_folder


def check(
    data: str,
    out: Path | None = None,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    threshold: float | None = None,
    group: str | None = None,
    group_pattern: str | None = None,
    multi_label: bool = False,
) -> Scan:
    """Scan DATA, print the findings and write them into `out`.

    The files are scan.json, scan.txt, scan.csv and, if there are duplicates, scan.html, which shows them.

    ```python
    check("flowers")                       # writes into runs/check-flowers
    check("flowers", Path("findings"))
    ```

    `Scan.refused` says why `compare` would refuse the images, for example because a class has a single image.

    Raises:
        DataError: DATA has none of the accepted forms, or `out` lies inside it.
    """
    console = Terminal()
    at_least(1, workers=workers, max_pixels=max_pixels)
    check_threshold(threshold)
    source = open_source(data, group, group_pattern, multi_label)
    folder = out if out is not None else results_folder("check", data)
    _refuse_inside(folder, data)
    check_folder(folder, CHECK)
    # a killed scan leaves nothing in `out`; the facts of the images are in the cache
    with (
        stoppable("Stopped before the end of the scan; nothing was written. The same command starts again."),
        Bars(Terminal(stderr=True), idle="Comparing the images with each other") as bars,
    ):
        progress = bars("Looking at the images")
        result = scan(source, workers=workers, max_pixels=max_pixels, progress=progress, threshold=threshold)
        result = replace(result, refused=_why_refused(source, result))
        with own_folder(folder, CHECK, log=bars.log):
            scan_report.write(result, folder)
            gallery = scan_gallery.write(source, result, folder, bars("Drawing duplicates"), max_pixels)
    scan_report.render(result, console)
    console.print(
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


def _refuse_inside(out: Path, data: str) -> None:
    root = Path(data).expanduser()
    if data == "digits" or not root.is_dir():
        return
    # the next scan would find the findings among the images, and gapstone does not write into the user's folder
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"the findings would be written into DATA itself ({display(out)}): give --out another folder")
