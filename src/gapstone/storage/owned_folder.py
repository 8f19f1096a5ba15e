"""Where gapstone may write: into a folder that is its own, or a file that is its own or not there yet.

A folder is gapstone's where a marker says so, or where it is new or empty. One without a marker (of an earlier version,
or whose marker was damaged) is taken back where it looks like one of this kind and holds nothing else.
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

Say = Callable[[str], None]

MARKER, LOCK = ".gapstone", ".lock"
NOBODYS = frozenset({".ds_store", "thumbs.db", "desktop.ini", "lost+found"})
"""What systems leave everywhere: a folder that holds nothing else is empty."""

EDGE = 1 << 16
"""Bytes at both ends of a file in which every format that gapstone writes says so."""


@dataclass(frozen=True)
class FolderKind:
    """What one command keeps in a folder."""

    command: str
    folders: frozenset[str]
    files: frozenset[str]
    signs: tuple[str, ...]
    """Names that a folder of this kind has, by which one without a marker is known."""
    leavings: tuple[str, ...] = ()
    """Patterns of what a killed process leaves in OUT, besides unfinished files."""


COMPARE = FolderKind(
    "compare",
    frozenset({"trials", "kept", "store"}),
    frozenset({"plan.json", "results.json", "results.csv", "predictions.csv", "pictures.npz", "report.html",
               "scan.json", "scan.txt", "scan.csv", "speed.json"}),
    ("trials", LOCK),
    (".store.*.tmp", ".store.*.old"),
)  # fmt: skip
EXPLAIN = FolderKind(
    "explain", frozenset({"maps", ".looked", ".thumbs"}), frozenset({"explained.json", "index.html"}), (".looked",)
)
CONVERT = FolderKind(
    "convert", frozenset({"store", "kept"}), frozenset(), (), (".store.*.tmp", ".store.*.old")
)  # fmt: skip
CHECK = FolderKind(
    "check", frozenset(), frozenset({"scan.json", "scan.txt", "scan.csv", "scan.html"}), ("scan.json", "scan.txt")
)


@contextmanager
def own_folder(folder: Path, kind: FolderKind, option: str = "--out", say: Say | None = None) -> Iterator[None]:
    """The folder, made where it is missing and marked as gapstone's; one process at a time in it. What a killed one
    left unfinished in it is cleared away. After an error a folder that holds nothing is removed again.

        >>> with own_folder(out, COMPARE):
        ...     write_sealed(out / "plan.json", facts, "plan")

    say: is told in a line where the marker was damaged.
    Raises: ValueError as `check_folder`, and where another process is in it; OSError that names the path.
    """
    damaged = check_folder(folder, kind, option)  # before anything is written into it, be it a lock
    made = [each for each in (folder, *folder.parents) if not each.exists()]  # the innermost first
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as inside:
            try:
                inside.enter_context(locked(folder / LOCK, wait=False))
                _mark(folder, kind)
            except BlockingIOError:
                raise ValueError(
                    f"another gapstone {kind.command} is at work in {display(folder)}: wait, or choose another "
                    f"{option}."
                ) from None
            if damaged and say:
                say(damage_note([damaged]))
            for each in (folder, *(folder / name for name in sorted(kind.folders))):
                _sweep(each, (UNFINISHED, *(kind.leavings if each == folder else ())))
            yield
    except BaseException:
        _leave(folder, kind, made)
        raise


def check_folder(folder: Path, kind: FolderKind, option: str = "--out") -> DamagedError | None:
    """Nothing is written: can gapstone write into the folder, or make it, and may it? Returns what is wrong with its
    marker.

    Raises: PathError (a ValueError) where it cannot be written; ValueError where it is not of this kind.
    """
    if not os.fspath(folder).strip() or folder == Path():
        raise ValueError(f"{option} is the working folder itself: name a folder for the results.")
    output_folder(option, folder, sorted((*kind.files, MARKER, LOCK)), sorted(kind.folders))
    if not os.path.lexists(folder):
        return None
    damaged = None
    try:
        whose = read_sealed(folder / MARKER, MARKER)["command"]
    except FileNotFoundError:
        whose = None
    except DamagedError as error:
        whose, damaged = None, error
    if whose is None:
        _refuse_foreign(folder, kind, option)
    elif whose != kind.command:
        raise ValueError(f"{option} {display(folder)} holds what gapstone {whose} wrote: choose another folder.")
    for name in sorted(kind.folders):
        if (folder / name).is_symlink():
            raise ValueError(f"{display(folder / name)} is a link, and gapstone keeps a folder there: remove it.")
    return damaged


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Nobody else is inside with the same path. A link in its place is refused, and no file is emptied.

    Raises: BlockingIOError where somebody is, and `wait` is False; ValueError for a path that cannot be a lock.
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
    """`path`, where gapstone can write a file, and may: there is none, or an empty one, or one of its own, in whatever
    format. Asked before the work, not after it.

        >>> own_file(Path("models"), "model.safetensors")
        PathError: --out models is a folder; name a file in it, such as models/model.safetensors.

    Raises: PathError (a ValueError) where it cannot be written; ValueError where it is not gapstone's to replace.
    """
    output_file(option, path, example)
    what = f"{option} {display(path)}"
    if path.is_symlink():
        to = display(os.readlink(path))
        raise ValueError(f"{what} is a link to {to}: name the file itself, or remove the link.")
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
    """Remove what gapstone keeps in a folder of its own, and the folder, if nothing else lies there."""
    for name in (*kind.folders, *kind.files, LOCK, MARKER):  # the marker last: until then it is gapstone's
        remove(folder / name)
    _sweep(folder, (UNFINISHED, *kind.leavings))
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
    """Raises ValueError where a folder without a marker holds anything that this kind of folder does not."""
    names = sorted(os.listdir(folder))
    ours = [name for name in names if name in kind.folders | kind.files]
    beside = [name for name in names if name not in ours and not _left(name, kind)]
    if beside or (ours and not all((folder / name).exists() for name in kind.signs)):
        found = (beside or ours)[0]
        raise ValueError(
            f"{option} {display(folder)} holds '{display(found)}', which gapstone {kind.command} did not write there: "
            f"choose a new or empty folder."
        )


def _left(name: str, kind: FolderKind) -> bool:
    patterns = (UNFINISHED, *kind.leavings)
    return name in (MARKER, LOCK) or name.lower() in NOBODYS or any(fnmatchcase(name, one) for one in patterns)


def _sweep(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            remove(path)


def _leave(folder: Path, kind: FolderKind, made: list[Path]) -> None:
    """What was made for a run that came to nothing is removed again."""
    if not made:
        return
    with suppress(OSError):
        for name in kind.folders:
            with suppress(OSError):
                (folder / name).rmdir()  # only where it is empty
        if set(os.listdir(folder)) <= {MARKER, LOCK}:
            for name in (MARKER, LOCK):
                (folder / name).unlink(missing_ok=True)
            for each in made:
                each.rmdir()
