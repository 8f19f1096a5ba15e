"""Test images moved by a few pixels, to see what a head makes of it."""

import torch.nn.functional as F
from torch import Tensor


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Pictures (N, C, H, W) moved by whole pixels; the border is repeated into what becomes free."""
    height, width = images.shape[2:]
    padded = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, :, top : top + height, left : left + width]


def largest_shift(size: tuple[int, int]) -> int:
    """The most pixels that test images of (H, W) are moved by: an eighth of the shorter side, at least 2."""
    return max(2, min(size) // 8)


def directions(distance: int) -> tuple[tuple[int, int], ...]:
    """(down, right) of the four moves by so many pixels."""
    return (0, distance), (0, -distance), (distance, 0), (-distance, 0)
