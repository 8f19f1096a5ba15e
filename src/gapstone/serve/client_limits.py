"""What one client may take: bytes, pixels, seconds, and a share of the server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClientLimits:
    """Every limit of the server; the defaults suit photos from phones on a machine with a few GB to spare."""

    upload: int = 32 << 20
    """Bytes of one request's body."""
    pixels: int = 64_000_000
    """Width × height, told by the header before anything is decoded. 48-megapixel photos pass."""
    decode_seconds: float = 10.0
    """For one picture; then its process is killed."""
    body_seconds: float = 30.0
    """For a client to send its request's body."""
    head_seconds: float = 10.0
    """For a client to send its request's head, or to take the rest of a body that was refused off the line."""
    jobs: int = 64
    """Pictures waiting or at work; one more is answered 503."""
    held: int = 256 << 20
    """Bytes of all bodies in memory at a time; what does not fit is answered 503."""


class RequestRefused(Exception):
    """The request is answered with an error: `status` for programs, `str(e)` for people."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def busy(why: str) -> RequestRefused:
    return RequestRefused(503, f"The server is busy: {why}. Try again in a moment.", {"Retry-After": "2"})


def amount(count: int) -> str:
    """Bytes as people say them: 32 MB."""
    return f"{count / (1 << 20):.0f} MB" if count >= 1 << 20 else f"{count / 1024:.0f} kB"
