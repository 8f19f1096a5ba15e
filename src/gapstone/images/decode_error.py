"""The error of all decoders, and checks that several of them make."""

ZEROS = bytes(64)
"""Compressed pixels never contain so many zeros; a partly copied or preallocated file does."""


class DecodeError(ValueError):
    """Part of an image is missing, damaged or not supported.

    The message says what; it begins with "truncated" or "not supported" unless the image is damaged.
    """


def check_missing(missing: int, what: str = "bytes of its pixels") -> None:
    """Raise DecodeError if a number of missing bytes or pixels is positive."""
    if missing > 0:
        raise DecodeError(f"truncated: {missing:,} {what} are missing")


def check_zeros(data: bytes, start: int, end: int) -> None:
    """Raise DecodeError if compressed pixels contain too many zeros."""
    position = data.find(ZEROS, start, end)
    if position >= 0:
        raise DecodeError(
            f"from byte {position:,} on its packed pixels are only zeros: they were never written, or lost"
        )
