"""A digest for large files that uses all cores: the SHA-256 of the SHA-256 digests of the file's blocks.

Threads hash the blocks in parallel. Measured per core, on two cores with SHA instructions: SHA-256 1.3 GB/s, BLAKE2b
0.5, CRC-32 3.3. Decoding the same images takes a hundred times as long, and the mean over their pixels three times.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from gapstone.runtime.environment import cores
from gapstone.storage.sealed_json import open_own

BLOCK = 8 << 20  # bytes


class BlockDigest:
    """The digest of bytes that arrive in pieces; equals `digest` of a file with the same bytes.

    >>> blocks = BlockDigest()
    >>> blocks.update(header)
    >>> blocks.update(rows)
    >>> blocks.hexdigest() == digest(path)
    True
    """

    def __init__(self) -> None:
        self._block_digests: list[bytes] = []
        self._block, self._size = hashlib.sha256(), 0  # of the block that is not full yet

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            piece = view[: BLOCK - self._size]
            self._block.update(piece)
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size == BLOCK:
                self._block_digests.append(self._block.digest())
                self._block, self._size = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        last = [self._block.digest()] if self._size else []
        return hashlib.sha256(b"".join(self._block_digests + last)).hexdigest()


def digest(path: Path) -> str:
    """The digest of a file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is a link or a pipe, or it cannot be read.
    """
    with open_own(path) as file:

        def digest_of_block(start: int) -> bytes:
            return hashlib.sha256(os.pread(file.fileno(), BLOCK, start)).digest()

        with ThreadPoolExecutor(min(cores(), 8)) as pool:
            block_digests = pool.map(digest_of_block, range(0, os.fstat(file.fileno()).st_size, BLOCK))
            return hashlib.sha256(b"".join(block_digests)).hexdigest()


def first_bytes(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file block by block; fewer if the file is shorter."""
    while size > 0 and (piece := file.read(min(size, BLOCK))):
        size -= len(piece)
        yield piece
