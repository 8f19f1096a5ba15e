"""Shifts test images by a few pixels, to measure how a head reacts."""

import torch.nn.functional as F
from torch import Tensor


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images (N, C, H, W) by whole pixels, repeating the border."""
    height, width = images.shape[2:]
    padded = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, :, top : top + height, left : left + width]


def largest_shift(size: tuple[int, int]) -> int:
    """The largest shift of test images of (H, W) in pixels: an eighth of the shorter side, at least 2."""
    return max(2, min(size) // 8)


def directions(distance: int) -> tuple[tuple[int, int], ...]:
    """(down, right) of the four shifts by a distance in pixels."""
    return (0, distance), (0, -distance), (distance, 0), (-distance, 0)
