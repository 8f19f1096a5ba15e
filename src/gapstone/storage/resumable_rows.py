"""What one pass over many images made, kept on disk row by row: a pass that is stopped goes on where it was."""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from math import isfinite
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
from gapstone.storage.paths import of_path, size
from gapstone.storage.sealed_json import DamagedError, damage_note, open_own, read_sealed, write_sealed

SYNC, SECONDS = 64 << 20, 10.0
"""Bytes, and seconds, between two notes of how far it is; a kill costs at most so much work again."""


class RowsError(RuntimeError):
    """It cannot be kept; the message says why and what to do."""


def compute_rows(
    folder: Path,
    name: str,
    about: Any,
    count: int,
    make: Callable[[int, int], Tensor],
    step: int,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> NDArray[Any]:
    """Rows 0…count of whatever `make` makes, as a read-only array that lies on disk.

        >>> maps = compute_rows(out / "kept", "maps", {"model": digest, "rows": rows.tolist()}, len(rows),
        ...             lambda first, last: features(images[first:last]), step=64, dtype=torch.float16)
        >>> maps.shape, maps.dtype
        ((5000, 512, 7, 7), dtype('float16'))

    about: all that the rows depend on, as JSON: with other facts it is another file. make(first, last): a tensor of
    last - first rows, all of one shape, on any device. step: rows per call; the same on every run, as a resumed run
    must make the same batches. dtype: float32 or float16, half the size. say: is told, in a line, of rows that are not
    those that were written; they are made anew.

    One process at a time works on a file. Raises: KeptError where the disk is too small, or a number does not fit into
    half precision.
    """
    digest = hashlib.sha256(json.dumps([about, count, step, str(dtype)], sort_keys=True).encode()).hexdigest()[:16]
    file = _File(folder, f"{name}-{digest}", count)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{name}-{digest}.lock"):  # another process makes the same rows: wait, then read them
        try:
            whole = file.is_whole()
        except DamagedError as error:
            whole = False
            if say is not None:
                say(damage_note([error]))
            file.forget()
        if not whole:
            file.part.fill(count, make, step, dtype, progress, say)
            file.part.path.replace(file.done)
            sync_folder(folder)
    kept: NDArray[Any] = np.load(file.done, mmap_mode="r", allow_pickle=False)
    return kept


class _File:
    """Rows on disk: NAME.npy; before they are all there .NAME.part; beside both .NAME.rows, a sealed note that says how
    many rows there are, and their digest.
    """

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.done, self.count = folder / f"{name}.npy", count
        self.part = _Part(folder / f".{name}.part", name)

    def is_whole(self) -> bool:
        """False where it is not there yet. Raises DamagedError."""
        if not os.path.lexists(self.done):
            return False
        known = self.part.known()
        if known is None:
            raise DamagedError(self.done, "has no note of its digest")
        if known["rows"] != self.count or known["digest"] != block_digest.digest(self.done):
            raise DamagedError(self.done, "does not fit its digest")
        return True

    def forget(self) -> None:
        # the note first: without it a kill in between leaves a file that nobody believes
        remove(self.part.note)
        remove(self.done)


class _Part:
    """Rows that are being made."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.note, self.name = path, path.with_suffix(".rows"), name

    def known(self) -> dict[str, Any] | None:
        """The note; None where there is none. Raises DamagedError."""
        try:
            return read_sealed(self.note, self.name)
        except FileNotFoundError:
            return None

    def fill(
        self,
        count: int,
        make: Callable[[int, int], Tensor],
        step: int,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None,
        say: Callable[[str], None] | None,
    ) -> None:
        begin, written = 0, block_digest.BlockDigest()
        try:
            begin, written = self._resume()
        except DamagedError as error:
            if say is not None:
                say(damage_note([error]))
        done, noted, then, unnoted = begin, begin, time.monotonic(), 0
        file = open_own(self.path, os.O_RDWR) if begin else None
        try:
            if file is not None:
                file.seek(0, os.SEEK_END)
            for first in range(begin, count, step):
                last = min(first + step, count)
                made = make(first, last).detach()
                if len(made) != last - first:
                    raise ValueError(f"make({first}, {last}) gave {len(made)} rows")
                rows = _cast(made, dtype)
                if file is None:
                    file = self._begin((count, *made.shape[1:]), rows.dtype, written)
                with of_path(self.path, needed=(count - first) * rows[0].nbytes):
                    file.write(rows.data.cast("B"))
                written.update(rows.data.cast("B"))
                done, unnoted = last, unnoted + rows.nbytes
                if unnoted >= SYNC or time.monotonic() - then >= SECONDS:
                    self._write_down(file, done, written)
                    noted, then, unnoted = done, time.monotonic(), 0
                if progress is not None:
                    progress(last, count)
            if file is None:
                raise ValueError("there are no rows to keep")
            self._write_down(file, count, written)
        except BaseException:  # Ctrl-C, above all
            if file is not None and done > noted:
                with suppress(OSError):  # a full disk, most likely: then the rows since the last note are made again
                    self._write_down(file, done, written)
            raise
        finally:
            if file is not None:
                file.close()

    def _resume(self) -> tuple[int, block_digest.BlockDigest]:
        """How many rows an earlier run left, and the digest so far; the file is cut to them. Raises DamagedError."""
        written = block_digest.BlockDigest()
        known = self.known()
        if known is None or not os.path.lexists(self.path):
            return 0, written
        with open_own(self.path, os.O_RDWR) as file:
            for some in block_digest.beginning(file, known["bytes"]):
                written.update(some)
            if written.hexdigest() != known["digest"]:
                raise DamagedError(self.path, "does not fit its digest")
            file.truncate(known["bytes"])  # rows that were written after the note
        return known["rows"], written

    def _begin(self, shape: tuple[int, ...], dtype: np.dtype[Any], written: block_digest.BlockDigest) -> BinaryIO:
        remove(self.note)  # of rows that are no longer there: the note first, or a kill believes it
        remove(self.path)
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        free = shutil.disk_usage(self.path.parent).free
        if needed + (64 << 20) > free:
            raise RowsError(
                f"{shape[0]:,} × {format_size(shape[1:])} numbers need {size(needed)} in "
                f"{display(self.path.parent)}, where "
                f"{size(free)} are free (64 MB stay free): fewer or smaller images, or another folder"
            )
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        file = open_own(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        file.write(header.getvalue())
        written.update(header.getvalue())
        return file

    def _write_down(self, file: BinaryIO, done: int, written: block_digest.BlockDigest) -> None:
        with of_path(self.path):
            file.flush()
            os.fsync(file.fileno())  # first the rows, then the word that they are there
        facts = {"rows": done, "bytes": file.tell(), "digest": written.hexdigest()}
        write_sealed(self.note, facts, self.name)


def _cast(made: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    cast = made.to("cpu", dtype)
    if dtype == torch.float16 and not bool(cast.isfinite().all()):
        largest = float(made.abs().max())
        if not isfinite(largest):
            raise RowsError("there is NaN or infinity among the values: look for it in what they are made of")
        raise RowsError(f"values up to {largest:.3g} do not fit into half precision (65,504); keep them in float32")
    array: NDArray[Any] = cast.contiguous().numpy()
    return array
