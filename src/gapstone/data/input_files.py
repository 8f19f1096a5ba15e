"""`input_files` turns the files, folders and patterns that a user gives into a list of image files, each path once.

Inside folders it leaves out, and counts, hidden and system files, files whose suffix is not of an image (labels.csv,
notes.txt), and the results of earlier `gapstone explain` runs. Every other file is loaded, or reported with the reason
why it cannot be. A file that the user names is never left out.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapstone.console.formatting import count_noun, display
from gapstone.data.file_names import bytes_of, file_id, is_folder, is_system
from gapstone.images import array_file

RESULTS = ".looked"
"""The sub-folder by which a folder is recognised as results of `gapstone explain`."""

DRAWINGS = "maps"
"""The sub-folder of such a folder with the drawings, which are not images to explain."""

NO_PICTURES = frozenset(
    [
        *(".csv", ".json", ".jsonl", ".md", ".parquet", ".rst", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
        *(".doc", ".docx", ".htm", ".html", ".ipynb", ".js", ".log", ".pdf", ".py", ".sha256", ".sqlite", ".xlsx"),
        *(".gz", ".h5", ".npz", ".onnx", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".zip"),
    ]
)
"""Suffixes that nobody gives an image; a file with another suffix, or none, is loaded."""
ARRAY = array_file.SUFFIX
"""A suffix of images only where no others are beside them."""


@dataclass
class InputFiles:
    """The result of `input_files`."""

    paths: list[Path] = field(default_factory=list)
    """In the order given; inside folders and patterns sorted by the bytes of their names."""
    missing: list[str] = field(default_factory=list)
    """Patterns that match nothing."""
    other: Counter[str] = field(default_factory=Counter)
    """Suffix → number of files in folders left out because of it."""
    system: int = 0
    """Number of hidden and system files and folders left out."""
    results: list[Path] = field(default_factory=list)
    """Folders of earlier results, left out."""
    closed: list[Path] = field(default_factory=list)
    """Folders that may not be listed."""

    def add(self, others: "InputFiles") -> None:
        """Add what was found elsewhere."""
        self.paths += others.paths
        self.missing += others.missing
        self.other += others.other
        self.system += others.system
        self.results += [each for each in others.results if each not in self.results]
        self.closed += others.closed

    def notes(self) -> list[str]:
        """Sentences about what was left out."""
        sentences = []
        if self.other:
            kinds = ", ".join(f"{display(suffix)} {count:,}" for suffix, count in sorted(self.other.items()))
            sentences.append(
                f"{count_noun(self.other.total(), 'file')} in folders left out, no pictures by their names: {kinds}."
            )
        if self.system:
            sentences.append(
                f"{count_noun(self.system, 'hidden or system entry', 'hidden or system entries')} left out."
            )
        if self.results:
            sentences.append(f"Results of earlier runs left out: {', '.join(map(display, self.results))}.")
        if self.closed:
            sentences.append(
                f"{count_noun(len(self.closed), 'folder')} may not be read: {', '.join(map(display, self.closed[:3]))}."
            )
        return sentences


def input_files(given: Sequence[str | os.PathLike[str]]) -> InputFiles:
    """The image files of paths, folders and patterns.

        >>> input_files(["photos", "new/**/*.jpg", "cat.jpg"]).paths

    A pattern (`*`, `?`, `[…]`, `**` for folders within folders) is one that the shell has not expanded; if a file has
    that very name, it means the file. A path that does not exist stays in the list: loading it reports the error.
    """
    files = InputFiles()
    paths: dict[str, Path] = {}
    for name in given:
        for path in _expand(os.fspath(name), files):
            paths.setdefault(os.path.abspath(path), path)
    files.paths = list(paths.values())
    return files


def _expand(given: str, files: InputFiles) -> Iterator[Path]:
    path = Path(given)
    if os.path.isdir(given):
        yield from _of_folder(path, files)
    elif os.path.lexists(given) or not glob.has_magic(given):
        yield path
    else:
        matches = sorted(glob.glob(given, recursive=True), key=bytes_of)
        if not matches:
            files.missing.append(given)
        for match in matches:
            if results := _results_folder(Path(match)):
                files.results += [] if results in files.results else [results]
            elif os.path.isdir(match):
                # "**" also matches the folders themselves, in addition to their files
                if not given.endswith("**"):
                    yield from _of_folder(Path(match), files)
            else:
                yield Path(match)


def _of_folder(folder: Path, files: InputFiles) -> list[Path]:
    """The images in a folder and its sub-folders. Arrays beside pictures are masks or features, and none."""
    found = list(_walk(folder, files, []))
    pictures = [path for path in found if path.suffix.lower() != ARRAY]
    if pictures and (arrays := len(found) - len(pictures)):
        files.other[ARRAY] += arrays
    return pictures or found


def _walk(folder: Path, files: InputFiles, above: list[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files in a folder and its sub-folders; links to folders above are not followed."""
    try:
        here = file_id(folder)
        with os.scandir(folder) as iterator:
            entries = sorted(iterator, key=lambda entry: bytes_of(entry.name))
    except OSError:
        files.closed.append(folder)
        return
    if here in above:
        return
    if results := _results_folder(folder / "a drawing"):
        files.results += [] if results in files.results else [results]
        return
    for entry in entries:
        if is_system(entry.name):
            files.system += 1
        elif is_folder(entry):
            yield from _walk(folder / entry.name, files, [*above, here])
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in NO_PICTURES:
            files.other[suffix] += 1
        else:
            yield folder / entry.name


def _results_folder(path: Path) -> Path | None:
    """The folder of results whose drawings include this file; None if it is no drawing."""
    for folder in path.parents:
        if folder.name == DRAWINGS and os.path.isdir(folder.parent / RESULTS):
            return folder.parent
    return None
