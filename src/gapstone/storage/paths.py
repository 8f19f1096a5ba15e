"""Checks of the files and folders that users name, and the operating system's errors as sentences.

An input must be a regular file or a link to one: opening a pipe waits for ever, and a device may have no end.
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
    """A path cannot be used for its purpose; the message says what is there and what is expected."""


class NoFileError(PathError, FileNotFoundError):
    """There is nothing under this path."""


def check_input(what: str, path: Name) -> None:
    """Check that `path` is a readable regular file, before a library opens it by its name.

        >>> check_input(f"--weights {path}", path)

    Raises:
        PathError: it is not; the message begins with `what`.
    """
    try:
        mode = os.stat(path).st_mode  # of the target, if it is a link
    except FileNotFoundError:
        reason = "a link to a file that does not exist" if os.path.islink(path) else "there is no such file"
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
    """Open a regular file to read its bytes.

        >>> with open_input(f"--boxes {path}", path) as file:
        ...     data = file.read()

    Raises:
        PathError: it cannot be opened; the message begins with `what`.
    """
    check_input(what, path)
    try:
        file: BinaryIO = open(path, "rb", opener=opener)  # noqa: SIM115  the caller closes it
    except OSError as error:
        raise PathError(f"{what}: {_reason(error)}.") from error
    if not stat.S_ISREG(mode := os.fstat(file.fileno()).st_mode):  # replaced after the check
        file.close()
        raise PathError(f"{what} is {_kind(mode)}; expected a regular file.")
    return file


def opener(path: str, flags: int) -> int:
    """For `open(path, opener=opener)`: do not wait if a pipe replaced the file after the check."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def output_file(option: str, path: Path, example: str) -> Path:
    """Check, before any work, that a file can be written to `path`; return `path`.

        >>> output_file("--out", Path("models"), "model.safetensors")
        PathError: --out models is a folder; name a file in it, such as models/model.safetensors.

    Raises:
        PathError: it cannot.
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
    """Check that `path` is, or can become, a folder that can be written to; create nothing; return `path`.

        >>> output_folder("--out", Path("runs/first"), files=("results.json",), folders=("trials",))

    `files` and `folders` will be written into it: what already has such a name must be of that kind. Raises PathError.
    """
    what = f"{option} {display(path)}"
    mode = _mode(what, path)
    if mode is None:
        if path.is_symlink():
            raise PathError(f"{what} is a link to a folder that does not exist; make that, or name another.")
        modes = ((parent, _mode(what, parent)) for parent in path.absolute().parents)
        parent, parent_mode = next((parent, mode) for parent, mode in modes if mode is not None)
        if not stat.S_ISDIR(parent_mode):
            raise PathError(f"{what}: {display(parent)} is {_kind(parent_mode)}, not a folder; name another place.")
        _check_writable(what, parent)
        return path
    if not stat.S_ISDIR(mode):
        raise PathError(f"{what} is {_kind(mode)}; name a folder.")
    _check_writable(what, path)
    for names, expected, is_expected in ((files, "a file", stat.S_ISREG), (folders, "a folder", stat.S_ISDIR)):
        for name in names:
            mode = _mode(what, path / name)
            if mode is not None and not is_expected(mode):
                raise PathError(
                    f"{what}: {display(path / name)} is {_kind(mode)}, where {expected} will be written; move it "
                    f"away, or name another folder."
                )
    return path


@contextmanager
def path_in_errors(path: Path, needed: int | None = None, written_as: Path | None = None) -> Iterator[None]:
    """Make an OSError raised inside name `path`; `sentence` then says how many bytes a full disk lacks.

        >>> with path_in_errors(Path("results.json"), needed=len(content)):
        ...     file.write(content)

    `written_as` is the temporary name of `path`; errors name `path` instead, which the user knows.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # without it, the error has only a message of its own
            if error.filename is None or (written_as and error.filename == os.fspath(written_as)):
                error.filename = os.fspath(path)
                del error.filename2  # if it were None, it would be printed
            if error.errno in _FULL and needed is not None:
                error.needed = needed  # type: ignore[attr-defined]  # read by `sentence`
        raise


def sentence(error: OSError) -> str:
    """An operating system's error as a sentence: the path, what is wrong, and what to do.

    >>> sentence(PermissionError(errno.EACCES, "Permission denied", "/data/x"))
    '/data/x: no permission; change its permissions, or name another place.'
    """
    if error.errno is None:
        return str(error)
    names = error.filename, error.filename2
    paths = [display(os.fsdecode(name)) for name in names if isinstance(name, str | bytes)]
    where = f"{' → '.join(paths)}: " if paths else ""
    if error.errno in _FULL:
        return where + _disk_full(error)
    reason, advice = _reason(error), _ADVICE.get(error.errno, "")
    return f"{where}{reason}{'; ' if advice else ''}{advice}."


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
_ADVICE = {
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
        import resource  # here, because Windows has no such module

        reason += f"; this process may open {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}: raise it with ulimit -n"
    return reason


def _disk_full(error: OSError) -> str:
    reason = "the disk is full" if error.errno == errno.ENOSPC else "your quota on this disk is used up"
    sizes = []
    if (needed := getattr(error, "needed", None)) is not None:
        sizes.append(f"{format_bytes(needed)} are needed")
    if isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
        with suppress(OSError):
            folder = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
            sizes.append(f"{format_bytes(shutil.disk_usage(folder).free)} are free")
    details = f" ({', '.join(sizes)})" if sizes else ""
    return f"{reason}{details}; delete something there, or name another place."


def format_bytes(count: int) -> str:
    """A number of bytes in a readable unit.

    >>> format_bytes(512), format_bytes(2_000_000)
    ('512 bytes', '2.0 MB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _mode(what: str, path: Path) -> int | None:
    """The file mode of `path`, with links followed; None if it does not exist."""
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
