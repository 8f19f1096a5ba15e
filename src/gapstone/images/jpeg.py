"""Checks that a JPEG is complete: libjpeg fills in missing pixels, and Pillow does not pass on its warnings.

First the markers are checked: every segment is in its place, the restart markers are counted, the scans of a
progressive JPEG are complete. Then the pixels: the data of a scan end within a byte, and the decoder reaches its last
pixel exactly there. So it is fed the data followed by bytes without meaning. If the data are complete, it ends at once;
if data are missing, it asks for more; if there are too many, it has ended before. That costs no time. The scans of a
progressive JPEG are decoded twice, with and without such bytes after each scan, which change nothing if they are
complete.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFile

from gapstone.images.decode_error import DecodeError

LOOK_AHEAD = b"\xff\x00" * 9
"""More than the 8 bytes that libjpeg-turbo reads ahead; all ones are no code, so it takes as many bits as possible."""

SPARE = 8
"""Bytes that an encoder may leave between the last pixel and the end marker, as some cameras do."""

_NOISE = np.random.default_rng(0).integers(0, 255, 32, dtype=np.uint8).tobytes()  # never 0xFF
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SOS, _EOI, _SOI, _DRI, _DNL = 0xDA, 0xD9, 0xD8, 0xDD, 0xDC
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BETWEEN = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # may follow a scan
_MISSING_END = "its end marker is missing; all of its pixels are there"


@dataclass
class JpegScan:
    """A scan: its header, and where its data are, `data[start:end]`."""

    components: tuple[int, ...]
    band: tuple[int, int]
    precision: tuple[int, int]  # Ah, Al
    interval: int
    start: int
    end: int = 0
    restarts: list[int] = field(default_factory=list)  # positions of its restart markers


@dataclass
class Structure:
    """The markers of a JPEG."""

    frame: int = 0  # the marker: 0xC0 baseline, 0xC2 progressive, …
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # component → (across, down)
    scans: list[JpegScan] = field(default_factory=list)
    end: int = 0  # position of the end marker, or where it should be
    closed: bool = True  # whether there is an end marker


def guard(image: ImageFile.ImageFile, data: bytes, notes: list[str]) -> Callable[[], None]:
    """Make `image.load()` raise DecodeError if pixels are missing; return a function that checks the decoded pixels.

    `image` is opened from `data` and not loaded yet. `notes` receives a note if the end marker is missing.
    """
    structure = read_structure(data)
    _check_restarts(structure, data)
    _check_scans(structure)
    if not structure.closed:
        notes.append(_MISSING_END)
    huffman = structure.frame in (0xC0, 0xC1, 0xC2)
    if huffman and len(structure.scans) == 1 and structure.frame != 0xC2:
        _feed(image, data, structure)
    elif huffman:
        if not structure.closed:  # feed the decoder the missing end marker, too
            parts = iter([data[: structure.end] + b"\xff\xd9"])
            image.load_read = lambda _: next(parts, b"")  # type: ignore[attr-defined]
        return lambda: _decode_again(image, data, structure)
    return lambda: None


def read_structure(data: bytes) -> Structure:
    """The markers of a JPEG. Raises DecodeError for a marker in a wrong place."""
    structure, at, interval = Structure(), 2, 0
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 1 >= len(data):
            if structure.scans:
                structure.closed, structure.end = False, structure.scans[-1].end
                return structure
            raise DecodeError("truncated: the file ends before its pixels begin")
        marker = data[at + 1]
        if marker in (_EOI, _SOI) or marker == 0x01 or marker < 0xC0 or 0xD0 <= marker <= 0xD7:
            at += 2
            if marker == _EOI:
                structure.end = at - 2
                return structure
            continue  # Pillow and libjpeg ignore these
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) < length - 2:
            raise DecodeError(f"truncated within a header (marker FF {marker:02X})")
        at += 2 + length
        if marker in _FRAMES and len(body) >= 6:
            structure.frame = marker
            structure.size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            structure.sampling = {p[0]: (p[1] >> 4, p[1] & 15) for p in parts if len(p) == 3}
        elif marker == _DRI and len(body) >= 2:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            scan = _read_scan_header(body, interval, at)
            at = _find_scan_end(data, scan)
            structure.scans.append(scan)
            if _is_last_scan(data, at, structure, scan):
                return structure


def _read_scan_header(body: bytes, interval: int, at: int) -> JpegScan:
    count = body[0] if body else 0
    if len(body) < 1 + 2 * count + 3:
        raise DecodeError("the header of a scan is damaged")
    first, last, precision = body[1 + 2 * count : 4 + 2 * count]
    components = tuple(body[1 + 2 * i] for i in range(count))
    return JpegScan(components, (first, last), (precision >> 4, precision & 15), interval, at)


def _find_scan_end(data: bytes, scan: JpegScan) -> int:
    """Set the end and the restart markers of a scan; return the position of the next marker or the end of the file."""
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


def _is_last_scan(data: bytes, at: int, structure: Structure, scan: JpegScan) -> bool:
    """Whether the image ends with this scan, at `at`. Raises DecodeError for a marker that cannot follow a scan."""
    marker = data[at + 1] if at + 1 < len(data) else None
    if marker is None or marker == _SOI:  # another image follows
        structure.closed, structure.end = False, scan.end
        return True
    if marker == _EOI:
        structure.end = at
        return True
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if marker == _SOS and at + 4 < len(data):
        is_segment = length == 6 + 2 * data[at + 4]
    else:
        is_segment = data[at + 2 + length : at + 3 + length] == b"\xff"
    complete = structure.frame in (0xC0, 0xC1) and len(scan.components) == len(structure.sampling)
    if (complete and marker in (0xC4, _SOS)) or marker not in _BETWEEN or length < 2 or not is_segment:
        raise DecodeError(
            f"after {at - scan.start:,} bytes of pixels stands FF {marker:02X}, which has no business there: bytes are "
            f"missing or were overwritten"
        )
    return False


def _check_restarts(structure: Structure, data: bytes) -> None:
    for scan in structure.scans:
        if not scan.interval and scan.restarts:
            raise DecodeError("a restart marker where there should be none: bytes are missing or were overwritten")
        if not scan.interval or structure.size[1] == 0:
            continue
        expected = -(-_count_units(structure, scan) // scan.interval) - 1
        if len(scan.restarts) not in (expected, expected + 1):  # some encoders end with a restart marker
            count = len(scan.restarts)
            raise DecodeError(f"{count:,} of its {expected:,} restart markers are there: bytes are missing")
        if any(data[at + 1] != 0xD0 + i % 8 for i, at in enumerate(scan.restarts)):
            raise DecodeError("its restart markers do not follow each other: bytes are missing or were overwritten")


def _count_units(structure: Structure, scan: JpegScan) -> int:
    """The number of units of a scan: blocks, or groups of blocks of several components."""
    width, height = structure.size
    across = max(h for h, _ in structure.sampling.values())
    down = max(v for _, v in structure.sampling.values())
    if len(scan.components) != 1:
        return _ceil(width, 8 * across) * _ceil(height, 8 * down)
    h, v = structure.sampling.get(scan.components[0], (1, 1))
    return _ceil(_ceil(width * h, across), 8) * _ceil(_ceil(height * v, down), 8)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _check_scans(structure: Structure) -> None:
    """Raise DecodeError unless the scans hold every bit of every coefficient of every component."""
    if not structure.scans:
        raise DecodeError("truncated: the file ends before its pixels begin")
    if structure.frame not in (0xC2, 0xC6, 0xCA, 0xCE):
        complete = set(structure.sampling) <= {component for scan in structure.scans for component in scan.components}
    else:
        missing = {component: np.full(64, 99) for component in structure.sampling}  # bits of each coefficient
        for scan in structure.scans:
            for component in set(scan.components) & set(missing):
                missing[component][scan.band[0] : scan.band[1] + 1] = scan.precision[1]
        complete = not any(bits.any() for bits in missing.values())
    if not complete:
        scans = "1 scan" if len(structure.scans) == 1 else f"{len(structure.scans)} scans"
        raise DecodeError(f"it ends after {scans}, and some are missing: only part of it can be seen")


def _feed(image: ImageFile.ImageFile, data: bytes, structure: Structure) -> None:
    """Feed the decoder of a JPEG of a single scan so that `image.load()` detects missing or surplus data."""
    scan = structure.scans[0]
    end = scan.end
    if not structure.closed:
        # zeros at the end of a file are no data, unless they are few
        without_zeros = len(data[scan.start : end].rstrip(b"\0")) + scan.start
        end = without_zeros if end - without_zeros >= 64 else end
    parts = [data[: max(scan.start, end - SPARE)], data[max(scan.start, end - SPARE) : end] + LOOK_AHEAD]
    parts_read = 0

    def read(_: int) -> bytes:
        nonlocal parts_read
        parts_read += 1
        if parts_read > len(parts):
            missing = "bytes of its pixels are missing" if structure.closed else "the end of the file is missing"
            raise DecodeError(f"truncated: {missing}, and the picture with it")
        return parts[parts_read - 1]

    image.load_read = read  # type: ignore[attr-defined]  # Pillow calls it to read data
    load_end = image.load_end

    def load_end_and_check() -> None:
        load_end()
        if parts_read < len(parts):
            raise DecodeError(
                f"its pixels are complete more than {SPARE} bytes before its data end: they were overwritten or moved"
            )

    image.load_end = load_end_and_check  # type: ignore[method-assign]


def _decode_again(image: ImageFile.ImageFile, data: bytes, structure: Structure) -> None:
    """Decode a JPEG of several scans again, with noise after each; raise DecodeError if that changes the pixels."""
    pieces, at = [], 0
    for scan in structure.scans:
        for end in (*scan.restarts, scan.end):
            pieces += [data[at:end], _NOISE]
            at = end
    pieces.append(data[at : structure.end] + b"\xff\xd9")
    with Image.open(io.BytesIO(b"".join(pieces)), formats=["JPEG"]) as again:
        again.load()
        same = again.size == image.size and again.mode == image.mode and again.im is not None
        if not same or not np.array_equal(np.asarray(again), np.asarray(image)):
            raise DecodeError("bytes of its pixels are missing: what is decoded there is not the picture")
