"""`scan` looks at every image of a source once, before training, without changing any file.

It reports which files are no images and why, and which images occur twice, under two labels, or in two splits.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.data.image_info import ImageInfo
from gapstone.data.inspect_files import TIME_LIMIT, Progress, inspect_files
from gapstone.data.label_forms import SEPARATOR
from gapstone.data.near_duplicates import NearDuplicates
from gapstone.data.several_labels import SeveralLabels
from gapstone.data.sources import SPLITS, DataError, Grouping, Source
from gapstone.images.as_picture import GRAY_OR_RGB, same_channels
from gapstone.images.intensity_range import Ranges, decide
from gapstone.images.load import MAX_PIXELS
from gapstone.statistics.labels import class_sets, is_multi_label, of_class
from gapstone.storage.cache_folder import cache_folder

DEFAULT_CACHE: Final = Path("<the user's cache>")  # stands for cache_folder(), which is called when a scan begins


@dataclass(frozen=True)
class Scan:
    """The result of `scan`. An image is given by its index in `source.items`; `names[i]` is its file."""

    given: str
    kind: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[Any]  # (N,) int64, or (N, K) bool if the images are multi-label
    splits: tuple[str | None, ...]  # per item
    facts: tuple[ImageInfo, ...]  # per item
    exact_duplicates: list[list[int]]  # groups with the same size and pixels
    near_duplicates: list[list[int]]  # groups of an image re-encoded, resized, brightened or lightly cropped
    group: NDArray[np.int64]  # per item: exact and near duplicates share a number
    notes: tuple[str, ...] = field(default=())
    grouping: Grouping | None = None
    """Which images belong together, where somebody said so."""
    refused: str | None = None
    """Why `compare` and `train` would refuse these images; only `gapstone check` sets it."""

    @property
    def files(self) -> int:
        """The number of files, readable or not."""
        return len(self.facts)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,) whether item i can be used."""
        return np.fromiter((f.reason is None for f in self.facts), np.bool_, len(self.facts))

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(name, reason) of each file that cannot be used."""
        return [(name, f.reason) for name, f in zip(self.names, self.facts, strict=True) if f.reason is not None]

    @property
    def conflicts(self) -> list[list[int]]:
        """Groups of exact duplicates with more than one label, or not all with the same labels."""
        return [g for g in self.exact_duplicates if self.count_labels(g) > 1]

    @property
    def near_conflicts(self) -> list[list[int]]:
        """Groups of near duplicates with more than one label; they are not left out, because the images differ."""
        return [g for g in self.near_duplicates if self.count_labels(g) > 1]

    @cached_property
    def label_sets(self) -> list[tuple[int, ...]]:
        """The labels of each item; one unless the images are multi-label."""
        return class_sets(self.labels)

    def label_text(self, i: int) -> str:
        """The labels of item i as a table writes them: "cat", "cat|dog", or nothing."""
        return SEPARATOR.join(self.classes[k] for k in self.label_sets[i])

    def count_labels(self, group: Sequence[int]) -> int:
        """How many labels (or sets of labels) the images of a group have."""
        return len({self.label_sets[i] for i in group})

    @property
    def hints(self) -> tuple[str, ...]:
        """What to do about one picture under several labels."""
        if not self.conflicts or self.kind in ("digits", "idx"):
            return ()
        pictures = count_noun(len(self.conflicts), "picture")
        files = sum(map(len, self.conflicts))
        if is_multi_label(self.labels):
            what = "with different sets of labels left out: give copies of a picture the same labels"
            return (f"{pictures} of {files:,} files {what}.",)
        own_files = self.kind in ("folder", "split folder", "csv", "frame")
        joins = " takes its files for one image with all" if own_files else ", with labels (N, K) of 0 and 1"
        return (
            f"{pictures} under several labels, of {files:,} files, left out. If that is no mistake, as an image may "
            f"have several labels: --multi-label{joins}.",
        )

    @property
    def across_splits(self) -> list[list[int]]:
        """Groups of exact or near duplicates in more than one of the given splits."""
        return [g for g in self.shared_groups() if len({self.splits[i] for i in g}) > 1]

    def content_hashes(self) -> NDArray[np.int64]:
        """(N,) eight bytes of the hash of each item's size and pixels, whatever file they are in; 0: unreadable."""
        first = b"".join(fact.pixels[:8] or bytes(8) for fact in self.facts)
        return np.frombuffer(first, "<i8").astype(np.int64)

    def shared_groups(self) -> list[list[int]]:
        """The groups with more than one image, exact and near duplicates together."""
        order = np.argsort(self.group, kind="stable")
        cuts = np.flatnonzero(np.diff(self.group[order])) + 1
        return sorted(part.tolist() for part in np.split(order, cuts) if len(part) > 1)

    @property
    def excluded(self) -> set[int]:
        """What a comparison leaves out: unreadable files, and all copies of an image with two labels.

        Such an image is useless for training and testing: any prediction is right for one copy and wrong for the other.
        """
        out = {i for i, f in enumerate(self.facts) if f.reason is not None}
        return out.union(*self.conflicts)

    @property
    def channels(self) -> int:
        """1 if every readable image is gray (or has three equal channels); 3 for RGB, or as many as they have."""
        readable = [fact for fact in self.facts if fact.reason is None]
        if readable and readable[0].channels not in GRAY_OR_RGB:
            return readable[0].channels
        return 1 if all(fact.gray for fact in readable) else 3

    def check_channels(self, taken: int) -> None:
        """Raises DataError if a model that takes images of so many channels cannot see these."""
        if not same_channels(self.channels, taken):
            raise DataError(
                f"DATA {display(self.given)!r} has images of {count_noun(self.channels, 'channel')}, and the model "
                f"takes images of {taken}: give it images of the channels that it was trained on, in their order."
            )

    @property
    def ranges(self) -> Ranges:
        """The values that become black and white in images of more than 8 bits, the same for all of them."""
        return decide(f.spread for f in self.facts if f.reason is None and f.spread is not None)

    def size_counts(self) -> Counter[tuple[int, int]]:
        """(width, height) → number of readable images of that size."""
        return Counter(f.size for f in self.facts if f.reason is None)

    def mode_counts(self) -> Counter[str]:
        """Pillow's mode → number of readable images of that mode."""
        return Counter(f.mode for f in self.facts if f.reason is None)

    def class_counts(self) -> dict[str, list[int]]:
        """Number of usable images per class: {"train": [per class], …}, or {"all": […]} without splits."""
        out = self.excluded
        given: list[str] = [s for s in SPLITS if s in self.splits]
        counts = {split: [0] * len(self.classes) for split in given or ["all"]}
        for i, (labels, split) in enumerate(zip(self.label_sets, self.splits, strict=True)):
            if i not in out:
                for label in labels:
                    counts[split or "all"][label] += 1
        return counts

    def several_labels(self) -> SeveralLabels | None:
        """How many labels the usable images have, and which occur together; None unless they are multi-label."""
        if not is_multi_label(self.labels):
            return None
        used = np.setdiff1d(np.arange(self.files), list(self.excluded))
        return SeveralLabels.of(self.labels[used], self.classes)

    def to_json(self) -> dict[str, Any]:
        """The "scan" entry of results.json, as docs/results.md describes it."""

        def names_of(groups: Sequence[Sequence[int]]) -> list[list[str]]:
            return [[self.names[i] for i in g] for g in groups]

        several = self.several_labels()
        return {
            "files": self.files,
            "readable": int(self.readable.sum()),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "exact_duplicates": names_of(self.exact_duplicates),
            "near_duplicates": names_of(self.near_duplicates),
            "conflicts": [
                {"names": [self.names[i] for i in g], "labels": [self.label_text(i) for i in g]} for g in self.conflicts
            ],
            "across_splits": [
                {"names": [self.names[i] for i in g], "splits": [self.splits[i] for i in g]} for g in self.across_splits
            ],
            "excluded": len(self.excluded),
            "sizes": {f"{w}x{h}": n for (w, h), n in self.size_counts().most_common(20)},
            "modes": dict(self.mode_counts().most_common()),
            "ranges": self.ranges.to_json(),
            "notes": list(self.notes),
            "groups": None if self.grouping is None else self._groups(self.grouping),
            "refused": self.refused,
        } | ({} if several is None else {"several_labels": several.to_json()})

    def _groups(self, grouping: Grouping) -> dict[str, Any]:
        """The "groups" entry: how many there are of which size, and which are in more than one class or split."""
        _, sizes = np.unique(grouping.numbers, return_counts=True)
        return {
            "by": grouping.by,
            "groups": len(sizes),
            "images": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())],
            "ungrouped": sum(name is None for name in grouping.names),
            "of_class": [len(np.unique(grouping.numbers[of_class(self.labels, k)])) for k in range(len(self.classes))],
            "several_classes": grouping.shared_by(self.label_sets),
            "across_splits": grouping.shared_by(self.splits),
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
    """Look at every image of a source once, without changing any file.

    ```python
    result = scan(open_source("flowers"))
    result.unreadable             # [('rose/page.png', 'not an image: an HTML page (what a failed download leaves)')]
    result.conflicts              # [[812, 2931]]: the same image under two labels
    print(scan_report.text(result))
    ```

    A file that crashes or stalls the process that decodes it is unreadable, with that reason.

    `threshold` is the correlation from which two images are near duplicates; None to choose it by the images
    (`near_duplicates`). `time_limit` is in seconds per file. Images with more than `max_pixels` are unreadable.
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
        notes=(*source.notes, *source.hints, *notes),
        grouping=source.grouping,
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
    # one copy of each image, to save work
    first = np.asarray([g[0] for g in same.values()], np.int64)
    sizes = np.asarray([facts[i].size for i in first], np.int64).reshape(-1, 2)
    group = np.arange(len(facts))
    if len(first) > 1:
        group[first] = first[NearDuplicates(thumbnails[first], sizes, threshold).groups()]
    different: dict[int, list[int]] = {}  # by group, one copy of each of its images
    for i in first.tolist():
        different.setdefault(int(group[i]), []).append(i)
    for copies in exact:
        group[copies] = group[copies[0]]
    near = {g for g, images in different.items() if len(images) > 1}
    members: dict[int, list[int]] = {g: [] for g in near}
    for i, g in enumerate(group.tolist()):
        if g in near:
            members[g].append(i)
    return exact, sorted(members.values()), group


def content_digest(source: Source, scan: Scan, used: NDArray[np.intp]) -> str:
    """Sixteen hex digits of a hash of the content and label of every image used."""
    digest = hashlib.sha256(json.dumps(source.classes).encode())
    for i in used:
        item = source.items[i]
        digest.update(json.dumps([item.name, source.hashed_label(i), scan.facts[i].sha256]).encode())
    return digest.hexdigest()[:16]
