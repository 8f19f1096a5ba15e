"""Segments(labels): one answer per label: superpixels, parts, the cells of a tissue."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gapstone.regions.mask import per_position
from gapstone.regions.places import Labels
from gapstone.regions.region import LARGEST, settle, symbolic

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


@dataclass(frozen=True, eq=False)
class Segments:
    """The positions of each label: (N, C, *spatial) → (N, C, count).

    Examples:
        >>> labels = torch.tensor([[0, 0, 1], [2, 1, 1]])
        >>> gs.pool(torch.rand(8, 16, 2, 3), "max", over=gs.Segments(labels, 3)).shape
        torch.Size([8, 16, 3])

    A label that no position has gets the pool's answer over nothing.

    Args:
        labels: of integers, `(N, *spatial)`, `(N, 1, *spatial)`, or `(*spatial)` for all images alike; negative labels
            belong to nothing.
        count: how many labels there are; default: the largest label + 1, which must be read off the tensor.
    """

    labels: Tensor
    count: int | None = None

    def __post_init__(self) -> None:
        settle(self, "count")
        if self.count is not None and (
            isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= LARGEST
        ):
            raise ValueError(f"Segments: count={self.count!r} needs a whole number of at least 1, at most {LARGEST}.")
        if symbolic(self.labels):
            return
        if not isinstance(self.labels, Tensor) or self.labels.dtype not in INTEGERS:
            kind = self.labels.dtype if isinstance(self.labels, Tensor) else type(self.labels).__name__
            raise ValueError(f"Segments of {kind}: give a tensor of whole numbers; for True and False, gs.Mask.")

    def place(self, shape: tuple[int, ...]) -> Labels:
        labels = per_position(self.labels, shape, "Segments").long()
        if self.count is not None:
            return Labels(labels, self.count)
        return Labels(labels, max(int(labels.max()) + 1, 1) if labels.numel() else 1)
