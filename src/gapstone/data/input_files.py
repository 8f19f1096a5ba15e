"""files(what a person gave) = the pictures meant: files as they are, folders walked, patterns expanded, each path once.

Inside folders, hidden and system files, files that by their suffix cannot be pictures (labels.csv, notes.txt) and the
results of earlier `gapstone explain` runs are left out *and counted*. Every other file is a picture or will be listed
with the reason why it is none. What is named itself is never left out.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import bytes_of, is_system

RESULTS = ".looked"
"""The folder that marks another as results of `gapstone explain`: its drawings are no pictures to explain."""

DRAWINGS = "maps"
"""In such a folder, the one that holds them."""

NO_PICTURES = frozenset(
    [
        *(".csv", ".json", ".jsonl", ".md", ".parquet", ".rst", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
        *(".doc", ".docx", ".htm", ".html", ".ipynb", ".js", ".log", ".pdf", ".py", ".sha256", ".sqlite", ".xlsx"),
        *(".gz", ".h5", ".npy", ".npz", ".onnx", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".zip"),
    ]
)
"""Only suffixes that nobody gives a picture; a picture without a suffix, or with a wrong one, is still looked at."""


@dataclass
class InputFiles:
    """What `files` found."""

    paths: list[Path] = field(default_factory=list)
    """In the order given; inside folders and patterns by the bytes of their names."""
    missing: list[str] = field(default_factory=list)
    """Patterns that match nothing."""
    other: Counter[str] = field(default_factory=Counter)
    """Suffix → how many files in folders were left out for it."""
    system: int = 0
    """Hidden and system files and folders left out."""
    results: list[Path] = field(default_factory=list)
    """Folders of earlier results left out."""
    closed: list[Path] = field(default_factory=list)
    """Folders that may not be listed."""

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        said = []
        if self.other:
            kinds = ", ".join(f"{display(suffix)} {count:,}" for suffix, count in sorted(self.other.items()))
            said.append(
                f"{count_noun(self.other.total(), 'file')} in folders left out, no pictures by their names: {kinds}."
            )
        if self.system:
            said.append(f"{count_noun(self.system, 'hidden or system entry', 'hidden or system entries')} left out.")
        if self.results:
            said.append(f"Results of earlier runs left out: {', '.join(map(display, self.results))}.")
        if self.closed:
            said.append(
                f"{count_noun(len(self.closed), 'folder')} may not be read: {', '.join(map(display, self.closed[:3]))}."
            )
        return said


def input_files(given: Sequence[str | os.PathLike[str]]) -> InputFiles:
    """The pictures meant by paths, folders and patterns.

        >>> input_files(["photos", "new/**/*.jpg", "cat.jpg"]).paths

    A pattern (`*`, `?`, `[…]`, `**` for folders within folders) is one that the shell has not expanded; a file whose
    name contains such letters is that file. What does not exist stays in the list: loading it says so.
    """
    found = InputFiles()
    seen: set[str] = set()
    for one in given:
        for path in _meant(os.fspath(one), found):
            place = os.path.abspath(path)
            if place not in seen:
                seen.add(place)
                found.paths.append(path)
    return found


def _meant(given: str, found: InputFiles) -> Iterator[Path]:
    path = Path(given)
    if os.path.isdir(given):
        yield from _inside(path, found, [])
    elif os.path.lexists(given) or not glob.has_magic(given):
        yield path
    else:
        matches = sorted(glob.glob(given, recursive=True), key=bytes_of)
        if not matches:
            found.missing.append(given)
        for match in matches:
            if marked := _drawn(Path(match)):
                found.results += [] if marked in found.results else [marked]
            elif os.path.isdir(match):
                # "**" also matches the folders on the way, whose files it matches by itself
                if not given.endswith("**"):
                    yield from _inside(Path(match), found, [])
            else:
                yield Path(match)


def _inside(folder: Path, found: InputFiles, above: list[tuple[int, int]]) -> Iterator[Path]:
    """Every file in a folder and the folders in it, links to folders above not followed."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: bytes_of(entry.name))
    except OSError:
        found.closed.append(folder)
        return
    if here in above:
        return
    if marked := _drawn(folder / "a drawing"):
        found.results += [] if marked in found.results else [marked]
        return
    for entry in entries:
        if is_system(entry.name):
            found.system += 1
        elif _is_folder(entry):
            yield from _inside(folder / entry.name, found, [*above, here])
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in NO_PICTURES:
            found.other[suffix] += 1
        else:
            yield folder / entry.name


def _drawn(path: Path) -> Path | None:
    """The folder whose results hold this file, if one does: its drawings are no pictures to explain."""
    for folder in path.parents:
        if folder.name == DRAWINGS and os.path.isdir(folder.parent / RESULTS):
            return folder.parent
    return None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself: loading it says so
        return False
