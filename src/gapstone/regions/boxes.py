"""Boxes: per spatial axis a list of intervals; every combination of one interval per axis is a box."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Axis:
    """The intervals [start, stop) along one axis; none is empty, none leaves the map.

    `even` says that they follow a rule torch's own pools know: ("window", size, stride, padding) or ("grid", how many).
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    even: tuple[Literal["window"], int, int, int] | tuple[Literal["grid"], int] | None = None
