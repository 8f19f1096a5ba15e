"""A table of images in blocks that are read one at a time: a parquet file, a saved Dataset, a Dataset in memory."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from gapstone.console.formatting import display
from gapstone.data.arrow_columns import ArrowColumn
from gapstone.data.sources import DataError, SplitName
from gapstone.images.load import Encoded
from gapstone.runtime.environment import memory

_KEPT = 256 << 20
"""Bytes of blocks that stay in memory; the last one always does."""
_ROWS = 256
"""Rows of a block of a Dataset in memory, which has none of its own."""


class ArrowPart(Protocol):
    """A table; `schema` and arrays are pyarrow's."""

    place: str
    """How the names of its images begin: a file below DATA, or the key of a dictionary."""
    split: SplitName | None
    schema: Any
    blocks: list[int]
    """How many rows each block has."""
    folder: Path
    """Paths are relative to it, of images whose bytes are not in the table."""

    def values(self, name: str) -> list[Any]:
        """A column of small values."""

    def paths(self, name: str) -> list[str | None]:
        """What the images of a column are called, without reading their bytes."""

    def images(self, name: str, block: int) -> Any:
        """A block of a column of images."""


class ParquetPart:
    """A parquet file, read by its groups of rows."""

    def __init__(self, what: str, path: Path, place: str, split: SplitName | None) -> None:
        from pyarrow import parquet

        self.what = f"{what}: {display(place)}"
        self.path, self.place, self.split, self.folder = path, place, split, path.parent
        with arrow_errors(self.what), parquet.ParquetFile(path) as file:
            self.schema, metadata = file.schema_arrow, file.metadata
            self.blocks = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
            self.bytes = [metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups)]
        if max(self.bytes, default=0) > memory() // 4:
            raise DataError(
                f"{self.what} has groups of rows of {max(self.bytes) / 1e9:.1f} GB, which are read at once: more than "
                "a quarter of this machine's memory. Write it in smaller ones: "
                "pyarrow.parquet.write_table(table, path, row_group_size=1000)."
            )

    def values(self, name: str) -> list[Any]:
        return self._read([name]).column(0).to_pylist()  # type: ignore[no-any-return]

    def paths(self, name: str) -> list[str | None]:
        return [cell and cell.get("path") for cell in self._read([f"{name}.path"]).column(0).to_pylist()]

    def images(self, name: str, block: int) -> Any:
        from pyarrow import parquet

        with arrow_errors(self.what), parquet.ParquetFile(self.path) as file:
            return file.read_row_group(block, columns=[name], use_threads=False).column(0)

    def _read(self, columns: list[str]) -> Any:
        from pyarrow import parquet

        with arrow_errors(self.what), parquet.ParquetFile(self.path) as file:
            return file.read(columns=columns, use_threads=False)


class ArrowFilePart:
    """A file that `save_to_disk` wrote: the disk's pages are the memory, as far as they are read."""

    def __init__(self, what: str, path: Path, place: str, split: SplitName | None) -> None:
        import pyarrow

        self.what = f"{what}: {display(place)}"
        self.path, self.place, self.split, self.folder = path, place, split, path.parent
        with arrow_errors(self.what):
            table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
        self.schema, self.batches = table.schema, table.to_batches()
        self.blocks = [len(batch) for batch in self.batches]

    def values(self, name: str) -> list[Any]:
        return [value for batch in self.batches for value in batch.column(name).to_pylist()]

    def paths(self, name: str) -> list[str | None]:
        return [path for batch in self.batches for path in _paths(batch.column(name))]

    def images(self, name: str, block: int) -> Any:
        return self.batches[block].column(name)


class DatasetPart:
    """A Dataset of Hugging Face's `datasets`: its rows as they are stored, before any transform or decoding."""

    def __init__(self, place: str, dataset: Any, split: SplitName | None) -> None:
        self.place, self.split, self.folder = place, split, Path.cwd()
        self.table = dataset.with_format("arrow")
        self.schema = dataset.features.arrow_schema
        count = len(dataset)
        self.blocks = [min(_ROWS, count - start) for start in range(0, count, _ROWS)]

    def values(self, name: str) -> list[Any]:
        return self.table.select_columns([name])[:].column(0).to_pylist()  # type: ignore[no-any-return]

    def paths(self, name: str) -> list[str | None]:
        return [path for k in range(len(self.blocks)) for path in _paths(self.images(name, k))]

    def images(self, name: str, block: int) -> Any:
        return self.table.select_columns([name])[block * _ROWS : block * _ROWS + self.blocks[block]].column(0)


def _paths(images: Any) -> list[str | None]:
    from pyarrow import compute

    return compute.struct_field(images, "path").to_pylist()  # type: ignore[no-any-return]


@contextmanager
def arrow_errors(what: str) -> Iterator[None]:
    """Make errors of pyarrow a DataError."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        raise DataError(f"{what} cannot be read: {display(' '.join(str(error).split()), 160)}.") from error


@dataclass
class ArrowImages(Sequence[Encoded]):
    """The bytes of all images of some parts, one after the other; of an image that is a file, its path."""

    parts: Sequence[ArrowPart]
    column: ArrowColumn
    _recent: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    _lock: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._blocks = [(part, k) for part in self.parts for k in range(len(part.blocks))]
        sizes = [part.blocks[k] for part, k in self._blocks]
        self._starts = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: Any) -> Any:
        number = bisect_right(self._starts, row) - 1
        value = self._block(number)[row - self._starts[number]].as_py()
        if isinstance(value, dict):
            path = value.get("path")
            if value.get("bytes") is None and path:
                return str(self._blocks[number][0].folder / path)
            value = value.get("bytes")
        return value or b""

    def _block(self, number: int) -> Any:
        with self._lock:  # worker threads ask for images at the same time
            if number not in self._recent:
                part, k = self._blocks[number]
                self._recent[number] = part.images(self.column.name, k)
                while len(self._recent) > 1 and sum(block.nbytes for block in self._recent.values()) > _KEPT:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(number)
            return self._recent[number]
