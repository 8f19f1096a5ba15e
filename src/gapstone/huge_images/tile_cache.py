"""`TileCache` keeps the tiles that were used last: a band that is thinner than a tile needs each of them again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from numpy.typing import NDArray


class TileCache:
    """Arrays by a key, up to a number of bytes; the one that was not used for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of a key, decoded unless it is held; two threads may decode the same one."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        tile = decode()
        with self._lock:
            if key not in self._held and tile.nbytes <= self.most_bytes:
                self._held[key] = tile
                self._bytes += tile.nbytes
                while self._bytes > self.most_bytes:
                    self._bytes -= self._held.popitem(last=False)[1].nbytes
        return tile
