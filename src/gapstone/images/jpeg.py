"""Whether a JPEG holds all of its picture. libjpeg fills up what is missing and says nothing that Pillow would pass on.

First its markers: each segment in its place, restart markers counted, the scans of a progressive one complete. Then its
pixels. The data of a scan end somewhere within a byte, and the decoder is at its last pixel exactly there. A decoder
that is fed the data and then bytes that mean nothing comes to its end at once; where data are missing it asks for more,
and where some are left over it had come to its end before. That costs no time. The scans of a progressive picture are
decoded twice, with and without such bytes behind each: they change nothing where nothing is missing.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFile

from gapstone.images.decode_error import DecodeError

LOOK_AHEAD = b"\xff\x00" * 9
"""More than the 8 bytes that libjpeg-turbo reads ahead, all ones: no code, so that it takes as many bits as can be."""

SPARE = 8
"""Bytes that an encoder may leave between the last pixel and the end marker: some cameras do."""

_NOISE = np.random.default_rng(0).integers(0, 255, 32, dtype=np.uint8).tobytes()  # never 0xFF
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SOS, _EOI, _SOI, _DRI, _DNL = 0xDA, 0xD9, 0xD8, 0xDD, 0xDC
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BETWEEN = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # may follow a scan
_MISSING_END = "its end marker is missing; all of its pixels are there"


@dataclass
class JpegScan:
    """The data of one scan, `data[start:end]`, and what its header says."""

    components: tuple[int, ...]
    band: tuple[int, int]
    precision: tuple[int, int]  # Ah, Al
    interval: int
    start: int
    end: int = 0
    restarts: list[int] = field(default_factory=list)  # where its restart markers are


@dataclass
class Structure:
    """A JPEG by its markers."""

    frame: int = 0  # the marker: 0xC0 baseline, 0xC2 progressive, …
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # component → (across, down)
    scans: list[JpegScan] = field(default_factory=list)
    end: int = 0  # where the end marker is, or should be
    closed: bool = True


def guard(image: ImageFile.ImageFile, data: bytes, notes: list[str]) -> Callable[[], None]:
    """Have `image.load()` raise DecodeError where pixels are missing; the function returned looks at what it decoded.

    image: as opened from `data`, not yet loaded.
    """
    found = structure(data)
    _check_restarts(found, data)
    _check_scans(found)
    if not found.closed:
        notes.append(_MISSING_END)
    huffman = found.frame in (0xC0, 0xC1, 0xC2)
    if huffman and len(found.scans) == 1 and found.frame != 0xC2:
        _feed(image, data, found)
    elif huffman:
        if not found.closed:
            _close(image, data, found)
        return lambda: _compare(image, data, found)
    return lambda: None


def structure(data: bytes) -> Structure:
    """Raises DecodeError where a marker stands that cannot stand there."""
    found, at, interval = Structure(), 2, 0
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 1 >= len(data):
            if found.scans:
                found.closed, found.end = False, found.scans[-1].end
                return found
            raise DecodeError("truncated: the file ends before its pixels begin")
        marker = data[at + 1]
        if marker in (_EOI, _SOI) or marker == 0x01 or marker < 0xC0 or 0xD0 <= marker <= 0xD7:
            at += 2
            if marker == _EOI:
                found.end = at - 2
                return found
            continue  # Pillow and libjpeg pass over these, and so did the camera
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) < length - 2:
            raise DecodeError(f"truncated within a header (marker FF {marker:02X})")
        at += 2 + length
        if marker in _FRAMES and len(body) >= 6:
            found.frame = marker
            found.size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            found.sampling = {p[0]: (p[1] >> 4, p[1] & 15) for p in parts if len(p) == 3}
        elif marker == _DRI and len(body) >= 2:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            scan = _scan(body, interval, at)
            at = _end_of(data, scan)
            found.scans.append(scan)
            if _closes(data, at, found, scan):
                return found


def _scan(body: bytes, interval: int, at: int) -> JpegScan:
    count = body[0] if body else 0
    if len(body) < 1 + 2 * count + 3:
        raise DecodeError("the header of a scan is damaged")
    first, last, precision = body[1 + 2 * count : 4 + 2 * count]
    components = tuple(body[1 + 2 * i] for i in range(count))
    return JpegScan(components, (first, last), (precision >> 4, precision & 15), interval, at)


def _end_of(data: bytes, scan: JpegScan) -> int:
    """Where the next marker is that is no restart marker, or the end of the file."""
    end = len(data)
    for mark in _MARKER.finditer(data, scan.start):
        if not 0xD0 <= data[mark.end() - 1] <= 0xD7:
            end = mark.start()
            break
        scan.restarts.append(mark.start())
    scan.end = end
    while scan.end > scan.start and data[scan.end - 1] == 0xFF:  # fill bytes
        scan.end -= 1
    return end


def _closes(data: bytes, at: int, found: Structure, scan: JpegScan) -> bool:
    """Whether the picture ends where this scan ends, at `at`. Raises DecodeError for what cannot follow a scan."""
    marker = data[at + 1] if at + 1 < len(data) else None
    if marker is None or marker == _SOI:  # another picture behind this one
        found.closed, found.end = False, scan.end
        return True
    if marker == _EOI:
        found.end = at
        return True
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    then = at + 2 + length
    follows = (
        length == 6 + 2 * data[at + 4] if marker == _SOS and at + 4 < len(data) else data[then : then + 1] == b"\xff"
    )
    whole = found.frame in (0xC0, 0xC1) and len(scan.components) == len(found.sampling) and marker in (0xC4, _SOS)
    if whole or marker not in _BETWEEN or length < 2 or not follows:
        raise DecodeError(
            f"after {at - scan.start:,} bytes of pixels stands FF {marker:02X}, which has no business there: bytes are "
            f"missing or were overwritten"
        )
    return False


def _check_restarts(found: Structure, data: bytes) -> None:
    for scan in found.scans:
        if not scan.interval and scan.restarts:
            raise DecodeError("a restart marker where there should be none: bytes are missing or were overwritten")
        if not scan.interval or found.size[1] == 0:
            continue
        wanted = -(-_units(found, scan) // scan.interval) - 1
        if len(scan.restarts) not in (wanted, wanted + 1):  # some encoders close with one
            raise DecodeError(f"{len(scan.restarts):,} of its {wanted:,} restart markers are there: bytes are missing")
        if any(data[at + 1] != 0xD0 + i % 8 for i, at in enumerate(scan.restarts)):
            raise DecodeError("its restart markers do not follow each other: bytes are missing or were overwritten")


def _units(found: Structure, scan: JpegScan) -> int:
    """Of how many units a scan is made: blocks, or groups of blocks of several components."""
    width, height = found.size
    across = max(h for h, _ in found.sampling.values())
    down = max(v for _, v in found.sampling.values())
    if len(scan.components) != 1:
        return _ceil(width, 8 * across) * _ceil(height, 8 * down)
    h, v = found.sampling.get(scan.components[0], (1, 1))
    return _ceil(_ceil(width * h, across), 8) * _ceil(_ceil(height * v, down), 8)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _check_scans(found: Structure) -> None:
    """That every coefficient of every component comes in full."""
    if not found.scans:
        raise DecodeError("truncated: the file ends before its pixels begin")
    if found.frame not in (0xC2, 0xC6, 0xCA, 0xCE):
        whole = set(found.sampling) <= {component for scan in found.scans for component in scan.components}
    else:
        missing = {component: np.full(64, 99) for component in found.sampling}  # bits of each coefficient
        for scan in found.scans:
            for component in set(scan.components) & set(missing):
                missing[component][scan.band[0] : scan.band[1] + 1] = scan.precision[1]
        whole = not any(bits.any() for bits in missing.values())
    if not whole:
        scans = "1 scan" if len(found.scans) == 1 else f"{len(found.scans)} scans"
        raise DecodeError(f"it ends after {scans}, and some are missing: only part of it can be seen")


def _feed(image: ImageFile.ImageFile, data: bytes, found: Structure) -> None:
    """Of a picture in one scan: hand the decoder its data so that it shows whether it comes out even."""
    scan = found.scans[0]
    end = scan.end
    if not found.closed:
        # where a file was filled up with zeros, they are no data; a few may be
        bare = len(data[scan.start : end].rstrip(b"\0")) + scan.start
        end = bare if end - bare >= 64 else end
    parts = [data[: max(scan.start, end - SPARE)], data[max(scan.start, end - SPARE) : end] + LOOK_AHEAD]
    given = 0

    def read(_: int) -> bytes:
        nonlocal given
        given += 1
        if given > len(parts):
            missing = "bytes of its pixels are missing" if found.closed else "the end of the file is missing"
            raise DecodeError(f"truncated: {missing}, and the picture with it")
        return parts[given - 1]

    image.load_read = read  # type: ignore[attr-defined]  # the plugins' way of handing over data
    before = image.load_end

    def ended() -> None:
        before()
        if given < len(parts):
            raise DecodeError(
                f"its pixels are complete more than {SPARE} bytes before its data end: they were overwritten or moved"
            )

    image.load_end = ended  # type: ignore[method-assign]


def _close(image: ImageFile.ImageFile, data: bytes, found: Structure) -> None:
    """Hand the decoder the end marker that is missing."""
    parts = iter([data[: found.end] + b"\xff\xd9"])
    image.load_read = lambda _: next(parts, b"")  # type: ignore[attr-defined]


def _compare(image: ImageFile.ImageFile, data: bytes, found: Structure) -> None:
    """Of a loaded picture in many scans: decode it again with bytes behind each that mean nothing."""
    pieces, at = [], 0
    for scan in found.scans:
        for place in (*scan.restarts, scan.end):
            pieces += [data[at:place], _NOISE]
            at = place
    pieces.append(data[at : found.end] + b"\xff\xd9")
    with Image.open(io.BytesIO(b"".join(pieces)), formats=["JPEG"]) as again:
        again.load()
        same = again.size == image.size and again.mode == image.mode and again.im is not None
        if not same or not np.array_equal(np.asarray(again), np.asarray(image)):
            raise DecodeError("bytes of its pixels are missing: what is decoded there is not the picture")
