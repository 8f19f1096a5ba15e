"""Files that hold many images each, such as train-000000.tar: which ones there are, and the split of each."""

import os
from collections.abc import Sequence
from pathlib import Path

from gapstone.data.file_names import bytes_of, is_folder, is_system
from gapstone.data.sources import DataError, SplitName, few
from gapstone.data.split_names import split_name

_BESIDE = (".txt", ".json", ".md", ".yaml")
"""What may lie beside shards."""


def holds_shards(folder: Path, ending: str) -> bool:
    """Whether a folder holds such files, itself or in its sub-folders, and nothing that may be a class folder.

    >>> holds_shards(Path("photos"), ".tar")
    False
    """
    shards, files, folders = _entries(folder, ending)
    for name in folders:
        inner, others, deeper = _entries(folder / name, ending)
        if deeper or (others and not inner):
            return False
        shards, files = shards + inner, files + others
    return bool(shards) and all(name.endswith((ending, *_BESIDE)) for name in files)


def shard_files(path: Path, ending: str) -> list[Path]:
    """The file itself, or those of a folder and its sub-folders, in order."""
    if not path.is_dir():
        return [path]
    found, _, folders = _entries(path, ending)
    below = [f"{name}/{shard}" for name in folders for shard in _entries(path / name, ending)[0]]
    return [path / name for name in sorted([*found, *below], key=bytes_of)]


def shard_splits(what: str, shards: Sequence[Path]) -> dict[Path, SplitName | None]:
    """The split of each shard, by its name or its folder's; None where they name none."""
    for words in ([shard.stem for shard in shards], [shard.parent.name for shard in shards]):
        known = split_name(words)
        splits = {shard: known.get(word) for shard, word in zip(shards, words, strict=True)}
        if len(set(known.values())) > 1:
            if unknown := [shard.name for shard, split in splits.items() if split is None]:
                raise DataError(
                    f"{what}: the names of its shards say splits, but not those of {few(unknown)}; name them so, too "
                    f"(train-000000{shards[0].suffix}), or take them out."
                )
            return splits
    return dict.fromkeys(shards)


def place_of(path: Path, shard: Path) -> str:
    """A shard as names of its images begin: its path below DATA."""
    return shard.relative_to(path).as_posix() if path.is_dir() else shard.name


def _entries(folder: Path, ending: str) -> tuple[list[str], list[str], list[str]]:
    """The names of the shards, of other files, and of folders."""
    with os.scandir(folder) as iterator:
        entries = [entry for entry in iterator if not is_system(entry.name)]
    folders = [entry.name for entry in entries if is_folder(entry)]
    files = [entry.name for entry in entries if not is_folder(entry)]
    shards = [name for name in files if name.endswith(ending)]
    return shards, [name for name in files if not name.endswith(ending)], folders
