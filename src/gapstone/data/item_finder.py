"""Finds the items of a source that paths in another file mean, such as in a table of boxes."""

import os
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from gapstone.console.formatting import display
from gapstone.data.file_names import spellings
from gapstone.data.sources import DataError, Source, few

Paths = tuple[str, ...]
"""What one picture may be called."""


class ItemFinder:
    """The number of the item that a picture's paths mean; None if there is none.

    ```python
    finder = ItemFinder(Path("boxes.csv"), source)
    finder.find([("cat/1.jpg",), ("elsewhere/2.jpg",)])     # {("cat/1.jpg",): 0, ("elsewhere/2.jpg",): None}
    ```

    A path is relative to the file's folder, or to DATA, or it is an item's name.
    """

    def __init__(self, file: Path, source: Source) -> None:
        data = Path(source.given).expanduser()
        base = file.absolute() if file.is_dir() else file.absolute().parent
        self.folders = (base, data.absolute() if data.is_dir() else data.absolute().parent)
        self.items = source.items
        self.names = {item.name: i for i, item in enumerate(source.items)}
        self.paths = {os.path.realpath(item.path): i for i, item in enumerate(source.items) if item.path is not None}

    def find(self, pictures: Iterable[Paths]) -> dict[Paths, int | None]:
        """The item of each picture, by the first of its paths that means one."""
        found: dict[Paths, int | None] = {}
        for paths in pictures:
            if paths not in found:
                found[paths] = next((i for path in paths if (i := self._by_path(path)) is not None), None)
        return found

    def by_file_name(self, found: dict[Paths, int | None], what: str) -> dict[Paths, int | None]:
        """`found`, and of the pictures without an item those whose file's name one of the other items has.

        Raises:
            DataError: a name may mean several items, or several pictures have it.
        """
        taken = set(found.values())
        by_name: dict[str, list[int]] = {}
        for i, item in enumerate(self.items):
            if i not in taken:
                name = item.name.rpartition("/")[2]
                for each in {name, os.path.splitext(name)[0]}:
                    by_name.setdefault(each, []).append(i)
        result, meant = dict(found), dict[int, Paths]()
        for paths, known in found.items():
            if known is not None:
                continue
            names = [display(name) for path in paths for name in spellings(PureWindowsPath(path).name)]
            items = next((by_name[name] for name in names if name in by_name), [])
            if len(items) > 1:
                several = few([self.items[i].name for i in items], 3)
                raise DataError(
                    f"{what}: the picture {display(paths[0])!r} may be any of {len(items)} in DATA: {several}. Write "
                    "its path below DATA."
                )
            for i in items:
                if (other := meant.setdefault(i, paths)) != paths:
                    raise DataError(
                        f"{what}: the pictures {display(other[0])!r} and {display(paths[0])!r} may both be "
                        f"{self.items[i].name!r} of DATA. Write the path below DATA of the one that it is."
                    )
                result[paths] = i
        return result

    def _by_path(self, path: str) -> int | None:
        if not path or "\x00" in path:
            return None
        for name in spellings(path):
            for folder in self.folders:
                if (item := self.paths.get(os.path.realpath(folder / name))) is not None:
                    return item
            if (item := self.names.get(display(name))) is not None:
                return item
        return None
