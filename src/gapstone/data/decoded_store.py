"""`Store`: all images decoded once, in a memory-mapped uint8 array (N, h, w, C) that all trials and processes share.

A store is written under a temporary name and renamed when it is complete. Its key is a hash of its inputs (the files'
content, labels, preprocessing); a store with another key is rebuilt. store.json is sealed and holds the digests of the
other two files, so a store of which a byte has changed is rebuilt, too.
"""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.memory_limits import worker_memory_limit
from gapstone.data.scan import Scan
from gapstone.data.sources import Source, Tasks
from gapstone.images.load import MAX_PIXELS, VERSION, Encoded, ImageError, load, read_bytes
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import EXACT
from gapstone.storage import block_digest
from gapstone.storage.atomic import sync_folder, write_atomic
from gapstone.storage.paths import format_bytes, path_in_errors, sentence
from gapstone.storage.sealed_json import DamagedError, damage_note, digests, open_own, read_sealed, read_vouched, seal
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_pool import Lost, run_workers

_SCHEMA = 2
_IDENTITY = "store"
_FILES = {"images.npy", "rows.npz", "store.json"}
TIME_LIMIT = 60.0  # seconds per file


class StoreError(RuntimeError):
    """The store cannot be written or read; the message says why."""


@dataclass(frozen=True, eq=False)
class Store:
    """Decoded images on disk; pickling stores only the path.

    ```python
    store = build(source, indices, preprocessing, Path("runs/x/store"))
    store.images[[3, 1]].shape            # (2, 256, 256, 3) uint8, read from disk as needed
    store.labels[3], store.names[3]       # 0, 'rose/12.jpg'
    store.rows(split.train)               # rows of the store for indices into source.items
    ```
    """

    folder: Path
    key: str
    images: NDArray[np.uint8]  # (N, h, w, C), read-only
    labels: NDArray[Any]  # (N,) int64, or (N, K) bool if the images are multi-label
    indices: NDArray[np.int64]  # (N,) into source.items
    names: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Store":
        """Open a store that `build` wrote or checked before. Raises StoreError if there is no complete store."""
        folder = Path(folder)
        try:
            return cls.read(folder)
        except (OSError, ValueError) as e:
            raise StoreError(f"{display(folder)}: no store that can be read ({e})") from e

    @classmethod
    def read(cls, folder: Path, check_if: str | None = None) -> "Store":
        """Read a store; if its key is `check_if`, check every byte of it, including the images.

        Raises:
            FileNotFoundError: there is no store.
            DamagedError: the store is not what was written.
        """
        about = read_sealed(folder / "store.json", _IDENTITY)
        if about["schema"] != _SCHEMA:
            raise DamagedError(folder, f"is a store of schema {about['schema']}, this version reads {_SCHEMA}")
        with np.load(io.BytesIO(read_vouched(folder, "rows.npz", about)), allow_pickle=False) as rows:
            labels, indices = rows["labels"], rows["indices"]
        path = folder / "images.npy"
        try:
            if about["key"] == check_if and block_digest.digest(path) != about["images"]:
                raise DamagedError(path, "does not fit its digest")
            open_own(path).close()
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise DamagedError(path, "is missing") from None
        except DamagedError:
            raise
        except Exception as error:  # for a damaged header numpy raises ValueError, SyntaxError or TokenError
            raise DamagedError(path, f"is damaged ({' '.join(str(error).split())[:80]})") from error
        if list(images.shape) != about["shape"] or images.dtype != np.uint8:
            raise DamagedError(path, "is not what store.json says")
        # a plain array over the mapping, because every batch of an np.memmap is a memmap too
        return cls(folder, about["key"], np.asarray(images), labels, indices, tuple(about["names"]))

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.folder,)

    def rows(self, indices: NDArray[np.integer] | Sequence[int]) -> NDArray[np.int64]:
        """The rows of the store for indices into `source.items`. Raises KeyError if an item is not stored."""
        items = np.asarray(indices, np.int64)
        order = np.argsort(self.indices, kind="stable")
        positions = np.searchsorted(self.indices, items, sorter=order)
        rows = order[np.minimum(positions, len(order) - 1)]
        missing = items[self.indices[rows] != items]
        if len(missing):
            raise KeyError(f"{len(missing)} of the items are not in the store, item {missing[0]} for one")
        return rows


def build(
    source: Source,
    indices: NDArray[np.integer] | Sequence[int],
    preprocessing: Preprocessing,
    folder: str | os.PathLike[str],
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    scan: Scan | None = None,
    max_pixels: int = MAX_PIXELS,
    log: Callable[[str], None] = lambda line: None,
) -> Store:
    """Decode items into `folder`, or open the store there if it has the same items and preprocessing.

    With the result of `scan(source)`, the key holds its content hashes instead of the files' sizes and times. `log`
    receives a line about a damaged store, which is rebuilt.

    Raises:
        StoreError: there is no space, a file cannot be decoded, or the folder holds something else.
    """
    folder = Path(folder)
    chosen = np.asarray(indices, np.int64)
    if len(chosen) == 0:
        raise StoreError(f"no images of {display(source.given)!r} to store")
    key = _key(source, chosen, preprocessing, scan)
    existing = None
    try:
        existing = Store.read(folder, check_if=key)
    except DamagedError as error:
        log(damage_note([error]))
    except (OSError, ValueError):  # there is none yet
        pass
    if existing is not None and existing.key == key:
        progress(len(chosen), len(chosen))
        return existing
    if folder.exists() and (others := sorted(set(os.listdir(folder)) - _FILES)):
        raise StoreError(f"{display(folder)} is not a store (it holds {display(others[0])}): give a new folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with path_in_errors(folder, needed=len(chosen) * preprocessing.channels * math.prod(preprocessing.stored)):
            temporary.mkdir(parents=True)
            fitted = _fitted(source, chosen, preprocessing, workers, max_pixels, scan)
            _write(source, chosen, preprocessing, fitted, temporary, key, progress)
            _put_in_place(temporary, folder)
    except OSError as e:
        raise StoreError(f"cannot write the decoded images: {sentence(e)}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store.open(folder)


def moments(
    store: Store, rows: NDArray[np.integer] | Sequence[int] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel on the scale 0…1, over some rows (the training images) or all.

    They are exact, because they are computed from counts of the 256 levels. A constant channel has the std of a level.
    """
    used = np.arange(len(store)) if rows is None else np.sort(np.asarray(rows, np.int64))
    if len(used) == 0:
        raise ValueError("moments of no images")
    channels = store.images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(used), 256):
        batch = store.images[used[start : start + 256]]
        for c in range(channels):
            counts[c] += np.bincount(batch[..., c].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(float(m) for m in mean), tuple(float(s) for s in std)


def fit_file(constant: tuple[dict[str, Any], int], task: tuple[Encoded, str | None]) -> NDArray[np.uint8] | str:
    """In a worker process, decode and fit a file; return its pixels or the reason why that fails.

    `task` says where its bytes are and the SHA-256 that its bytes must have (None without a scan).
    """
    (preprocessing_json, max_pixels), (file, sha256) = constant, task
    try:
        data = read_bytes(file, max_pixels, sha256)
        preprocessing = Preprocessing.from_json(preprocessing_json)
        return preprocessing.fit(load(data, max_pixels=max_pixels, ranges=preprocessing.ranges).pixels)
    except ImageError as e:
        return str(e)


def _read_fitted(answer: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | str:
    """Check an answer of `fit_file`. Raises MessageError."""
    if isinstance(answer, str) or (isinstance(answer, np.ndarray) and answer.shape == shape):
        return answer
    raise MessageError(f"what is no image of {' × '.join(map(str, shape))}")


def _key(source: Source, chosen: NDArray[np.int64], preprocessing: Preprocessing, scan: Scan | None) -> str:
    # without mean and std, which are measured on the stored images
    about = [_SCHEMA, VERSION, preprocessing.channels, preprocessing.stored, source.classes]
    about += [preprocessing.ranges.to_json()]
    if preprocessing.resizing != EXACT:  # stores from before there were others keep their names
        about += [preprocessing.resizing.to_json(), preprocessing.size]
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
            try:
                data = source.pixels(i).tobytes() if source.array is not None else read_bytes(source.file(i))
            except ImageError as e:
                raise StoreError(f"{item.name}: {e}") from e
            content = hashlib.sha256(data).hexdigest()
        digest.update(f"{i}\0{item.name}\0{source.hashed_label(i)}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _write(
    source: Source,
    chosen: NDArray[np.int64],
    preprocessing: Preprocessing,
    fitted: Iterator[tuple[int, NDArray[np.uint8] | str]],
    folder: Path,
    key: str,
    progress: Callable[[int, int], None],
) -> None:
    """Write the store's files; `fitted` yields the rows in any order."""
    shape = (len(chosen), *preprocessing.stored, preprocessing.channels)
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    if needed + (64 << 20) > free:
        raise StoreError(
            f"{len(chosen):,} decoded images of {shape[1]}×{shape[2]} need {format_bytes(needed)} in "
            f"{display(folder.parent)}, where {format_bytes(free)} are free (64 MB stay free). "
            "Use a smaller size or limit."
        )
    # not through a mapping: on a full disk a mapping ends the process (SIGBUS), while a write raises OSError
    with (folder / "images.npy").open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        begin, image_size = file.tell(), math.prod(shape[1:])
        for done, (row, pixels) in enumerate(fitted, start=1):
            if isinstance(pixels, str):
                name = source.items[int(chosen[row])].name
                raise StoreError(f"{name}: {pixels}. Run the same command again: it looks at the images anew.")
            file.seek(begin + row * image_size)
            file.write(np.ascontiguousarray(pixels).data)
            progress(done, len(chosen))
        file.flush()
        os.fsync(file.fileno())
    labels, rows = source.labels[chosen], io.BytesIO()
    np.savez(rows, labels=labels, indices=chosen)
    write_atomic(folder / "rows.npz", rows.getvalue())
    about = {
        "schema": _SCHEMA,
        "key": key,
        "shape": list(shape),
        "images": block_digest.digest(folder / "images.npy"),
        "files": digests(folder, ["rows.npz"]),
        "names": [source.items[i].name for i in chosen.tolist()],
    }
    write_atomic(folder / "store.json", seal(about, _IDENTITY, indent=None))


def _fitted(
    source: Source,
    chosen: NDArray[np.int64],
    preprocessing: Preprocessing,
    workers: int | None,
    max_pixels: int,
    scan: Scan | None,
) -> Iterator[tuple[int, NDArray[np.uint8] | str]]:
    """Yield (row, pixels or the reason why there are none)."""
    if source.array is not None:
        for row, i in enumerate(chosen.tolist()):
            try:
                yield row, preprocessing.fit(source.pixels(i, ranges=preprocessing.ranges))
            except ImageError as e:
                yield row, str(e)
        return
    shape = (*preprocessing.stored, preprocessing.channels)
    answers = run_workers(
        "gapstone.data.decoded_store:fit_file",
        Tasks(chosen.tolist(), lambda i: (source.file(i), None if scan is None else scan.facts[i].sha256)),
        (preprocessing.to_json(), max_pixels),
        workers=workers,
        time_limit=TIME_LIMIT,
        memory_limit=worker_memory_limit(max_pixels),
        read=partial(_read_fitted, shape=shape),
        largest=math.prod(shape),
    )
    for row, answer in answers:
        yield row, answer.reason if isinstance(answer, Lost) else answer


def _put_in_place(temporary: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.rename(folder, old)  # a process that has mapped the old store keeps its pages
    try:
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(old, ignore_errors=True)
