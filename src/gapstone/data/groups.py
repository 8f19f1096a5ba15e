"""Images that belong together, such as those of one patient: by a column of the table, or by a pattern in their paths.

A group stays on one side of every split, and verdicts count groups. Where nobody named groups and the names look as if
there were some, `with_groups` adds one line that says how to use them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gapstone.console.formatting import count_noun, display
from gapstone.data.sources import DataError, Grouping, Source, few

_WORDS = (
    *("patient", "subject", "person", "participant", "donor", "case", "animal", "mouse", "specimen", "session"),
    *("visit", "video", "clip", "recording", "scene", "sequence", "writer", "speaker", "individual"),
)
_COLUMN = re.compile(rf"(?:{'|'.join(_WORDS)}|group|pat|subj|pid)s?(?:[ _.-]?(?:id|no|nr|number|name|code))?|groups?")
_IN_PATH = re.compile(rf"(?i)(?<![a-z])((?:{'|'.join(_WORDS)}|pat|subj|sub)[ _-]?)\d+")


def suggests_groups(column: str) -> bool:
    """Whether a column is probably one of groups.

    >>> suggests_groups("Patient_ID"), suggests_groups("age")
    (True, False)
    """
    return _COLUMN.fullmatch(column.strip().lower()) is not None


@dataclass(frozen=True)
class AskedColumns:
    """The columns of DATA, beside path, label and split, that the user names; and how options call them."""

    group: str | None = None
    """What says which images belong together."""
    sample_weight: str | None = None
    """What says how much an image counts in training."""

    @property
    def options(self) -> dict[str, str]:
        """Option → column, as given."""
        named = {"--group": self.group, "--sample-weight": self.sample_weight}
        return {option: name for option, name in named.items() if name is not None}

    @property
    def names(self) -> list[str]:
        """The columns, in lower case."""
        return list(dict.fromkeys(map(key, self.options.values())))


NOTHING_ASKED = AskedColumns()


def kept_columns(shown: str, columns: Sequence[str], asked: AskedColumns) -> list[str]:
    """The columns that are asked for, and, where groups are not, those that look as if they named them.

    Raises DataError if one is not there.
    """
    for option, name in asked.options.items():
        if (times := columns.count(key(name))) != 1:
            has = ", ".join(map(display, dict.fromkeys(columns))) or "nothing"
            what = f"{times} columns {display(name)!r}: keep one" if times else f"no column {display(name)!r}"
            raise DataError(f"{option} {display(name)}: DATA {shown!r} has {what}; it has {has}.")
    suggested = [name for name in dict.fromkeys(columns) if asked.group is None and suggests_groups(name)]
    return list(dict.fromkeys([*asked.names, *suggested]))


def key(column: str) -> str:
    """The name by which `Source.columns` has a column."""
    return column.strip().lower()


def not_read(column: str, use: str = "") -> str:
    """The note on a column that nothing is read from."""
    return f"column {display(column)!r} is not read (path, label and split are){use}"


def check_options(column: str | None, pattern: str | None) -> None:
    """Raises ValueError for both options at once, and for a pattern that is none; whatever the images are."""
    if column is not None and pattern is not None:
        raise ValueError("--group names a column and --group-pattern reads paths: give one of them.")
    if pattern is None:
        return
    try:
        parts = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"--group-pattern '{display(pattern)}' is no regular expression: {error}.") from error
    if parts > 1:
        raise ValueError(
            f"--group-pattern '{display(pattern)}' has {parts} parts in brackets: put one around what names the group "
            r"and write (?:…) for the others, as in 'patient_(\d+)'."
        )


def with_groups(source: Source, column: str | None = None, pattern: str | None = None) -> Source:
    r"""The source with `grouping`, by a column of its table or by a pattern; with a hint where there is neither.

        >>> with_groups(open_source("scans"), pattern=r"patient_(\d+)").grouping.described
        "120 groups by --group-pattern 'patient_(\d+)', of 3 to 20 images"

    Raises:
        ValueError: as `check_options`.
        DataError: there is no such column; the pattern is not in every path; all images are of one group.
    """
    check_options(column, pattern)
    if column is None and pattern is None:
        used, hint = suggestion(source)
        notes = [not_read(name) for name in source.columns if name != used]
        hints = (*source.hints, *([hint] if hint else []))
        return replace(source, notes=(*source.notes, *notes), hints=hints)
    names = _by_column(source, column) if column is not None else _by_pattern(source, pattern or "")
    by = f"--group {display(column)}" if column is not None else f"--group-pattern '{display(pattern or '')}'"
    grouping = Grouping(by, tuple(names))
    if len(source) > 1 and len(set(grouping.numbers.tolist())) == 1:
        raise DataError(
            f"{by}: all {len(source):,} images of DATA {display(source.given)!r} have the same group, "
            f"{display(grouping.names[0] or '')!r}: nothing could be trained on one group and tested on another. Name "
            "what differs from one patient, session, … to the next."
        )
    alone = len(set(grouping.numbers.tolist())) == len(source)
    notes = [f"{by}: every image is a group of its own, so it changes nothing"] if alone else []
    return replace(source, grouping=grouping, notes=(*source.notes, *notes))


def _by_column(source: Source, column: str) -> Sequence[str | None]:
    if key(column) not in source.columns:
        raise DataError(
            f"--group {display(column)}: DATA {display(source.given)!r} ({source.kind}) is no table and has no columns."
            r" If the paths of its images tell the groups, --group-pattern reads them: --group-pattern 'patient_(\d+)'."
        )
    return [name or None for name in source.columns[key(column)]]


def _by_pattern(source: Source, pattern: str) -> list[str]:
    if source.array is not None:
        raise DataError(
            f"--group-pattern '{display(pattern)}': the images of DATA {display(source.given)!r} ({source.kind}) have "
            "no paths. An .npz file may have an array of groups, one for each image: --group NAME."
        )
    compiled = re.compile(pattern)
    found: list[str] = []
    missed: list[str] = []
    for item in source.items:
        match = compiled.search(item.name)
        name = None if match is None else match[compiled.groups]
        if name:
            found.append(name)
        else:
            missed.append(item.name)
    if missed:
        raise DataError(
            f"--group-pattern '{display(pattern)}' finds no group in {len(missed):,} of "
            f"{count_noun(len(source), 'path')}, such as {few(missed, 3)}. It has to fit every path below DATA; "
            r"(?:a|b) fits either of two, and what names the group stands in brackets: '(?:patient|case)_(\d+)'."
        )
    return found


def suggestion(source: Source) -> tuple[str | None, str | None]:
    """(a column that looks like groups, a sentence with the option to add); None, None where nothing does."""
    for name, cells in source.columns.items():
        if suggests_groups(name) and _fits(source, cells):
            return name, _hint(f"column {display(name)!r}", cells, f"--group {_quoted(name)}")
    if source.array is None and len(source) and (match := _IN_PATH.search(source.items[0].name)):
        pattern = rf"{match[1]}(\d+)"
        found = [re.search(pattern, item.name) for item in source.items]
        cells = ["" if one is None else one[1] for one in found]
        if "" not in cells and _fits(source, cells):
            return None, _hint(f"paths with {display(match[0])!r}", cells, f"--group-pattern '{pattern}'")
    return None, None


def _fits(source: Source, cells: Sequence[str]) -> bool:
    """Whether they are groups as patients are: most have several images, and they are no other name of the classes."""
    sizes = Counter(cells)
    classes = set(zip(cells, (item.labels for item in source.items), strict=True))
    several = sum(count > 1 for count in sizes.values())
    return len(sizes) > 2 and 2 * several > len(sizes) and not len(classes) == len(sizes) == len(source.classes)


def _hint(what: str, cells: Sequence[str], option: str) -> str:
    return (
        f"Do images belong together ({what}, {len(set(cells)):,} of them)? Then add {option}: they stay on one side "
        "of the split, and verdicts count them instead of images."
    )


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else repr(display(name))
