"""Files that Pillow cannot write: 16 bits in several channels, floats, WhiteIsZero, tiles, other byte orders."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


def png16(values: Values, key: Sequence[int] = ()) -> bytes:
    """A PNG of 16 bits: (H, W) gray, or 2, 3 or 4 channels. key: the values that are transparent."""
    whole = np.asarray(values, ">u2")
    height, width = whole.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if whole.ndim == 2 else whole.shape[2]]
    rows = b"".join(b"\0" + row.tobytes() for row in whole)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    chunks += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    values: Values,
    photometric: int = 1,
    order: str = "<",
    packed: bool = False,
    planar: bool = False,
    predictor: int = 1,
    tile: int = 0,
    extra: Sequence[int] = (),
    orientation: int = 1,
    compression: int | None = None,
    texts: Mapping[int, str] | None = None,
    rows: int = 0,
) -> bytes:
    """A TIFF of any samples; compression: what is claimed, where it is not what is done; texts: by tag.

    rows: of a strip; the last is as long as the others.
    """
    whole = values[..., None] if values.ndim == 2 else values
    height, width, channels = whole.shape
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[whole.dtype.kind]
    planes = [whole[..., i : i + 1] for i in range(channels)] if planar else [whole]
    parts = []
    for plane in planes:
        steps = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)] if tile else [(0, 0)]
        for y, x in steps:
            part = plane[y : y + tile, x : x + tile] if tile else plane
            if tile:
                part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)))
            if rows:
                strips = [plane[y : y + rows] for y in range(0, height, rows)]
                padded = [np.pad(strip, ((0, rows - len(strip)), (0, 0), (0, 0))) for strip in strips]
                parts += [_predicted(strip, predictor, order) for strip in padded[:-1]]
                part = padded[-1]
            parts.append(_predicted(part, predictor, order))
    parts = [zlib.compress(part) for part in parts] if packed else parts
    tags: list[tuple[int, str, Sequence[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [whole.dtype.itemsize * 8] * channels),
        (259, "H", [(8 if packed else 1) if compression is None else compression]),
        (262, "H", [photometric]),
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (284, "H", [2 if planar else 1]),
        (317, "H", [predictor]),
        (339, "H", [kind] * channels),
    ]
    where, sizes = (324, 325) if tile else (273, 279)
    tags += [(322, "I", [tile]), (323, "I", [tile])] if tile else [(278, "I", [rows or height])]
    tags += [(338, "H", extra)] if extra else []
    tags += [(tag, "B", [*text.encode(), 0]) for tag, text in (texts or {}).items()]
    tags += [(where, "I", [0] * len(parts)), (sizes, "I", [len(part) for part in parts])]
    tags.sort()
    begin = 8 + 2 + 12 * len(tags) + 4
    beside = sum(n for _, letter, v in tags if (n := len(v) * struct.calcsize(letter)) > 4)
    starts = np.cumsum([begin + beside, *map(len, parts)]).tolist()[:-1]
    entries, far = b"", b""
    for tag, letter, v in tags:
        data = struct.pack(f"{order}{len(v)}{letter}", *(starts if tag == where else v))
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", begin + len(far))
        far += data if len(data) > 4 else b""
        entries += struct.pack(order + "HHI", tag, {"B": 2, "H": 3, "I": 4}[letter], len(v)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + entries + bytes(4) + far + b"".join(parts)


def _predicted(part: Values, predictor: int, order: str) -> bytes:
    if predictor == 3:
        big = np.ascontiguousarray(part.astype(part.dtype.newbyteorder(">")))
        height, width, channels = big.shape
        planes = big.view(np.uint8).reshape(height, width * channels, -1).transpose(0, 2, 1)
        rows = np.ascontiguousarray(planes).reshape(height, -1, channels)
        return np.diff(rows, axis=1, prepend=np.zeros((height, 1, channels), np.uint8)).astype(np.uint8).tobytes()
    if predictor == 2:
        part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))
    return part.astype(part.dtype.newbyteorder(order)).tobytes()
