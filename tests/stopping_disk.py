"""A disk under a program that is stopped at any call: what is there afterwards, after a kill and after a power cut.

After a kill everything is there that reached the system: what lay in a file object's buffer is not. After a power cut
the content of a file is that of its last fsync. Whether its name is there is not promised before its folder is synced:
both are tried.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

HOW = ["killed", "power cut", "power cut, names lost"]

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "truncate", "ftruncate", "link", "symlink")
"""Of the module os; besides, every `open` that makes a file and every write of a file object that it gave."""


class Stop(BaseException):
    """Here the program ends."""


class Disk:
    """All below `folder`; one call after the other is counted while `stopping`."""

    def __init__(self, folder: Path, how: str) -> None:
        self.folder, self.how = folder, how
        self.held: list[int] = []  # open, so that no inode comes again
        self.content: dict[int, bytes] = {}
        """By inode, as of its last fsync."""
        self.names: dict[int, dict[str, tuple[bool, int]]] = {}
        """By inode of a folder, as of its last fsync: of each name whether it is a folder, and its inode."""
        self.after: dict[Path, bytes | None] = {}
        for path in (folder, *folder.rglob("*")):
            self.synced(path)

    def synced(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.held.append(descriptor)
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self.names[inode] = {one.name: (one.is_dir(), one.stat().st_ino) for one in path.iterdir()}
        else:
            self.content[inode] = path.read_bytes()

    def stop(self) -> None:
        """What is on the disk now is what there will be."""
        if self.how == "power cut, names lost":
            self.after = dict(self._durable(self.folder, self.folder.stat().st_ino))
            return
        for path in self.folder.rglob("*"):
            if path.is_dir():
                self.after[path] = None
            elif self.how == "killed":
                self.after[path] = path.read_bytes()
            else:
                self.after[path] = self.content.get(path.stat().st_ino, b"")

    def _durable(self, folder: Path, inode: int) -> Iterator[tuple[Path, bytes | None]]:
        for name, (is_folder, of_it) in self.names.get(inode, {}).items():
            yield folder / name, None if is_folder else self.content.get(of_it, b"")
            if is_folder:
                yield from self._durable(folder / name, of_it)

    def begin_again(self) -> None:
        """The machine starts: nothing of the dead process is left but what is on the disk."""
        for descriptor in self.held:
            os.close(descriptor)
        for one in self.folder.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        for path, content in self.after.items():
            if content is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


@contextmanager
def stopping(disk: Disk, number: int) -> Iterator[list[str]]:
    """Ends the program before the call of that number. Gives the calls that were made."""
    made: list[str] = []
    files: list[Any] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*args: Any, **kwargs: Any) -> Any:
            if len(made) == number:  # also of a handler that would clean up: nothing happens any more
                raise Stop(name)
            made.append(name)
            if len(made) == number:
                disk.stop()
                raise Stop(name)
            if name != "fsync":
                return call(*args, **kwargs)
            disk.synced(Path(os.readlink(f"/proc/self/fd/{args[0]}")))
            return None

        return calling

    class File:
        """A file object whose writes are counted."""

        def __init__(self, file: Any) -> None:
            self.file = file
            files.append(file)

        def __getattr__(self, name: str) -> Any:
            found = getattr(self.file, name)
            return counted(name, found) if name in ("write", "truncate", "flush") else found

        def __enter__(self) -> "File":
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

    opens, makes = os.open, io.open

    def opened(path: Any, flags: int, *more: Any, **kwargs: Any) -> int:
        call = counted("open", opens) if flags & (os.O_CREAT | os.O_TRUNC) else opens
        return call(path, flags, *more, **kwargs)  # type: ignore[no-any-return]

    def made_by(file: Any, mode: str = "r", *more: Any, **kwargs: Any) -> Any:
        written = any(letter in mode for letter in "wax+")
        return File(makes(file, mode, *more, **kwargs)) if written else makes(file, mode, *more, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        patch.setattr(os, "open", opened)
        patch.setattr(io, "open", made_by)
        patch.setattr("builtins.open", made_by)
        try:
            yield made
        finally:
            for file in files:  # as those of a dead process are
                file.close()


def every_stop(
    folder: Path, prepare: Callable[[], None], action: Callable[[], None], how: str
) -> Iterator[tuple[int, str]]:
    """Runs `action` in `folder`, made ready by `prepare`, until it is stopped at its first, second, … call; each time
    gives the disk as it is then."""
    for number in count(1):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        prepare()
        disk = Disk(folder, how)
        try:
            with stopping(disk, number) as made:
                action()
        except Stop:
            pass
        else:
            assert number > 1, "nothing was written"
            return
        disk.begin_again()
        yield number, made[-1]
