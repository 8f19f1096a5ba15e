"""`gs.check`: what in images would spoil a comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapstone.console.formatting import count_noun, display
from gapstone.console.options import results_folder
from gapstone.data.check_data import check as run
from gapstone.data.python_objects import described
from gapstone.data.scan import Scan
from gapstone.data.scan_report import rows
from gapstone.images.load import MAX_PIXELS
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.library.tables import pandas
from gapstone.statistics.labels import class_counts

if TYPE_CHECKING:
    import pandas as pd


class CheckedImages:
    """What `gs.check` found in images, by their names.

    Examples:
        >>> found = gs.check("photos/")
        >>> found.refused is None
        True
        >>> found.counts
        {'cat': …, 'dog': …}
        >>> found.frame().query("outcome != 'used'")  # with pandas

    Args:
        out: The folder with scan.txt, scan.json and scan.csv.
        scan: All of it by the images' numbers.
    """

    def __init__(self, out: Path, scan: Scan) -> None:
        self.out, self.scan = out, scan

    @property
    def refused(self) -> str | None:
        """Why `gs.compare` and `gs.train` would refuse them; None: they would not."""
        return self.scan.refused

    @property
    def counts(self) -> dict[str, int]:
        """Of each class, how many images can be read."""
        counts = class_counts(self.scan.labels[self.scan.readable], len(self.scan.classes))
        return dict(zip(self.scan.classes, counts.tolist(), strict=True))

    @property
    def unreadable(self) -> dict[str, str]:
        """Images that cannot be used, and why."""
        return dict(self.scan.unreadable)

    @property
    def duplicates(self) -> list[list[str]]:
        """Groups of images with the same pixels."""
        return self._named(self.scan.exact_duplicates)

    @property
    def near_duplicates(self) -> list[list[str]]:
        """Groups of one image that was packed, resized, brightened or lightly cropped anew."""
        return self._named(self.scan.near_duplicates)

    @property
    def conflicts(self) -> list[list[str]]:
        """Of the duplicates, those with more than one label, which a comparison leaves out."""
        return self._named(self.scan.conflicts)

    @property
    def left_out(self) -> list[str]:
        """All images that a comparison leaves out."""
        return [self.scan.names[i] for i in sorted(self.scan.excluded)]

    def _named(self, groups: list[list[int]]) -> list[list[str]]:
        return [[self.scan.names[i] for i in group] for group in groups]

    def frame(self) -> "pd.DataFrame":
        """A pandas DataFrame of a row for each image.

        Examples:
            >>> gs.check("photos/").frame().groupby("outcome").size()

        Returns:
            The columns of scan.csv: `name`, `class` (of several labels `cat|dog`), `split`, `outcome` (`used`,
            `unreadable`, `two labels`), `reason`, `width`, `height`, `mode`, `group` (the same number for copies of a
            picture), `notes`, `sha256`.

        Raises:
            ImportError: pandas is not installed.
        """
        titles, *cells = rows(self.scan)
        return pandas().DataFrame(cells, columns=titles)

    def __repr__(self) -> str:
        scan = self.scan
        classes = count_noun(len(scan.classes), "class", "classes")
        lines = [f"{display(scan.given)}: {count_noun(scan.files, 'image')} of {classes}"]
        for groups, what in ((scan.exact_duplicates, "exact"), (scan.near_duplicates, "near")):
            lines += [f"{count_noun(len(groups), 'group')} of {what} duplicates"] if groups else []
        lines += [f"{count_noun(len(scan.unreadable), 'image')} cannot be read"] if scan.unreadable else []
        lines += [f"{count_noun(len(scan.conflicts), 'picture')} with several labels"] if scan.conflicts else []
        lines += [f"left out of a comparison: {count_noun(len(scan.excluded), 'image')}"] if scan.excluded else []
        lines += [f"cannot be compared as it is: {scan.refused}"] if scan.refused else []
        return "\n".join([*lines, display(self.out / "scan.txt")])


def check(
    data: Any,
    *,
    out: str | Path | None = None,
    groups: str | None = None,
    group_pattern: str | None = None,
    multi_label: bool = False,
    duplicate_threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: bool = True,
) -> CheckedImages:
    """Scan images for what spoils a comparison: unreadable files, duplicates, one picture with two labels.

    Examples:
        >>> found = gs.check("photos/")
        >>> found.unreadable, found.duplicates
        ({}, [])

    Nothing of yours is changed.

    Args:
        data: labelled images, as `gs.compare` takes them.
        out: the folder of scan.txt, scan.json, scan.csv and, where there are duplicates, scan.html; None:
            `runs/check-NAME`.
        groups: the column that says which images belong together, such as those of one patient.
        group_pattern: a regular expression that finds the same in the images' paths.
        multi_label: an image may have several labels, also where nothing in `data` shows it.
        duplicate_threshold: likeness (correlation, 0.8 to 1) from which two pictures are one.
        max_pixels: larger images are listed, not decoded.
        workers: processes that read images; None: one per core.
        progress: show bars and the findings.

    Returns:
        The findings, with `refused` where `gs.compare` would refuse the images.

    Raises:
        ValueError: `data` has none of the accepted forms, or `out` lies inside it.
    """
    folder = Path(out) if out is not None else results_folder("check", described(data))
    console = console_of(progress)
    with errors_in_python():
        scan = run(data, folder, workers, max_pixels, duplicate_threshold, groups, group_pattern, multi_label, console)
    return CheckedImages(folder, scan)
