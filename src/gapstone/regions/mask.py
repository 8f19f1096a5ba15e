"""Mask(mask): only some positions of the map count, or count in part: images of several sizes padded into one batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gapstone.regions.places import Labels, Place, PositionWeights
from gapstone.regions.region import symbolic


@dataclass(frozen=True, eq=False)
class Mask:
    """The positions where `mask` is True: (N, C, *spatial) → (N, C).

    Examples:
        >>> valid = torch.arange(14) < torch.tensor([[14], [9]])  # the second image is 9 wide
        >>> gs.pool(torch.rand(2, 512, 14, 14), "mean", over=gs.Mask(valid[:, None].expand(2, 14, 14))).shape
        torch.Size([2, 512])

    What is masked is not looked at: a NaN there does no harm. An image without any position gets the pool's answer over
    nothing.

    Args:
        mask: `(N, *spatial)`, `(N, 1, *spatial)`, or `(*spatial)` for all images alike. Of bool: a position counts or
            not. Of floating point, ≥ 0: it counts that much (not for max, min and topk, which cannot be taken in part).
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if symbolic(self.mask):
            return
        if not isinstance(self.mask, Tensor):
            raise ValueError(f"Mask({type(self.mask).__name__}): give a tensor of bool, or of weights.")
        if self.mask.dtype != torch.bool and not self.mask.is_floating_point():
            raise ValueError(
                f"Mask of {self.mask.dtype}: give bool, or floating-point weights. For 0 and 1: mask.bool(). "
                f"For a number per position: gs.Segments."
            )

    def place(self, shape: tuple[int, ...]) -> Place:
        mask = per_position(self.mask, shape, "Mask")
        if mask.dtype != torch.bool:
            return PositionWeights(mask)
        return Labels(mask.long() - 1, 1, whole=True)


def per_position(given: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """(*spatial), (N, *spatial) or (N, 1, *spatial) → (1 or N, *spatial)."""
    images, _, *spatial = shape
    size = tuple(given.shape)
    if size == tuple(spatial):
        return given[None]
    if size == (images, *spatial):
        return given
    if size == (images, 1, *spatial):
        return given[:, 0]
    raise ValueError(
        f"{what} of shape {size} on a map of shape {tuple(shape)}: needs one value per position: {tuple(spatial)}, "
        f"{(images, *spatial)} or {(images, 1, *spatial)}."
    )
