"""What one pass over many images made, kept on disk row by row: a pass that is stopped goes on where it was."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.disk import size
from gapstone.shown import display
from gapstone.whole import write_whole

SYNC, SECONDS = 64 << 20, 10.0
"""Bytes, and seconds, between two notes of how far it is; a kill costs at most so much work again."""


class KeptError(RuntimeError):
    """It cannot be kept; the message says why and what to do."""


def keep(
    folder: Path,
    name: str,
    about: Any,
    count: int,
    make: Callable[[int, int], Tensor],
    step: int,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[Any]:
    """Rows 0…count of whatever `make` makes, as a read-only array that lies on disk.

        >>> maps = keep(out / "kept", "maps", {"model": digest, "rows": rows.tolist()}, len(rows),
        ...             lambda first, last: features(images[first:last]), step=64, dtype=torch.float16)
        >>> maps.shape, maps.dtype
        ((5000, 512, 7, 7), dtype('float16'))

    about: all that the rows depend on, as JSON: with other facts it is another file. make(first, last): a tensor of
    last - first rows, all of one shape, on any device. step: rows per call; the same on every run, as a resumed run
    must make the same batches. dtype: float32 or float16, half the size.

    One process at a time works on a file. Raises: KeptError where the disk is too small, or a number does not fit into
    half precision.
    """
    digest = hashlib.sha256(json.dumps([about, count, step, str(dtype)], sort_keys=True).encode()).hexdigest()[:16]
    done = folder / f"{name}-{digest}.npy"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}-{digest}.part"
        with _alone(folder / f".{name}-{digest}.lock"):
            if not done.exists():
                _fill(part, count, make, step, dtype, progress)
                part.replace(done)
                # after it: without a note a full part would be made again; a note without a part is never believed
                _note(part).unlink(missing_ok=True)
    kept: NDArray[Any] = np.load(done, mmap_mode="r")
    return kept


def _fill(
    part: Path,
    count: int,
    make: Callable[[int, int], Tensor],
    step: int,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None,
) -> None:
    rows: Any = None
    begin = _known(part)
    if begin:
        rows = np.load(part, mmap_mode="r+")
    done, noted, then = begin, begin, time.monotonic()
    try:
        for first in range(begin, count, step):
            last = min(first + step, count)
            made = make(first, last).detach()
            if len(made) != last - first:
                raise ValueError(f"make({first}, {last}) gave {len(made)} rows")
            if rows is None:
                rows = _room(part, (count, *made.shape[1:]), dtype)
            rows[first:last] = _cast(made, dtype)
            done = last
            if rows[noted:done].nbytes >= SYNC or time.monotonic() - then >= SECONDS:
                _write_down(part, rows, done)
                noted, then = done, time.monotonic()
            if progress is not None:
                progress(last, count)
    except BaseException:  # Ctrl-C, above all
        if done > noted:
            _write_down(part, rows, done)
        raise
    if rows is None:
        raise ValueError("there are no rows to keep")
    rows.flush()


def _write_down(part: Path, rows: Any, done: int) -> None:
    rows.flush()  # first the rows, then the word that they are there
    write_whole(_note(part), str(done).encode())


def _cast(made: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    cast = made.to("cpu", dtype)
    if dtype == torch.float16 and not bool(cast.isfinite().all()):
        largest = float(made.abs().max())
        if not isfinite(largest):
            raise KeptError("there is NaN or infinity among the values: look for it in what they are made of")
        raise KeptError(f"values up to {largest:.3g} do not fit into half precision (65,504); keep them in float32")
    array: NDArray[Any] = cast.numpy()
    return array


def _room(part: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    _note(part).unlink(missing_ok=True)  # of rows that are no longer there: the note first, or a kill believes it
    part.unlink(missing_ok=True)
    kind = np.dtype(str(dtype).removeprefix("torch."))
    needed, free = int(np.prod(shape, dtype=np.int64)) * kind.itemsize, shutil.disk_usage(part.parent).free
    if needed + (64 << 20) > free:
        raise KeptError(
            f"{shape[0]:,} × {'×'.join(map(str, shape[1:]))} numbers need {size(needed)} in "
            f"{display(part.parent)}, where {size(free)} are free (64 MB stay free): fewer or smaller images, "
            f"or another folder"
        )
    return np.lib.format.open_memmap(part, mode="w+", dtype=kind, shape=shape)


def _known(part: Path) -> int:
    """How many rows an earlier run left."""
    try:
        return int(_note(part).read_text()) if part.exists() else 0
    except (OSError, ValueError):
        return 0


def _note(part: Path) -> Path:
    return part.with_suffix(".rows")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another process makes the same rows: wait, then read them
        yield
