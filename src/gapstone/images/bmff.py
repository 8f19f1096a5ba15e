"""Checks that the boxes of an AVIF or HEIC file (ISO BMFF) are complete."""

from collections.abc import Iterator

from gapstone.images.decode_error import check_missing, check_zeros

_PICTURES = (b"av01", b"hvc1", b"hev1", b"jpeg", b"avc1")


def check(data: bytes) -> None:
    """Raise DecodeError if pixels are missing from the file, or if packed pixels contain too many zeros."""
    boxes = list(_boxes(data, 0, len(data)))
    for name, _, end in boxes:
        if name in (b"mdat", b"meta", b"moov"):  # data after the last box may look like another
            check_missing(end - len(data), f"bytes of its {name.decode()} box")
    types: dict[int, bytes] = {}
    extents_of: dict[int, list[tuple[int, int]]] = {}
    for name, start, end in boxes:
        if name == b"meta":
            for inner, begin, stop in _boxes(data, start + 4, end):
                try:
                    if inner == b"iinf":
                        types = _item_types(data, begin, stop)
                    elif inner == b"iloc":
                        extents_of = _item_extents(data, begin, stop)
                except IndexError:
                    return  # the decoder will report what is wrong
    for item, extents in extents_of.items():
        if types.get(item) not in _PICTURES:
            continue
        for start, length in extents:
            check_missing(start + length - len(data))
            check_zeros(data, start, start + length)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the content of each box; the end is what the box claims."""
    while at + 8 <= end:
        size, name, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = end - at
        if size < head or not name.isalnum():
            return
        yield name, at + head, at + size
        at += size


def _item_types(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """Item → its type, from `iinf`."""
    types = {}
    for name, start, _ in _boxes(data, at + (6 if data[at] == 0 else 8), end):
        if name == b"infe" and data[start] >= 2:
            wide = 2 if data[start] == 2 else 4
            item = int.from_bytes(data[start + 4 : start + 4 + wide], "big")
            types[item] = data[start + 6 + wide : start + 10 + wide]
    return types


def _item_extents(data: bytes, at: int, end: int) -> dict[int, list[tuple[int, int]]]:
    """Item → (start, length) of each of its parts in the file, from `iloc`."""
    version = data[at]
    sizes = data[at + 4] >> 4, data[at + 4] & 15, data[at + 5] >> 4, data[at + 5] & 15 if version else 0
    at += 6
    wide = 4 if version == 2 else 2

    def number(length: int) -> int:
        nonlocal at
        if at + length > end:
            raise IndexError
        at += length
        return int.from_bytes(data[at - length : at], "big")

    extents = {}
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(sizes[2])
        parts = []
        for _ in range(number(2)):
            number(sizes[3])
            start = base + number(sizes[0])
            parts.append((start, number(sizes[1])))
        if method == 0:
            extents[item] = parts
    return extents
