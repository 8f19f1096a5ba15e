"""`gapstone check DATA`: scan, print what was found, write it down. DATA is only ever read."""

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
) -> Scan:
    """Scan DATA, print the findings and write them into `out`: scan.json, scan.txt, scan.csv and, where a picture is
    there more than once, scan.html, which shows it.

    ```python
    check("flowers")                       # writes into runs/check-flowers
    check("flowers", Path("findings"))
    ```

    What `compare` would refuse is said in `refused`: a class of a single image, for one.

    Raises DataError where DATA is none of the accepted forms, or where `out` lies inside it.
    """
    console = Terminal()
    at_least(1, workers=workers, max_pixels=max_pixels)
    check_threshold(threshold)
    source = open_source(data)
    folder = out if out is not None else results_folder("check", data)
    _refuse_inside(folder, data)
    check_folder(folder, CHECK)
    # of a kill nothing is left in `out`; decoded images are in the cache
    with (
        stoppable("Stopped before the end of the scan; nothing was written. The same command starts again."),
        Bars(Terminal(stderr=True), idle="Comparing the images with each other") as bars,
    ):
        tell = bars("Looking at the images")
        found = scan(source, workers=workers, max_pixels=max_pixels, progress=tell, threshold=threshold)
        found = replace(found, refused=_refused(source, found))
        with own_folder(folder, CHECK, log=bars.log):
            scan_report.write(found, folder)
            shown = scan_gallery.write(source, found, folder, bars("Drawing duplicates"), max_pixels)
    scan_report.render(found, console)
    console.print(
        f"written: {display(folder / 'scan.txt')}, scan.json, and scan.csv with a row per file"
        + (f"; {display(shown)} shows the duplicates" if shown else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return found


def _refused(source: Source, found: Scan) -> str | None:
    """Why `compare` would refuse DATA: asked of what it asks itself."""
    try:
        split(source, found)
    except DataSplitError as error:
        return str(error)
    return None


def _refuse_inside(out: Path, data: str) -> None:
    root = Path(data).expanduser()
    if data == "digits" or not root.is_dir():
        return
    # the findings would be images' neighbours at the next scan, and the user's folder is not ours to write into
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"the findings would be written into DATA itself ({display(out)}): give --out another folder")
