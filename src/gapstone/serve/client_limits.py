"""The limits of a client: bytes, pixels, seconds, waiting pictures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClientLimits:
    """All limits of the server; the defaults suit photos of phones and a machine with a few GB of free memory."""

    upload: int = 32 << 20
    """Bytes of a request's body."""
    pixels: int = 64_000_000
    """Width × height, checked in the header before decoding. 48-megapixel photos are allowed."""
    decode_seconds: float = 10.0
    """Time to decode a picture, after which its process is killed."""
    body_seconds: float = 30.0
    """Time to receive a request's body."""
    head_seconds: float = 10.0
    """Time to receive a request's head, or the rest of a refused body."""
    jobs: int = 64
    """Pictures that wait or are processed; further ones get status 503."""
    held: int = 256 << 20
    """Bytes of all bodies in memory; further ones get status 503."""


class RequestRefused(Exception):
    """The response to a request is an error: a status, and a message for the user."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def busy(reason: str) -> RequestRefused:
    """Return the error 503."""
    return RequestRefused(503, f"The server is busy: {reason}. Try again in a moment.", {"Retry-After": "2"})


def format_bytes(count: int) -> str:
    """Format bytes: 32 MB."""
    return f"{count / (1 << 20):.0f} MB" if count >= 1 << 20 else f"{count / 1024:.0f} kB"
