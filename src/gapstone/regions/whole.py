"""Whole(): the whole map, one answer per channel. `pool(x, "mean")` with it is global average pooling."""

from dataclasses import dataclass

from gapstone.regions.places import Intervals


@dataclass(frozen=True)
class Whole:
    """The whole map: (N, C, *spatial) → (N, C).

    Examples:
        >>> gs.pool(torch.rand(2, 512, 14, 14), "mean", over=gs.Whole()).shape
        torch.Size([2, 512])
    """

    def place(self, shape: tuple[int, ...]) -> Intervals:
        return Intervals(None)
