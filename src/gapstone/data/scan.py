"""scan(source) = what is in the images, before anything is learned from them: every file looked at once, none changed.

Which files are no images and why; which pictures are there twice, under two labels, or on both sides of a split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gapstone.data.image_info import ImageInfo
from gapstone.data.inspect_files import TIME_LIMIT, Progress, inspect_files
from gapstone.data.near_duplicates import NearDuplicates
from gapstone.data.sources import SPLITS, Source
from gapstone.images.intensity_range import Ranges, decide
from gapstone.images.load import MAX_PIXELS
from gapstone.storage.cache_folder import cache_folder

DEFAULT_CACHE: Final = Path("<the user's cache>")  # stands for cache_folder(), asked when it is needed


@dataclass(frozen=True)
class Scan:
    """What `scan` found. Images are meant by their index in `source.items`; `names[i]` says which file that is."""

    given: str
    kind: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[str | None, ...]  # per item
    facts: tuple[ImageInfo, ...]  # per item
    exact_duplicates: list[list[int]]  # the same pixels (in the same size)
    near_duplicates: list[list[int]]  # the same picture re-encoded, resized, brightened or lightly cropped
    group: NDArray[np.int64]  # per item: exact and near duplicates share a number
    notes: tuple[str, ...] = field(default=())
    refused: str | None = None
    """Why `compare` and `train` would refuse these images, where that was asked (`gapstone check`)."""

    @property
    def files(self) -> int:
        """The number of images looked at, readable or not."""
        return len(self.facts)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,) can item i be used?"""
        return np.fromiter((f.reason is None for f in self.facts), np.bool_, len(self.facts))

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(name, reason) of every file that cannot be used."""
        return [(name, f.reason) for name, f in zip(self.names, self.facts, strict=True) if f.reason is not None]

    @property
    def conflicts(self) -> list[list[int]]:
        """Exact duplicates that stand under more than one label."""
        return [g for g in self.exact_duplicates if len(set(self.labels[g].tolist())) > 1]

    @property
    def near_conflicts(self) -> list[list[int]]:
        """Near duplicates under more than one label: worth a look, but not left out, for they differ."""
        return [g for g in self.near_duplicates if len(set(self.labels[g].tolist())) > 1]

    @property
    def across_splits(self) -> list[list[int]]:
        """Groups of exact or near duplicates that stand in more than one of the given splits."""
        return [g for g in self.shared_groups() if len({self.splits[i] for i in g}) > 1]

    def shared_groups(self) -> list[list[int]]:
        """The groups with more than one image, exact and near duplicates together."""
        order = np.argsort(self.group, kind="stable")
        cuts = np.flatnonzero(np.diff(self.group[order])) + 1
        return sorted(part.tolist() for part in np.split(order, cuts) if len(part) > 1)

    @property
    def excluded(self) -> set[int]:
        """What a comparison leaves out: unreadable files, and every copy of a picture that has two labels.

        Such a picture can teach nothing and test nothing: whatever is answered is right once and wrong once.
        """
        out = {i for i, f in enumerate(self.facts) if f.reason is not None}
        return out.union(*self.conflicts)

    @property
    def channels(self) -> int:
        """1 where every readable image is gray in fact (three equal channels count as gray), else 3.

        Equal channels hold nothing that one does not; a single colour picture makes all of them colour.
        """
        return 1 if all(f.gray for f in self.facts if f.reason is None) else 3

    @property
    def ranges(self) -> Ranges:
        """What is black and white in the pictures of more than 8 bits: one range for all of them."""
        return decide(f.spread for f in self.facts if f.reason is None and f.spread is not None)

    def size_counts(self) -> Counter[tuple[int, int]]:
        """(width, height) → how many readable images have it."""
        return Counter(f.size for f in self.facts if f.reason is None)

    def mode_counts(self) -> Counter[str]:
        """Pillow's mode → how many readable images have it."""
        return Counter(f.mode for f in self.facts if f.reason is None)

    def class_counts(self) -> dict[str, list[int]]:
        """Images per class that a comparison can use: {"train": [per class], …}, or {"all": […]} without splits."""
        out = self.excluded
        given: list[str] = [s for s in SPLITS if s in self.splits]
        counts = {split: [0] * len(self.classes) for split in given or ["all"]}
        for i, (label, split) in enumerate(zip(self.labels.tolist(), self.splits, strict=True)):
            if i not in out:
                counts[split or "all"][label] += 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """The "scan" entry of results.json, as docs/results.md describes it."""

        def names(groups: Sequence[Sequence[int]]) -> list[list[str]]:
            return [[self.names[i] for i in g] for g in groups]

        return {
            "files": self.files,
            "readable": int(self.readable.sum()),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "exact_duplicates": names(self.exact_duplicates),
            "near_duplicates": names(self.near_duplicates),
            "conflicts": [
                {"names": [self.names[i] for i in g], "labels": [self.classes[self.labels[i]] for i in g]}
                for g in self.conflicts
            ],
            "across_splits": [
                {"names": [self.names[i] for i in g], "splits": [self.splits[i] for i in g]} for g in self.across_splits
            ],
            "excluded": len(self.excluded),
            "sizes": {f"{w}x{h}": n for (w, h), n in self.size_counts().most_common(20)},
            "modes": dict(self.mode_counts().most_common()),
            "ranges": self.ranges.to_json(),
            "notes": list(self.notes),
            "refused": self.refused,
        }


def scan(
    source: Source,
    *,
    workers: int | None = None,
    cache: Path | None = DEFAULT_CACHE,
    progress: Progress | None = None,
    max_pixels: int = MAX_PIXELS,
    time_limit: float = TIME_LIMIT,
    threshold: float | None = None,
) -> Scan:
    """Look at every image of a source once; nothing in the source is written or changed.

    ```python
    found = scan(open_source("flowers"))
    found.unreadable              # [('rose/page.png', 'not an image: an HTML page (what a failed download leaves)')]
    found.conflicts               # [[812, 2931]]: one picture, two labels
    print(scan_report.text(found))
    ```

    workers: processes that decode; None for one per core. cache: a folder, or None for no cache. progress: called with
    (done, all). time_limit: seconds for one file. A file that crashes or stalls its process is listed with that reason.
    threshold: the correlation from which two images are near duplicates; None for one that suits the images (`near`).
    """
    if cache is DEFAULT_CACHE:
        cache = cache_folder()
    facts, thumbnails, notes = inspect_files(source, workers, cache, progress, max_pixels, time_limit)
    exact, near, group = _groups(facts, thumbnails, threshold)
    return Scan(
        given=source.given,
        kind=source.kind,
        classes=source.classes,
        names=tuple(i.name for i in source.items),
        labels=source.labels,
        splits=tuple(i.split for i in source.items),
        facts=tuple(facts),
        exact_duplicates=exact,
        near_duplicates=near,
        group=group,
        notes=(*source.notes, *notes),
    )


def _groups(
    facts: list[ImageInfo], thumbnails: NDArray[np.uint8], threshold: float | None
) -> tuple[list[list[int]], list[list[int]], NDArray[np.int64]]:
    """(exact groups, groups that hold near duplicates, group number per item)."""
    same: dict[bytes, list[int]] = {}
    for i, f in enumerate(facts):
        if f.reason is None:
            same.setdefault(f.pixels, []).append(i)
    exact = [g for g in same.values() if len(g) > 1]
    # one of each picture: copies would only repeat the work
    first = np.asarray([g[0] for g in same.values()], np.int64)
    sizes = np.asarray([facts[i].size for i in first], np.int64).reshape(-1, 2)
    group = np.arange(len(facts))
    if len(first) > 1:
        group[first] = first[NearDuplicates(thumbnails[first], sizes, threshold).groups()]
    pictures: dict[int, list[int]] = {}  # different ones, by the group they are in
    for i in first.tolist():
        pictures.setdefault(int(group[i]), []).append(i)
    for copies in exact:
        group[copies] = group[copies[0]]
    near = {g for g, different in pictures.items() if len(different) > 1}
    members: dict[int, list[int]] = {g: [] for g in near}
    for i, g in enumerate(group.tolist()):
        if g in near:
            members[g].append(i)
    return exact, sorted(members.values()), group
