"""`check_packed_size`: how large a packed tile says it is, before a decoder takes memory for it.

Tiles of zlib, LZW, … unpack into as many bytes as they should have and no more; the decoders of pictures (JPEG,
JPEG 2000, WebP) believe the tile's own header.
"""

import struct

from gapstone.images.decode_error import DecodeError

JPEG = 7
JPEG2000 = (33003, 33005, 34712)
WEBP = 50001


def check_packed_size(data: bytes, compression: int, height: int, width: int) -> None:
    """Raise DecodeError if a tile says that it is larger than height × width, or says nothing."""
    try:
        if compression == JPEG:
            found = _jpeg_size(data)
        elif compression in JPEG2000:
            found = _jpeg2000_size(data)
        elif compression == WEBP:
            found = _webp_size(data)
        else:
            return
    except (struct.error, IndexError):
        found = None
    if found is None:
        raise DecodeError("its packed pixels are damaged: there is no header")
    if found[0] > height or found[1] > width:
        raise DecodeError(f"it says to be {found[0]}×{found[1]} px, in a tile of {height}×{width}")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    at = data.find(b"\xff\x4f\xff\x51", 0, 1 << 16)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return bottom - top, right - left


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None
