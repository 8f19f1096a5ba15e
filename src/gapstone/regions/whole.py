"""Whole(): the whole map, one answer per channel. `pool(x, "mean")` with it is global average pooling."""

from dataclasses import dataclass

from gapstone.regions.boxes import Axis


@dataclass(frozen=True)
class Whole:
    """(N, C, *spatial) → (N, C)."""

    def axes(self, sizes: tuple[int, ...]) -> tuple[Axis, ...] | None:
        return None
