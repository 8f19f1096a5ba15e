"""Files and folders that people name: checked before they are opened or made; what the system refuses, in a sentence.

An input is a regular file, or a link to one: opening a pipe waits for ever, a device may never end.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gapstone.console.formatting import display

Name = str | os.PathLike[str]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class PathError(ValueError):
    """A path cannot be used for what it was given for; the message says what is there and what was expected."""


class NoFileError(PathError, FileNotFoundError):
    """There is nothing under this path."""


def check_input(what: str, path: Name) -> None:
    """Is `path` a regular file that may be read? For libraries that open it by its name.

        >>> check_input(f"--weights {path}", path)

    Raises: PathError, which begins with `what`.
    """
    try:
        mode = os.stat(path).st_mode  # of what a link leads to
    except FileNotFoundError:
        dangling = os.path.islink(path)
        reason = "a link to a file that does not exist" if dangling else "there is no such file"
        raise NoFileError(f"{what}: {reason}.") from None
    except OSError as error:
        raise PathError(f"{what}: {_reason(error)}.") from error
    except ValueError as error:  # a NUL in the name
        raise PathError(f"{what}: not a possible file name ({error}).") from error
    if not stat.S_ISREG(mode):
        raise PathError(f"{what} is {_kind(mode)}; expected a regular file.")
    if not os.access(path, os.R_OK):
        raise PathError(f"{what}: no permission to read it.")


def open_input(what: str, path: Name) -> BinaryIO:
    """A regular file, opened to read its bytes.

        >>> with open_input(f"--boxes {path}", path) as file:
        ...     data = file.read()

    Raises: PathError, which begins with `what`.
    """
    check_input(what, path)
    try:
        file: BinaryIO = open(path, "rb", opener=opener)  # noqa: SIM115  the caller closes it
    except OSError as error:
        raise PathError(f"{what}: {_reason(error)}.") from error
    if not stat.S_ISREG(mode := os.fstat(file.fileno()).st_mode):  # exchanged since it was checked
        file.close()
        raise PathError(f"{what} is {_kind(mode)}; expected a regular file.")
    return file


def opener(path: str, flags: int) -> int:
    """For `open(path, opener=opener)`: does not wait where a pipe has taken the file's place since it was checked."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def output_file(option: str, path: Path, example: str) -> Path:
    """`path`, where a file can be written or replaced: asked before the work, not after it.

        >>> output_file("--out", Path("models"), "model.safetensors")
        PathError: --out models is a folder; name a file in it, such as models/model.safetensors.

    Raises: PathError.
    """
    what = f"{option} {display(path)}"
    mode = _mode(what, path)
    if mode is not None and stat.S_ISDIR(mode):
        raise PathError(f"{what} is a folder; name a file in it, such as {display(path / example)}.")
    if mode is not None and not stat.S_ISREG(mode):
        raise PathError(f"{what} is {_kind(mode)}, which is not replaced; name a file.")
    parent = _mode(what, path.parent)
    if parent is None or not stat.S_ISDIR(parent):
        state = "there is no folder" if parent is None else f"{_kind(parent)}, not a folder, is"
        raise PathError(f"{what}: {state} {display(path.parent)}; make it first.")
    _check_writable(what, path.parent)
    return path


def output_folder(option: str, path: Path, files: Sequence[str] = (), folders: Sequence[str] = ()) -> Path:
    """`path`, where a folder is or can be made and written to; nothing is made yet.

        >>> output_folder("--out", Path("runs/first"), files=("results.json",), folders=("trials",))

    files, folders: names that will be written in it; what is there under such a name must be of that kind.
    Raises: PathError.
    """
    what = f"{option} {display(path)}"
    mode = _mode(what, path)
    if mode is None:
        if path.is_symlink():
            raise PathError(f"{what} is a link to a folder that does not exist; make that, or name another.")
        above = next(parent for parent in (*path.absolute().parents,) if _mode(what, parent) is not None)
        found = _mode(what, above)
        assert found is not None
        if not stat.S_ISDIR(found):
            raise PathError(f"{what}: {display(above)} is {_kind(found)}, not a folder; name another place.")
        _check_writable(what, above)
        return path
    if not stat.S_ISDIR(mode):
        raise PathError(f"{what} is {_kind(mode)}; name a folder.")
    _check_writable(what, path)
    for names, expected, right in ((files, "a file", stat.S_ISREG), (folders, "a folder", stat.S_ISDIR)):
        for name in names:
            there = _mode(what, path / name)
            if there is not None and not right(there):
                raise PathError(
                    f"{what}: {display(path / name)} is {_kind(there)}, where {expected} will be written; move it "
                    f"away, or name another folder."
                )
    return path


@contextmanager
def of_path(path: Path, needed: int | None = None, written_as: Path | None = None) -> Iterator[None]:
    """An OSError from within says of which path, and of a full disk how many bytes were `needed` and how many are free.

    written_as: the name under which `path` is written until it is whole; nobody knows it.

    >>> with of_path(Path("results.json"), needed=len(content)):
    ...     file.write(content)
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # others carry a message of their own
            if error.filename is None or (written_as and error.filename == os.fspath(written_as)):
                error.filename = os.fspath(path)
                del error.filename2  # set to None it would be printed
            if error.errno in _FULL and needed is not None:
                error.needed = needed  # type: ignore[attr-defined]  # read by `sentence`
        raise


def sentence(error: OSError) -> str:
    """What the system refused, of which path, and what to do.

    >>> sentence(PermissionError(errno.EACCES, "Permission denied", "/data/x"))
    '/data/x: no permission; change its permissions, or name another place.'
    """
    if error.errno is None:
        return str(error)
    paths = [display(os.fsdecode(one)) for one in (error.filename, error.filename2) if isinstance(one, str | bytes)]
    where = f"{' → '.join(paths)}: " if paths else ""
    if error.errno in _FULL:
        return where + _full(error)
    reason, way = _reason(error), _WAYS.get(error.errno, "")
    return f"{where}{reason}{'; ' if way else ''}{way}."


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted",
    errno.EROFS: "its file system is read-only",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "is a folder, not a file",
    errno.EEXIST: "is there already",
    errno.ENAMETOOLONG: "the name is too long (most file systems take 255 bytes)",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open in the whole system",
    errno.EIO: "the disk reports an error (input/output)",
    errno.EFBIG: "the file would be larger than its file system takes",
    errno.ENOMEM: "there is not enough memory",
    errno.ESTALE: "the network file system has lost it",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EBUSY: "is in use",
}
_WAYS = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "name another place",
    errno.EROFS: "name another place",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EIO: "check the disk, or name another place",
    errno.ENFILE: "end other programs",
    errno.ENOMEM: "end other programs, or ask for less",
    errno.ESTALE: "mount it again",
}


def _reason(error: OSError) -> str:
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    if error.errno == errno.EMFILE:
        import resource  # not on Windows, which has no such limit

        reason += f"; this process may open {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}: raise it with ulimit -n"
    return reason


def _full(error: OSError) -> str:
    reason = "the disk is full" if error.errno == errno.ENOSPC else "your quota on this disk is used up"
    sizes = []
    if (needed := getattr(error, "needed", None)) is not None:
        sizes.append(f"{size(needed)} are needed")
    if isinstance(error.filename, str | bytes):
        with suppress(OSError):
            sizes.append(f"{size(free(Path(os.fsdecode(error.filename))))} are free")
    known = f" ({', '.join(sizes)})" if sizes else ""
    return f"{reason}{known}; delete something there, or name another place."


def free(path: Path) -> int:
    """Bytes that may still be written where `path` is or would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def size(count: int) -> str:
    """>>> size(512), size(2_000_000)
    ('512 bytes', '2.0 MB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _mode(what: str, path: Path) -> int | None:
    """What is there, a link followed; None where nothing is."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PathError(f"{what}: {_reason(error)}.") from error
    except ValueError as error:  # a NUL in the name
        raise PathError(f"{what}: not a possible file name ({error}).") from error


def _check_writable(what: str, folder: Path) -> None:
    with suppress(OSError, AttributeError):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise PathError(f"{what}: the file system of {display(folder)} is read-only; name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PathError(f"{what}: no permission to write into {display(folder)}; name another place.")


def _kind(mode: int) -> str:
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a file")
