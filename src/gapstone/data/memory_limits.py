"""Limits on the memory that a file of images or a table may need, checked before it is read."""

from gapstone.data.sources import DataError
from gapstone.runtime.environment import memory

FREE = 1 << 30
"""Bytes that any file may unpack to, if the machine has as much memory."""

MOST_PACKED = 100
"""How many times its own size a larger file may unpack to; real images compress 2 to 20 times."""

LARGEST_TABLE = 1 << 30
"""Bytes of a CSV file: 10 million rows, which take some 10 times that in memory."""


def check_unpacked(what: str, packed: int, unpacked: int) -> None:
    """Raise DataError if a file of `packed` bytes unpacks to more than the machine or the limits allow."""
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
    """Raise DataError if a CSV file has too many bytes to be read at once."""
    if size > (most := min(LARGEST_TABLE, memory() // 20)):
        raise DataError(f"{what} has {size / 1e9:.1f} GB; a table has at most {most / 1e9:.1f} GB here. Split it.")


def worker_memory_limit(max_pixels: int) -> int:
    """Bytes of address space for a decoding process: 16 per pixel of the largest image, and 4 GB for Python itself."""
    return max_pixels * 16 + (4 << 30)
