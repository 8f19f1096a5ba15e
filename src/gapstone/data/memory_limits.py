"""How much memory a file of images may ask for, said before any of it is taken."""

from gapstone.data.sources import DataError
from gapstone.runtime.environment import memory

FREE = 1 << 30
"""Bytes that any file may unpack to, if the machine has them."""

MOST_PACKED = 100
"""Times its own size that a larger file may unpack to: real images pack 2 to 20 times."""

LARGEST_TABLE = 1 << 30
"""Bytes of a CSV file, 10 million rows; in memory it takes some 10 times that."""


def check_unpacked(what: str, packed: int, unpacked: int) -> None:
    """Raises DataError for a file of `packed` bytes that unpacks to more than the machine or the limit allows."""
    half = memory() // 2
    if unpacked > half:
        raise DataError(
            f"{what} unpacks to {unpacked / 1e9:.1f} GB, more than half of this machine's {memory() / 1e9:.0f} GB; "
            f"save the images as files in a folder instead."
        )
    if unpacked > max(FREE, MOST_PACKED * packed):
        raise DataError(
            f"{what} unpacks to {unpacked / 1e9:.1f} GB, {unpacked / max(packed, 1):,.0f} times its own size; at most "
            f"{FREE / 1e9:.1f} GB or {MOST_PACKED} times are taken. Save the images as files in a folder instead."
        )


def check_table(what: str, size: int) -> None:
    """Raises DataError for a CSV file of so many bytes that it is not read at once."""
    if size > (most := min(LARGEST_TABLE, memory() // 20)):
        raise DataError(f"{what} has {size / 1e9:.1f} GB; a table has at most {most / 1e9:.1f} GB here. Split it.")


def worker_memory_limit(max_pixels: int) -> int:
    """Bytes of address space a decoding process may take: 16 per pixel at the limit, and the interpreter's own."""
    return max_pixels * 16 + (4 << 30)
