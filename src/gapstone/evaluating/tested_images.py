"""Which images of DATA a model is tested on: a part of them, none that it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.tested_groups import groups_entry
from gapstone.comparing.verdict import listed
from gapstone.console.formatting import count_noun, display
from gapstone.data.carve import Indices, limited
from gapstone.data.scan import Scan
from gapstone.data.seen_images import seen_images
from gapstone.data.sources import Source, few
from gapstone.data.split import DataSplitError, split, together
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.models.trained_on import TrainedOn
from gapstone.statistics.by_group import too_few
from gapstone.statistics.labels import Labels, class_counts

NOT_LEFT_OUT = dict.fromkeys(("unusable", "trained_on", "duplicates", "limit"), 0)


@dataclass(frozen=True, eq=False)
class TestedImages:
    """The images that are tested, and how many are not, and why."""

    rows: Indices
    """Indices into source.items, ascending."""
    described: str
    """One sentence: which part of DATA they are."""
    part: str
    left_out: dict[str, int]
    """Images of that part that are not tested: unusable (damaged, or two labels), trained_on, duplicates, limit."""
    remarks: tuple[str, ...]
    groups: NDArray[np.int64] | None = None
    """(n,) equal numbers for images that belong together; None where each is by itself."""
    by: str | None = None
    """The option that names the groups; None: they are copies of one picture."""

    def too_few(self, labels: Labels, by_class: bool) -> str | None:
        """Why groups are too few for intervals and verdicts; `labels` are those of the tested images."""
        if self.groups is None or self.by is None:
            return None
        return too_few(self.groups, labels if by_class else None)

    def counted(self, labels: Labels, classes: int, by_class: bool) -> dict[str, Any] | None:
        """The "groups" entry of the data, as in results.json."""
        if self.groups is None:
            return None
        return groups_entry(self.groups, labels, classes, self.by, self.too_few(labels, by_class))


def choose_images(
    request: EvaluateRequest, source: Source, scan: Scan, trained_on: Sequence[tuple[str, TrainedOn]]
) -> TestedImages:
    """The images that all the models are tested on; `trained_on` has each model's name and the images it knows.

    Raises:
        DataSplitError: there are no such images in DATA, or too few that no model was trained on.
    """
    of_part, part, described = _part(request, source, scan)
    usable = np.array([row for row in of_part.tolist() if row not in scan.excluded], np.int64)
    hashes, seen = scan.content_hashes(), np.zeros(len(source), np.bool_)
    known = {
        name: seen_images(source, scan, images.contains(hashes), request.duplicates) for name, images in trained_on
    }
    for of_model in known.values():
        seen |= of_model
    new = usable[~seen[usable]]
    knowing = [name for name, of_model in known.items() if of_model[usable].any()]
    _check_enough(source, usable, new, knowing)
    tested = _one_of_each(new, scan) if request.duplicates == "drop" else new
    chosen = tested if request.limit is None else limited(tested, source.labels, request.limit, 1)
    left_out = {
        "unusable": len(of_part) - len(usable),
        "trained_on": len(usable) - len(new),
        "duplicates": len(new) - len(tested),
        "limit": len(tested) - len(chosen),
    }
    rows, named = np.sort(chosen), source.grouping
    groups = together(source, scan, request.duplicates)[rows]
    alone = named is None and len(np.unique(groups)) == len(groups)
    remarks = tuple(_remarks(source, usable, new, knowing))
    by = None if named is None else named.by
    return TestedImages(rows, described, part, left_out, remarks, None if alone else groups, by)


def _part(request: EvaluateRequest, source: Source, scan: Scan) -> tuple[Indices, str, str]:
    """(indices, the part's name, a sentence)."""
    part, given = request.part, source.splits
    if part == "auto":
        part = "test" if "test" in given else "val" if "val" in given else "all"
    everything = np.arange(len(source))
    if part == "all":
        return everything, part, f"of all {count_noun(len(source), 'file')} of DATA"
    if part in given:
        rows = np.array([i for i, item in enumerate(source.items) if item.split == part], np.int64)
        return rows, part, f"of the {part} images that DATA gives, {count_noun(len(rows), 'file')}"
    if given and part == "test" and "val" not in given:
        given = ()  # all are train images: a test part is chosen from them, as by `train`
    if given or part == "val":
        has = f"DATA gives {' and '.join(given)} images" if given else "DATA gives no split"
        why = "" if given else ", and validation images are chosen anew for each seed"
        raise DataSplitError(f"--split {part}: {has}{why}. Take --split {given[-1] if given else 'test'}, or all.")
    parts = split(source, scan, duplicates=request.duplicates)
    if part == "test":
        return parts.test, part, f"of the test images that train and compare choose by content: {parts.described}"
    rest = np.union1d(parts.train, parts.validation)
    return rest, part, f"of what train and compare leave for training and validation: {parts.described}"


def _check_enough(source: Source, usable: Indices, new: Indices, knowing: Sequence[str]) -> None:
    labels = source.labels[new]
    present = class_counts(labels, len(source.classes)) > 0
    if (labels.any(0) & ~labels.all(0)).any() if source.multi_label else present.sum() > 1:
        return
    if len(usable) == len(new):
        needed = "images with a class and some without it" if source.multi_label else "images of two classes"
        raise DataSplitError(
            f"{count_noun(len(new), 'usable image')} in {display(source.given)!r}: {needed} are needed."
        )
    raise DataSplitError(
        f"{listed(knowing)} {'was' if len(knowing) == 1 else 'were'} trained on {len(usable) - len(new):,} "
        f"of {count_noun(len(usable), 'image')}, and {len(new):,} are left, of "
        f"{count_noun(int(present.sum()), 'class', 'classes')}: how good a model is on images it knows "
        f"says nothing. Give images it was not trained on."
    )


def _remarks(source: Source, usable: Indices, new: Indices, knowing: Sequence[str]) -> list[str]:
    out = len(usable) - len(new)
    if not out:
        return []
    verb = "was" if len(knowing) == 1 else "were"
    sentence = f"{count_noun(out, 'image')} left out, as {listed(knowing)} {verb} trained on"
    sentence += " it or a copy." if out == 1 else " them or on copies."
    before, after = (class_counts(source.labels[rows], len(source.classes)) for rows in (usable, new))
    if gone := np.flatnonzero((before > 0) & (after == 0)).tolist():
        sentence += f" None is left of {few([source.classes[k] for k in gone])}."
    return [sentence]


def _one_of_each(rows: Indices, scan: Scan) -> Indices:
    _, first = np.unique(scan.group[rows], return_index=True)
    return np.sort(rows[first])
