"""Messages to and from the decoding processes: a header in JSON, then raw bytes. Reading one runs no code from it.

A message holds None, bool, int, float, str, bytes, uint8 arrays, and lists and dictionaries of these; tuples arrive as
lists. The pipe carries the lengths of header and bytes, then both.
"""

import json
import math
import struct
from typing import IO, Any

import numpy as np

LONGEST_HEADER = 1 << 20
LARGEST = 1 << 20

_LENGTHS = struct.Struct("<IQ")


class MessageError(ValueError):
    """The data received is no message, or not an expected one."""


def send(pipe: IO[bytes], value: object) -> None:
    """Send a message. Raises TypeError for a value that no message can hold, OSError if the reader is gone."""
    parts: list[bytes | memoryview] = []
    header = json.dumps(_as_json(value, parts)).encode("ascii")
    pipe.write(_LENGTHS.pack(len(header), sum(len(part) for part in parts)))
    for part in (header, *parts):
        pipe.write(part)
    pipe.flush()


def receive(pipe: IO[bytes], largest: int = LARGEST) -> Any:
    """The next message, of at most `largest` raw bytes; arrays in it are read-only.

    Raises:
        MessageError: the data is no message or too large; too large data is not read into memory.
        EOFError: the pipe has ended.
    """
    header_length, length = _LENGTHS.unpack(_read(pipe, _LENGTHS.size))
    if header_length > LONGEST_HEADER or length > largest:
        raise MessageError(
            f"a message of {header_length:,} + {length:,} bytes; at most {LONGEST_HEADER:,} + {largest:,} are expected"
        )
    header, data = _read(pipe, header_length), _read(pipe, length)
    try:
        value, end = _from_json(json.loads(header), data, 0)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"a message that cannot be read ({str(error)[:100]})") from None
    if end != length:
        raise MessageError(f"a message with {length - end:,} bytes too many")
    return value


def _read(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _as_json(value: object, parts: list[bytes | memoryview]) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        parts.append(value)
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        parts.append(np.ascontiguousarray(value).reshape(-1).data)
        return {"array": list(value.shape)}
    if isinstance(value, list | tuple):
        return [_as_json(part, parts) for part in value]
    if isinstance(value, dict):
        return {"dict": {str(key): _as_json(part, parts) for key, part in value.items()}}
    raise TypeError(f"a message cannot hold {type(value).__name__} {str(value)[:60]!r}")


def _from_json(value: object, data: bytes, start: int) -> tuple[Any, int]:
    """A value, and where the bytes of the next one begin."""
    if isinstance(value, list):
        parts = []
        for part in value:
            part, start = _from_json(part, data, start)
            parts.append(part)
        return parts, start
    if not isinstance(value, dict):
        return value, start
    match value:
        case {"dict": dict() as fields} if len(value) == 1:
            items = {}
            for key, part in fields.items():
                items[key], start = _from_json(part, data, start)
            return items, start
        case {"bytes": int() as length} if len(value) == 1 and 0 <= length <= len(data) - start:
            return data[start : start + length], start + length
        case {"array": [*shape]} if len(value) == 1 and all(type(n) is int and n >= 0 for n in shape):
            length = math.prod(shape)
            if length <= len(data) - start and len(shape) <= 8:
                return np.frombuffer(data, np.uint8, length, start).reshape(shape), start + length
    raise ValueError(f"{str(value)[:60]} stands for nothing")
