"""Folders and files that gapstone may write: its own, new ones and empty ones.

A marker file says that a folder is gapstone's. A folder without a valid marker (of an earlier version, or with a
damaged marker) is accepted if it has the names that are typical of its kind and holds nothing else.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.storage.atomic import UNFINISHED, remove
from gapstone.storage.paths import open_input, output_file, output_folder
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, write_sealed

MARKER, LOCK = ".gapstone", ".lock"
SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "lost+found"})
"""Files that operating systems put into folders: a folder that holds nothing else counts as empty."""

EDGE = 1 << 16
"""How many bytes at each end of a file are searched for the word "gapstone", which every format of ours has there."""


@dataclass(frozen=True)
class FolderKind:
    """The files and folders that a command writes into its results folder."""

    command: str
    folders: frozenset[str]
    files: frozenset[str]
    typical: tuple[str, ...]
    """Names that every folder of this kind has: they identify one without a marker."""
    temporary: tuple[str, ...] = ()
    """Glob patterns of what a killed process leaves in the folder, besides unfinished files."""


COMPARE = FolderKind(
    "compare",
    frozenset({"trials", "kept", "store", "models", "figures"}),
    frozenset({"plan.json", "results.json", "results.csv", "predictions.csv", "pictures.npz", "report.html",
               "scan.json", "scan.txt", "scan.csv", "speed.json", "model.safetensors", "looks.json"}),
    ("trials", LOCK),
    (".store.*.tmp", ".store.*.old"),
)  # fmt: skip
EXPLAIN = FolderKind(
    "explain", frozenset({"maps", ".looked", ".thumbs"}), frozenset({"explained.json", "index.html"}), (".looked",)
)
CONVERT = FolderKind(
    "convert", frozenset({"store", "kept"}), frozenset(), (), (".store.*.tmp", ".store.*.old")
)  # fmt: skip
EVALUATE = FolderKind(
    "evaluate",
    frozenset({"kept", "stores"}),
    frozenset({"evaluated.json", "report.html", "predictions.csv", "predictions.npz",
               "scan.json", "scan.txt", "scan.csv"}),
    ("kept", LOCK),
    ("stores/.*.tmp", "stores/.*.old"),
)  # fmt: skip
CHECK = FolderKind(
    "check", frozenset(), frozenset({"scan.json", "scan.txt", "scan.csv", "scan.html"}), ("scan.json", "scan.txt")
)


@contextmanager
def own_folder(
    folder: Path, kind: FolderKind, option: str = "--out", log: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Lock a results folder for this process; create and mark it if needed, and remove what a killed process left.

        >>> with own_folder(out, COMPARE):
        ...     write_sealed(out / "plan.json", facts, "plan")

    After an error, a folder that this call created and that holds no results is removed. `option` is the command-line
    option that named the folder; `log` receives a line if the marker was damaged.

    Raises:
        ValueError: as `check_folder`, or another process uses the folder.
        OSError: the folder cannot be written; the error names the path.
    """
    damaged_marker = check_folder(folder, kind, option)  # before anything is written into it, even a lock
    created = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder / LOCK, wait=False))
                _mark(folder, kind)
            except BlockingIOError:
                raise ValueError(
                    f"another gapstone {kind.command} is at work in {display(folder)}: wait, or choose another "
                    f"{option}."
                ) from None
            if damaged_marker and log:
                log(damage_note([damaged_marker]))
            _remove_matching(folder, (UNFINISHED, *kind.temporary))
            for name in sorted(kind.folders):
                _remove_matching(folder / name, (UNFINISHED,))
            yield
    except BaseException:
        _remove_created(folder, kind, created)
        raise


def check_folder(folder: Path, kind: FolderKind, option: str = "--out") -> DamagedError | None:
    """Check, without writing, that gapstone may and can write into a folder; return what is wrong with its marker.

    Raises:
        PathError: (a ValueError) the folder cannot be written.
        ValueError: the folder is not of this kind.
    """
    if not os.fspath(folder).strip() or folder == Path():
        raise ValueError(f"{option} is the working folder itself: name a folder for the results.")
    output_folder(option, folder, sorted((*kind.files, MARKER, LOCK)), sorted(kind.folders))
    if not os.path.lexists(folder):
        return None
    damaged_marker = None
    try:
        command = read_sealed(folder / MARKER, MARKER)["command"]
    except FileNotFoundError:
        command = None
    except DamagedError as error:
        command, damaged_marker = None, error
    if command is None:
        _refuse_foreign(folder, kind, option)
    elif command != kind.command:
        raise ValueError(f"{option} {display(folder)} holds what gapstone {command} wrote: choose another folder.")
    for name in sorted(kind.folders):
        if (folder / name).is_symlink():
            raise ValueError(f"{display(folder / name)} is a link, and gapstone keeps a folder there: remove it.")
    return damaged_marker


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if needed; a link is refused, and a file keeps its content.

    Raises:
        BlockingIOError: `wait` is False and another process holds the lock.
        ValueError: `path` is no regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise ValueError(f"{display(path)} is no regular file, and gapstone locks there: remove it.") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{display(path)} is no regular file, and gapstone locks there: remove it.")
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def own_file(path: Path, example: str, option: str = "--out") -> Path:
    """Check, before any work, that gapstone may and can write `path`: it is new, empty or a file that gapstone wrote.

        >>> own_file(Path("models"), "model.safetensors")
        PathError: --out models is a folder; name a file in it, such as models/model.safetensors.

    Returns `path`. The message proposes the file name `example` where `path` is a folder.

    Raises:
        PathError: (a ValueError) the file cannot be written.
        ValueError: there is a file that gapstone did not write.
    """
    output_file(option, path, example)
    what = f"{option} {display(path)}"
    if path.is_symlink():
        target = display(os.readlink(path))
        raise ValueError(f"{what} is a link to {target}: name the file itself, or remove the link.")
    if not path.exists():
        return path
    with open_input(what, path) as file:
        edges = file.read(EDGE)
        file.seek(-min(EDGE, file.seek(0, os.SEEK_END)), os.SEEK_END)
        edges += file.read(EDGE)
    if edges and b"gapstone" not in edges:
        raise ValueError(f"{what} is there already, and gapstone did not write it: choose another name, or delete it.")
    return path


def discard(folder: Path, kind: FolderKind) -> None:
    """Remove what gapstone wrote into one of its folders, and the folder if it is then empty."""
    for name in (*kind.folders, *kind.files, LOCK, MARKER):  # the marker last: until then the folder is gapstone's
        remove(folder / name)
    _remove_matching(folder, (UNFINISHED, *kind.temporary))
    with suppress(OSError):
        folder.rmdir()


def _mark(folder: Path, kind: FolderKind) -> None:
    path = folder / MARKER
    try:
        read_sealed(path, MARKER)
    except (FileNotFoundError, DamagedError):
        remove(path)
        write_sealed(path, {"command": kind.command, "about": "gapstone writes into this folder"}, MARKER)


def _refuse_foreign(folder: Path, kind: FolderKind, option: str) -> None:
    """Raise ValueError if a folder without a marker holds anything that a folder of this kind does not."""
    patterns = (MARKER, LOCK, UNFINISHED, *kind.temporary)
    names = [name for name in sorted(os.listdir(folder)) if name.lower() not in SYSTEM_FILES]
    results = [name for name in names if name in kind.folders | kind.files]
    foreign = [name for name in names if name not in results and not any(fnmatchcase(name, p) for p in patterns)]
    if foreign or (results and not all((folder / name).exists() for name in kind.typical)):
        example = (foreign or results)[0]
        raise ValueError(
            f"{option} {display(folder)} holds '{display(example)}', which gapstone {kind.command} did not write "
            f"there: choose a new or empty folder."
        )


def _remove_matching(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            remove(path)


def _remove_created(folder: Path, kind: FolderKind, created: list[Path]) -> None:
    """Remove the folders that a failed run created, if they hold no results."""
    if not created:
        return
    with suppress(OSError):
        for name in kind.folders:
            with suppress(OSError):
                (folder / name).rmdir()  # fails unless it is empty
        if set(os.listdir(folder)) <= {MARKER, LOCK}:
            for name in (MARKER, LOCK):
                (folder / name).unlink(missing_ok=True)
            for path in created:
                path.rmdir()
