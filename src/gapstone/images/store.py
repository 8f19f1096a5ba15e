"""Store: every image decoded once, as one memory-mapped uint8 array (N, h, w, C) that all trials and processes share.

Written under a temporary name and renamed when whole, so that a folder that is there is right. Its key is a hash of
what went in (files' content, labels, preprocessing); the same key is reused, another one rebuilt.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapstone.disk import size

from .crew import Lost, crew
from .load import MAX_PIXELS, VERSION, ImageError, load
from .names import display
from .preprocessing import Preprocessing
from .sources import Source

if TYPE_CHECKING:
    from .scan import Scan

_SCHEMA = 1
_FILES = {"images.npy", "rows.npz", "store.json"}
TIME_LIMIT = 60.0  # seconds for one file


class StoreError(RuntimeError):
    """The store cannot be written or read; the message says why."""


@dataclass(frozen=True, eq=False)
class Store:
    """Decoded images on disk; pickled as its path only.

    ```python
    store = build(source, indices, preprocessing, Path("runs/x/store"))
    store.images[[3, 1]].shape            # (2, 256, 256, 3) uint8, read from disk as needed
    store.labels[3], store.names[3]       # 0, 'rose/12.jpg'
    store.rows(split.train)               # indices into source.items → rows here
    ```
    """

    folder: Path
    key: str
    images: NDArray[np.uint8]  # (N, h, w, C), read-only
    labels: NDArray[np.int64]  # (N,)
    indices: NDArray[np.int64]  # (N,) into source.items
    names: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Store":
        """Open what `build` wrote. Raises StoreError where there is no whole store."""
        folder = Path(folder)
        try:
            about = json.loads((folder / "store.json").read_text("utf-8"))
            if about["schema"] != _SCHEMA:
                raise StoreError(
                    f"{display(folder)}: a store of schema {about['schema']}, this version reads {_SCHEMA}"
                )
            images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
            if list(images.shape) != about["shape"] or images.dtype != np.uint8:
                raise StoreError(f"{display(folder)}: images.npy is not what store.json says; delete the folder")
            with np.load(folder / "rows.npz", allow_pickle=False) as rows:
                labels, indices = rows["labels"], rows["indices"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"{display(folder)}: no store that can be read ({e})") from e
        # a plain array over the mapping: np.memmap would turn every batch into a memmap too
        return cls(folder, about["key"], np.asarray(images), labels, indices, tuple(about["names"]))

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.folder,)

    def rows(self, indices: NDArray[np.integer] | Sequence[int]) -> NDArray[np.int64]:
        """Rows of the store for indices into `source.items`. Raises KeyError for one that is not stored."""
        wanted = np.asarray(indices, np.int64)
        order = np.argsort(self.indices, kind="stable")
        at = np.searchsorted(self.indices, wanted, sorter=order)
        rows = order[np.minimum(at, len(order) - 1)]
        missing = wanted[self.indices[rows] != wanted]
        if len(missing):
            raise KeyError(f"{len(missing)} of the items are not in the store, item {missing[0]} for one")
        return rows


def build(
    source: Source,
    indices: NDArray[np.integer] | Sequence[int],
    preprocessing: Preprocessing,
    folder: str | os.PathLike[str],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    scan: "Scan | None" = None,
    max_pixels: int = MAX_PIXELS,
) -> Store:
    """Decode the items at `indices`, in that order, into `folder`; at once where they are there already.

    scan: what `scan(source)` found; its content hashes make the key (else each file's size and time of change).
    progress: called with (done, all). Raises StoreError: no space, a file that cannot be decoded after all, …
    """
    folder = Path(folder)
    chosen = np.asarray(indices, np.int64)
    if len(chosen) == 0:
        raise StoreError(f"no images of {display(source.given)!r} to store")
    key = _key(source, chosen, preprocessing, scan)
    if (folder / "store.json").exists():
        try:
            known = Store.open(folder)
        except StoreError:
            known = None  # damaged or of another version: rebuilt
        if known is not None and known.key == key:
            if progress is not None:
                progress(len(chosen), len(chosen))
            return known
    if folder.exists() and (others := sorted(set(os.listdir(folder)) - _FILES)):
        raise StoreError(f"{display(folder)} is not a store (it holds {display(others[0])}): give a new folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write(source, chosen, preprocessing, temporary, key, workers, progress, max_pixels)
        _put_in_place(temporary, folder)
    except OSError as e:
        raise StoreError(f"cannot write the decoded images to {display(folder)}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store.open(folder)


def moments(
    store: Store, rows: NDArray[np.integer] | Sequence[int] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel on the scale 0…1, over the rows given (the training images) or all.

    Exact: sums of integers, in no order that could matter. A channel that never changes gets the std of one gray level.
    """
    wanted = np.arange(len(store)) if rows is None else np.sort(np.asarray(rows, np.int64))
    if len(wanted) == 0:
        raise ValueError("moments of no images")
    channels = store.images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(wanted), 256):
        batch = store.images[wanted[start : start + 256]]
        for c in range(channels):
            counts[c] += np.bincount(batch[..., c].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(float(m) for m in mean), tuple(float(s) for s in std)


def fit_file(constant: tuple[Preprocessing, int], path: Path) -> NDArray[np.uint8] | str:
    """In a worker process: one file, fitted; or the reason why not."""
    preprocessing, max_pixels = constant
    try:
        return preprocessing.fit(load(path, max_pixels=max_pixels).pixels)
    except ImageError as e:
        return str(e)


def _key(source: Source, chosen: NDArray[np.int64], preprocessing: Preprocessing, scan: "Scan | None") -> str:
    # mean and std don't touch what is stored: they are measured on it
    about = [_SCHEMA, VERSION, preprocessing.channels, preprocessing.stored, source.classes]
    digest = hashlib.sha256(json.dumps(about).encode())
    for i in chosen.tolist():
        item = source.items[i]
        if scan is not None:
            content = scan.facts[i].sha256
        elif item.path is not None:
            try:
                status = os.stat(item.path)
            except OSError as e:
                raise StoreError(f"{item.name}: {e.strerror or e}") from e
            content = f"{item.path.absolute()}:{status.st_size}:{status.st_mtime_ns}"
        else:
            assert source.array is not None
            content = hashlib.sha256(source.array[item.row].tobytes()).hexdigest()
        digest.update(f"{i}\0{item.name}\0{item.label}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _write(
    source: Source,
    chosen: NDArray[np.int64],
    preprocessing: Preprocessing,
    folder: Path,
    key: str,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    max_pixels: int,
) -> None:
    shape = (len(chosen), *preprocessing.stored, preprocessing.channels)
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
    if needed + (64 << 20) > free:
        raise StoreError(
            f"{len(chosen):,} decoded images of {shape[1]}×{shape[2]} need {size(needed)} in "
            f"{display(folder.parent)}, where {size(free)} are free (64 MB stay free). Use a smaller size or limit."
        )
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for done, (row, fitted) in enumerate(_fitted(source, chosen, preprocessing, workers, max_pixels), start=1):
        if isinstance(fitted, str):
            name = source.items[int(chosen[row])].name
            raise StoreError(f"{name}: {fitted}. Has the file changed since the scan? Scan again.")
        images[row] = fitted
        if progress is not None:
            progress(done, len(chosen))
    images.flush()
    del images
    labels = np.asarray([source.items[i].label for i in chosen.tolist()], np.int64)
    np.savez(folder / "rows.npz", labels=labels, indices=chosen)
    names = [source.items[i].name for i in chosen.tolist()]
    about = {"schema": _SCHEMA, "key": key, "shape": list(shape), "names": names}
    (folder / "store.json").write_text(json.dumps(about, ensure_ascii=False), "utf-8")


def _fitted(
    source: Source, chosen: NDArray[np.int64], preprocessing: Preprocessing, workers: int | None, max_pixels: int
) -> Iterator[tuple[int, NDArray[np.uint8] | str]]:
    if source.array is not None:
        for row, i in enumerate(chosen.tolist()):
            yield row, preprocessing.fit(source.array[source.items[i].row])
        return
    paths = [source.items[i].path for i in chosen.tolist()]
    constant = (preprocessing, max_pixels)
    answers = crew(
        "gapstone.images.store:fit_file",
        paths,
        constant,
        workers=workers,
        time_limit=TIME_LIMIT,
        memory_limit=memory_limit(max_pixels),
    )
    for row, answer in answers:
        yield row, answer.reason if isinstance(answer, Lost) else answer


def memory_limit(max_pixels: int) -> int:
    """Bytes of address space a decoding process may take: 16 per pixel at the limit, and the interpreter's own."""
    return max_pixels * 16 + (4 << 30)


def sweep(folder: Path) -> None:
    """Remove what builds of this store left that were killed; while no other process builds it."""
    for pattern in (f".{folder.name}.*.tmp", f".{folder.name}.*.old"):
        for left in folder.parent.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def _put_in_place(temporary: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.rename(folder, old)  # whoever has it mapped keeps the old pages
    try:
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(old, ignore_errors=True)
