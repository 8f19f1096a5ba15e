"""Stores the rows that a pass over many images computes on disk, so that a stopped pass resumes where it was."""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from math import isfinite, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.console.formatting import display, format_size
from gapstone.storage import block_digest
from gapstone.storage.atomic import remove, sync_folder
from gapstone.storage.owned_folder import locked
from gapstone.storage.paths import format_bytes, path_in_errors
from gapstone.storage.sealed_json import DamagedError, damage_note, open_own, read_sealed, write_sealed

SYNC, SECONDS = 64 << 20, 10.0
"""Bytes, and seconds, between two notes of the progress: a kill loses at most so much work."""


class RowsError(RuntimeError):
    """The rows cannot be stored; the message says why and what to do."""


def compute_rows(
    folder: Path,
    name: str,
    about: Any,
    count: int,
    make: Callable[[int, int], Tensor],
    step: int,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> NDArray[Any]:
    """Compute `count` rows with `make`, or read them where an earlier run stored them; a read-only array on disk.

        >>> maps = compute_rows(out / "kept", "maps", {"model": digest, "rows": rows.tolist()}, len(rows),
        ...             lambda first, last: features(images[first:last]), step=64, dtype=torch.float16)
        >>> maps.shape, maps.dtype
        ((5000, 512, 7, 7), dtype('float16'))

    One process at a time computes a file; others wait for it. `make(first, last)` returns last - first rows, all of the
    same shape, on any device. Rows of another `about` (JSON), `count`, `step` or `dtype` go to another file: a resumed
    run must compute the same batches. `log` receives a line about damaged rows, which are computed again.

    Raises:
        RowsError: the disk is too small, or a number does not fit into half precision.
    """
    digest = hashlib.sha256(json.dumps([about, count, step, str(dtype)], sort_keys=True).encode()).hexdigest()[:16]
    log = log or (lambda line: None)
    file = _File(folder, f"{name}-{digest}", count, log)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{name}-{digest}.lock"):  # if another process computes these rows: wait, then read them
        try:
            complete = file.is_complete()
        except DamagedError as error:
            complete = False
            log(damage_note([error]))
            file.delete()
        if not complete:
            file.fill(make, step, dtype, progress)
            file.part.replace(file.path)
            sync_folder(folder)
    rows: NDArray[Any] = np.load(file.path, mmap_mode="r", allow_pickle=False)
    return rows


class _File:
    """The rows on disk: NAME.npy, or .NAME.part while incomplete, and a sealed note .NAME.rows.

    The note holds the number of rows, their bytes and their digest.
    """

    def __init__(self, folder: Path, name: str, count: int, log: Callable[[str], None] = lambda line: None) -> None:
        self.path, self.part, self.note_path = (
            folder / name for name in (f"{name}.npy", f".{name}.part", f".{name}.rows")
        )
        self.name, self.count, self.log = name, count, log

    def is_complete(self) -> bool:
        """Whether NAME.npy exists and fits its note. Raises DamagedError if it exists and does not."""
        if not os.path.lexists(self.path):
            return False
        note = self._read_note()
        if note is None:
            raise DamagedError(self.path, "has no note of its digest")
        if note["rows"] != self.count or note["digest"] != block_digest.digest(self.path):
            raise DamagedError(self.path, "does not fit its digest")
        return True

    def delete(self) -> None:
        # the note first: after a kill in between, the file without a note counts as damaged
        remove(self.note_path)
        remove(self.path)

    def _read_note(self) -> dict[str, Any] | None:
        """The note; None if there is none. Raises DamagedError."""
        with suppress(FileNotFoundError):
            return read_sealed(self.note_path, self.name)
        return None

    def fill(
        self,
        make: Callable[[int, int], Tensor],
        step: int,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Write all rows that an earlier run has not left; the arguments are those of `compute_rows`."""
        count = self.count
        try:
            begin, digest = self._resume()
        except DamagedError as error:
            self.log(damage_note([error]))
            begin, digest = 0, block_digest.BlockDigest()
        done, noted, note_time, unnoted_bytes = begin, begin, time.monotonic(), 0
        file = open_own(self.part, os.O_RDWR) if begin else None
        try:
            if file is not None:
                file.seek(0, os.SEEK_END)
            for first in range(begin, count, step):
                last = min(first + step, count)
                tensor = make(first, last).detach()
                if len(tensor) != last - first:
                    raise ValueError(f"make({first}, {last}) gave {len(tensor)} rows")
                rows = _cast(tensor, dtype)
                if file is None:
                    file = self._begin((count, *tensor.shape[1:]), rows.dtype, digest)
                with path_in_errors(self.part, needed=(count - first) * rows[0].nbytes):
                    file.write(rows.data.cast("B"))
                digest.update(rows.data.cast("B"))
                done, unnoted_bytes = last, unnoted_bytes + rows.nbytes
                if unnoted_bytes >= SYNC or time.monotonic() - note_time >= SECONDS:
                    self._write_note(file, done, digest)
                    noted, note_time, unnoted_bytes = done, time.monotonic(), 0
                if progress is not None:
                    progress(last, count)
            if file is None:
                raise ValueError("there are no rows to keep")
            self._write_note(file, count, digest)
        except BaseException:  # most often Ctrl-C
            if file is not None and done > noted:
                with suppress(OSError):  # most likely the disk is full: the rows since the last note are computed again
                    self._write_note(file, done, digest)
            raise
        finally:
            if file is not None:
                file.close()

    def _resume(self) -> tuple[int, block_digest.BlockDigest]:
        """Cut the file to the rows that its note counts; return their number and their digest. Raises DamagedError."""
        digest = block_digest.BlockDigest()
        note = self._read_note()
        if note is None or not os.path.lexists(self.part):
            return 0, digest
        with open_own(self.part, os.O_RDWR) as file:
            for piece in block_digest.first_bytes(file, note["bytes"]):
                digest.update(piece)
            if digest.hexdigest() != note["digest"]:
                raise DamagedError(self.part, "does not fit its digest")
            file.truncate(note["bytes"])  # removes rows that were written after the note
        return note["rows"], digest

    def _begin(self, shape: tuple[int, ...], dtype: np.dtype[Any], digest: block_digest.BlockDigest) -> BinaryIO:
        """Create the file and write its header. Raises RowsError if the rows do not fit on the disk."""
        remove(self.note_path)  # before the rows, so that after a kill in between no note counts rows that are gone
        remove(self.part)
        needed = prod(shape) * dtype.itemsize
        free = shutil.disk_usage(self.part.parent).free
        if needed + (64 << 20) > free:
            raise RowsError(
                f"{shape[0]:,} × {format_size(shape[1:])} numbers need {format_bytes(needed)} in "
                f"{display(self.part.parent)}, where {format_bytes(free)} are free (64 MB stay free): "
                f"fewer or smaller images, or another folder"
            )
        header = io.BytesIO()
        fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, fields)
        file = open_own(self.part, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        file.write(header.getvalue())
        digest.update(header.getvalue())
        return file

    def _write_note(self, file: BinaryIO, done: int, digest: block_digest.BlockDigest) -> None:
        with path_in_errors(self.part):
            file.flush()
            os.fsync(file.fileno())  # the rows must be on disk before the note that counts them
        facts = {"rows": done, "bytes": file.tell(), "digest": digest.hexdigest()}
        write_sealed(self.note_path, facts, self.name)


def _cast(tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    cast = tensor.to("cpu", dtype)
    if dtype == torch.float16 and not bool(cast.isfinite().all()):
        largest = float(tensor.abs().max())
        if not isfinite(largest):
            raise RowsError("there is NaN or infinity among the values: look for it in what they are made of")
        raise RowsError(f"values up to {largest:.3g} do not fit into half precision (65,504); keep them in float32")
    array: NDArray[Any] = cast.contiguous().numpy()
    return array
