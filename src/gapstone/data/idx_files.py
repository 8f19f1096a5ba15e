"""Reads a folder of MNIST-style idx files: 00 00 08 <dimensions>, a big-endian uint32 per dimension, then the bytes.

The header is checked against the size of the file before memory is allocated.
"""

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.memory_limits import check_unpacked
from gapstone.data.sources import DataError, Item, Source, SplitName, number_classes
from gapstone.storage.paths import open_input

# train-images-idx3-ubyte.gz, train-images.idx3-ubyte, emnist-letters-test-labels-idx1-ubyte, …
_NAME = re.compile(
    r"^(?P<set>.*-)?(?P<split>train|t10k|test|val|valid|validation)[-_.](?P<what>images|labels)"
    r"[-_.]idx[134][-_.]ubyte(?P<gz>\.gz)?$",
    re.IGNORECASE,
)
_SPLIT: dict[str, SplitName] = {
    "train": "train",
    "t10k": "test",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
_MOST_DEFLATE = 1032  # deflate packs at most 1032 bytes into one


def holds_idx(folder: Path) -> bool:
    """Whether the folder itself holds at least one idx file of images."""
    return any(m["what"].lower() == "images" for m in map(_NAME.match, os.listdir(folder)) if m)


def open_idx(given: str, folder: Path) -> Source:
    """Open `folder/train-images-idx3-ubyte.gz` etc. Raises DataError if a file is missing or damaged."""
    paths: dict[tuple[SplitName, str], Path] = {}
    sets = set()
    for name in sorted(os.listdir(folder)):
        if m := _NAME.match(name):
            key = (_SPLIT[m["split"].lower()], m["what"].lower())
            sets.add(m["set"] or "")
            # of a file and its unpacked copy, the copy is read faster
            if key not in paths or not m["gz"]:
                paths[key] = folder / name
    if len(sets) > 1:
        raise DataError(
            f"DATA {display(given)!r} holds the idx files of {len(sets)} data sets ({', '.join(sorted(sets))}); "
            "put each into its own folder."
        )
    images, items, labels = [], [], []
    for split in ("train", "val", "test"):
        pair = [paths.get((split, what)) for what in ("images", "labels")]
        if pair == [None, None]:
            continue
        if pair[0] is None or pair[1] is None:
            missing = "images" if pair[0] is None else "labels"
            raise DataError(f"DATA {display(given)!r}: there are {split} idx files, but none with the {missing}.")
        x, y = _images(pair[0]), _read(pair[1], {1})
        if len(x) != len(y):
            raise DataError(f"{display(pair[0])!r} has {len(x)} images, {display(pair[1].name)!r} {len(y)} labels.")
        images.append(x)
        labels += [str(label) for label in y.tolist()]
        items += [(split, row) for row in range(len(x))]
    if len({x.shape[1:] for x in images}) > 1:
        shapes = " and ".join("×".join(map(str, x.shape[1:])) for x in images)
        raise DataError(f"DATA {display(given)!r}: the idx files hold images of different shapes, {shapes}.")
    classes, numbers = number_classes(labels)
    several = len(images) > 1
    return Source(
        given,
        "idx",
        classes,
        [
            Item(f"{split} #{row}", (number,), split if several else None, None, i)  # type: ignore[arg-type]
            for i, ((split, row), number) in enumerate(zip(items, numbers, strict=True))
        ],
        array=np.concatenate(images),
    )


def _images(path: Path) -> NDArray[np.uint8]:
    x = _read(path, {3, 4})
    if x.ndim == 3:
        return x[..., None]
    if x.shape[3] not in (1, 3):
        raise DataError(f"{display(path)!r} has {x.shape[3]} channels; expected 1 (gray) or 3 (colour).")
    return x


def _read(path: Path, dimensions: set[int]) -> NDArray[np.uint8]:
    shown = display(path)
    packed = path.name.lower().endswith(".gz")
    try:
        with open_input(repr(shown), path) as file, gzip.open(file, "rb") if packed else file as f:
            size = os.fstat(file.fileno()).st_size
            magic = f.read(4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] not in dimensions:
                expected = " or ".join(f"00 00 08 {d:02x}" for d in sorted(dimensions))
                raise DataError(
                    f"{shown!r} starts with {magic.hex(' ') or 'nothing'}; expected {expected} (idx of bytes)."
                )
            header = f.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{shown!r} ends within its header; fetch it again.")
            shape = struct.unpack(f">{magic[3]}I", header)
            count = math.prod(shape)
            if 0 in shape:
                raise DataError(f"{shown!r} is empty: its header says {'×'.join(map(str, shape))}.")
            if count > size * (_MOST_DEFLATE if packed else 1):
                raise DataError(
                    f"{shown!r}: its header says {'×'.join(map(str, shape))}, which cannot fit in {size:,} bytes."
                )
            check_unpacked(f"DATA {shown!r}", size, count)
            data = f.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise DataError(f"{shown!r} is damaged or cut off ({e}); fetch it again.") from e
    if len(data) != count:
        more = "more" if len(data) > count else f"only {len(data):,}"
        raise DataError(f"{shown!r}: its header says {count:,} bytes of data, it has {more}; fetch it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)
