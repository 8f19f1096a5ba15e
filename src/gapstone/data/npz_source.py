"""Opens sources that are an .npz file of arrays; nothing is unpickled, and no more is unpacked than memory holds."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.array_source import FoundArrays, find_arrays, open_arrays
from gapstone.data.groups import NOTHING_ASKED, AskedColumns, kept_columns
from gapstone.data.memory_limits import check_unpacked
from gapstone.data.sources import DataError, Source
from gapstone.storage.paths import open_input


def open_npz(given: str, path: Path, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open an .npz file with `images`, `labels` and, optionally, `classes` and `split`; nothing is unpickled.

    `gapstone.data.array_source` says which other names the arrays may have, and what they may hold.
    """
    arrays, found = _arrays(display(given), path, asked)
    return open_arrays(given, "npz", arrays, found, asked, multi_label)


def _arrays(shown: str, path: Path, asked: AskedColumns) -> tuple[dict[str, NDArray[np.generic]], FoundArrays]:
    what = f"DATA {shown!r}"
    with open_input(what, path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
                found = find_arrays(what, list(members))
                kept = kept_columns(shown, [name.lower() for name in members], asked)
                members = {name: m for name, m in members.items() if name in found.names or name.lower() in kept}
                size = os.fstat(file.fileno()).st_size
                check_unpacked(what, size, sum(member.file_size for member in members.values()))
                for name, member in members.items():  # all of them, before any array is read
                    _check_header(what, archive, name, member)
                return {name: _array(archive, member) for name, member in members.items()}, found
        except DataError:
            raise
        except NotImplementedError as e:  # zipfile does not know the compression method or the version
            raise DataError(f"{what} is packed in a way that cannot be read ({e}); save it again with np.savez.") from e
        except Exception as e:  # zipfile, zlib and numpy raise many kinds of errors for damaged files
            raise DataError(f"{what} cannot be read as .npz ({e}); save it again with np.savez.") from e


def _check_header(what: str, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> None:
    """Raise DataError if a member is no array, does not fit its header, or holds pickled objects."""
    with archive.open(member) as file:
        if (magic := file.read(6)) != np.lib.format.MAGIC_PREFIX:
            _check_checksum(archive, member)
            raise DataError(
                f"{what}: its member {name!r} is no array (it begins with {magic!r}, an array with "
                f"{np.lib.format.MAGIC_PREFIX!r}); save it again with np.savez."
            )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        size = member.file_size - file.tell()
    if dtype.hasobject:
        _check_checksum(archive, member)
        raise DataError(f"{what}: {name} holds pickled objects, which are never loaded; save plain arrays.")
    if math.prod(shape) * dtype.itemsize != size:
        raise DataError(
            f"{what}: {name} should have {math.prod(shape) * dtype.itemsize:,} bytes, as its header says "
            f"{dtype} of shape {shape}, and has {size:,}; save it again with np.savez."
        )


def _check_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise BadZipFile if a member does not fit its checksum: then its header is wrong because it is damaged."""
    with archive.open(member) as file:
        while file.read(1 << 20):
            pass


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    # not np.load: if the first bytes are damaged, it takes the file for pickled data
    with archive.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        return array
