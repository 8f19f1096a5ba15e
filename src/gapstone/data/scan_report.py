"""Reports a scan: as a page of text, the same page in colour on a terminal, and a table with a row per file."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gapstone.console.formatting import count_noun, display
from gapstone.data.scan import Scan
from gapstone.data.sources import Grouping
from gapstone.images.as_picture import GRAY_OR_RGB
from gapstone.images.intensity_range import UNDECIDED
from gapstone.statistics.labels import is_multi_label, of_class
from gapstone.storage.atomic import write_atomic
from gapstone.storage.csv_file import write_csv

if TYPE_CHECKING:
    from rich.console import Console

_MOST = 5  # examples shown of each kind; all are in scan.csv
_MOST_CLASSES = 30


def text(scan: Scan) -> str:
    """A short page: what the data set holds, what is wrong with it, what is left out."""
    return "\n".join(line for _, line in _lines(scan))


def render(scan: Scan, console: "Console") -> None:
    """Print the page with problems in yellow and headings in bold; names are not read as markup."""
    styles = {"head": "bold", "problem": "yellow", "plain": "", "good": "green"}
    for kind, line in _lines(scan):
        console.print(line, style=styles[kind], markup=False, highlight=False, soft_wrap=True)


def _lines(scan: Scan) -> Iterator[tuple[str, str]]:
    readable = int(scan.readable.sum())
    what = "file" if scan.kind in ("folder", "split folder", "csv", "frame") else "image"
    classes = count_noun(len(scan.classes), "class", "classes")
    several = scan.several_labels()
    form = scan.kind if several is None else f"{scan.kind}, several labels per image"
    yield "head", f"{display(scan.given)}: {count_noun(scan.files, what)} in {classes} ({form})"
    yield "plain", f"  readable {readable:,}; {_sizes(scan)}; {_modes(scan)}"
    yield "plain", ""
    yield from _classes(scan)
    yield "plain", ""
    if several is not None:
        for line in several.lines():
            yield "plain", f"  {line}"
        yield "plain", ""
    if scan.grouping is not None:
        yield from _groups(scan, scan.grouping)
        yield "plain", ""
    yield from _problems(scan)
    left = len(scan.excluded)
    if left:
        conflicting = left - (scan.files - readable)
        why = [f"{scan.files - readable:,} unreadable"] if scan.files > readable else []
        why += [f"{conflicting:,} {_under(scan)}"] if conflicting else []
        yield (
            "head",
            f"left out of a comparison: {count_noun(left, 'file')} ({', '.join(why)}); nothing was changed or moved",
        )
    elif scan.refused is None:
        yield "good", "nothing has to be left out of a comparison"
    if scan.refused is not None:
        yield "problem", f"cannot be compared as it is: {scan.refused}"


def _groups(scan: Scan, grouping: Grouping) -> Iterator[tuple[str, str]]:
    yield "head", f"  {grouping.described}"
    if not is_multi_label(scan.labels):
        several = grouping.shared_by(scan.label_sets)
        count = len(set(grouping.numbers.tolist()))
        yield "plain", f"  of one class: {count - len(several):,}; of several: {len(several):,}"
    each = [len(np.unique(grouping.numbers[of_class(scan.labels, k)])) for k in range(len(scan.classes))]
    low, high = min(each), max(each)
    groups = count_noun(high, "group") if low == high else f"{low:,} to {high:,} groups"
    yield "plain", f"  a class has {groups}"
    across = grouping.shared_by(scan.splits)
    if across:
        kinds = " and ".join(dict.fromkeys(str(s) for s in scan.splits))
        yield (
            "problem",
            f"groups in more than one of {kinds}: {len(across):,} (their images are dropped from train)",
        )
        yield from _examples([display(name) for name in across])


def _problems(scan: Scan) -> Iterator[tuple[str, str]]:
    names = scan.names
    bad = scan.unreadable
    if bad:
        yield "problem", f"cannot be read: {count_noun(len(bad), 'file')}"
        yield from _examples([f"{name}: {reason}" for name, reason in bad])
    if scan.conflicts:
        copies = sum(map(len, scan.conflicts))
        yield "problem", f"one picture {_under(scan)}: {count_noun(len(scan.conflicts), 'picture')}, {copies} files"
        yield from _examples([_conflict(scan, g) for g in scan.conflicts])
        for hint in scan.hints:
            yield "plain", f"    {hint}"
    if scan.near_conflicts:
        groups = scan.near_conflicts
        yield (
            "problem",
            f"nearly the same picture {_under(scan)}: {count_noun(len(groups), 'group')} (kept; worth a look)",
        )
        yield from _examples([_conflict(scan, g) for g in groups])
    if scan.across_splits:
        groups = scan.across_splits
        kinds = " and ".join(dict.fromkeys(str(scan.splits[i]) for g in groups for i in g))
        yield (
            "problem",
            f"the same picture in {kinds}: {count_noun(len(groups), 'group')} (the copies in train are dropped, "
            f"unless a class would lose more than half to near duplicates)",
        )
        yield from _examples([" = ".join(names[i] for i in g[:4]) for g in groups])
    for what, groups in (("exact duplicates", scan.exact_duplicates), ("near duplicates", scan.near_duplicates)):
        if groups:
            files = sum(map(len, groups))
            yield "plain", f"{what}: {count_noun(len(groups), 'group')}, {files:,} files (kept together when splitting)"
            yield from _examples([_together(names, g) for g in sorted(groups, key=lambda g: -len(g))], 3)
    if scan.ranges != UNDECIDED:
        deep = sum(f.spread is not None and f.reason is None for f in scan.facts)
        yield (
            "plain",
            f"more than 8 bits: {count_noun(deep, 'file')}; {scan.ranges} become 0…255, in all of them alike; a "
            f"model that is trained on them keeps that",
        )
    for note, count in counted(note for f in scan.facts for note in f.notes)[:8]:
        yield "plain", f"note on {count_noun(count, 'file')}: {note}"
    for note in scan.notes:
        yield "plain", f"note: {note}"


def _examples(lines: list[str], most: int = _MOST) -> Iterator[tuple[str, str]]:
    for line in lines[:most]:
        yield "plain", f"    {line}"
    if len(lines) > most:
        yield "plain", f"    … and {len(lines) - most:,} more, in scan.csv and scan.json"


def _conflict(scan: Scan, group: list[int]) -> str:
    return " = ".join(f"{scan.names[i]} ({scan.label_text(i) or 'no label'})" for i in group[:4])


def _under(scan: Scan) -> str:
    return "with different sets of labels" if is_multi_label(scan.labels) else "under two labels"


def _together(names: tuple[str, ...], group: list[int]) -> str:
    more = f" = … ({len(group)} files)" if len(group) > 3 else ""
    return " = ".join(names[i] for i in group[:3]) + more


_NUMBER = re.compile(r"(?<![\w.])-?\d(?:[\d.,]*\d)?")


def counted(notes: Iterable[str]) -> list[tuple[str, int]]:
    """Count notes, most frequent first; notes that differ only in their numbers become one, with a range.

    >>> counted(["the first of 3 frames", "the first of 41 frames", "gray"])
    [('the first of 3 to 41 frames', 2), ('gray', 1)]
    """
    groups: dict[str, list[str]] = {}
    for note in notes:
        groups.setdefault(_NUMBER.sub("0", note), []).append(note)
    return [(_with_ranges(group), len(group)) for group in sorted(groups.values(), key=len, reverse=True)]


def _with_ranges(group: list[str]) -> str:
    columns = iter([list(dict.fromkeys(column)) for column in zip(*map(_NUMBER.findall, group), strict=True)])

    def span(_: re.Match[str]) -> str:
        numbers = sorted(next(columns), key=_value)
        return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

    return _NUMBER.sub(span, group[0])


def _value(number: str) -> float:
    try:
        return float(number.replace(",", ""))
    except ValueError:  # such as a version, 1.2.3
        return math.inf


def _sizes(scan: Scan) -> str:
    sizes = scan.size_counts()
    if not sizes:
        return "no size"
    common = [f"{w}×{h} ({n:,})" for (w, h), n in sizes.most_common(3)]
    if len(sizes) == 1:
        ((w, h),) = sizes
        return f"all {w}×{h} pixels"
    short, long = min(min(s) for s in sizes), max(max(s) for s in sizes)
    return f"{len(sizes):,} sizes, sides of {short}…{long:,} pixels, most often {', '.join(common)}"


def _modes(scan: Scan) -> str:
    modes = " ".join(f"{mode} {n:,}" for mode, n in scan.mode_counts().most_common(6))
    if scan.channels not in GRAY_OR_RGB:
        return modes  # "13 channels 90"
    return f"{'gray' if scan.channels == 1 else 'colour'} ({modes or 'none'})"


def _classes(scan: Scan) -> Iterator[tuple[str, str]]:
    counts = scan.class_counts()
    width = max([5, *(len(c) for c in scan.classes[:_MOST_CLASSES])])
    yield "head", "  " + "class".ljust(width) + "".join(f"{'images' if s == 'all' else s:>10}" for s in counts)
    for k, name in enumerate(scan.classes[:_MOST_CLASSES]):
        row = [c[k] for c in counts.values()]
        yield ("problem" if 0 in row else "plain"), "  " + name.ljust(width) + "".join(f"{n:>10,}" for n in row)
    if len(scan.classes) > _MOST_CLASSES:
        rest = [c[_MOST_CLASSES:] for c in counts.values()]
        yield "plain", f"  … {len(rest[0]):,} more, {min(map(min, rest)):,} to {max(map(max, rest)):,} images each"


def write(scan: Scan, folder: Path) -> None:
    """Write scan.json, scan.txt and scan.csv into `folder`, each completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "scan.json", (json.dumps(scan.to_json(), ensure_ascii=False, indent=1) + "\n").encode())
    write_atomic(folder / "scan.txt", (text(scan) + "\n").encode())
    write_csv(folder / "scan.csv", rows(scan))


def rows(scan: Scan) -> Iterator[list[object]]:
    """Of scan.csv: the titles, then one for each file."""
    yield ["name", "class", "split", "outcome", "reason", "width", "height", "mode", "group", "notes", "sha256"]
    conflicting = {i for g in scan.conflicts for i in g}
    shared = Counter(scan.group.tolist())
    for i, f in enumerate(scan.facts):
        outcome = "unreadable" if f.reason is not None else "two labels" if i in conflicting else "used"
        group = int(scan.group[i]) if shared[int(scan.group[i])] > 1 else ""
        yield [
            scan.names[i],
            scan.label_text(i),
            scan.splits[i] or "",
            outcome,
            f.reason or "",
            f.size[0] or "",
            f.size[1] or "",
            f.mode,
            group,
            "; ".join(f.notes),
            f.sha256,
        ]
