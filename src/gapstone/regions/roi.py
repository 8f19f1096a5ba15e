"""Boxes(boxes, size): every box of an image cut into a grid of its own (region of interest pooling).

Without `sampling`, RoI pooling (Girshick, arXiv 1504.08083): box edges are rounded to positions, and cell i of g has
the positions floor(i L / g) to ceil((i + 1) L / g) of the box's L. With it, RoI align (He et al., arXiv 1703.06870):
values are read between positions, at `sampling` points per cell and axis, and these are pooled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gapstone.regions.places import Intervals, Place, Rectangles, Sampled, Windows
from gapstone.regions.region import PerAxis, check_extent, check_whole_numbers, per_axis, seen, settle, symbolic

LARGEST = 2.0**30
"""Coordinates of rounded boxes are held within: as far outside as any, and multiples of them are whole numbers."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes in the map: (N, C, H, W) → (R, C, h, w), one answer per box and cell.

    Examples:
        >>> boxes = torch.tensor([[0, 10, 20, 110, 90], [1, 0, 0, 50, 50]])  # image, x1, y1, x2, y2
        >>> gs.pool(torch.rand(2, 256, 14, 14), "max", over=gs.Boxes(boxes, 7, scale=1 / 16)).shape
        torch.Size([2, 256, 7, 7])

    Positions outside the map do not exist; a cell without any gives the pool's answer over nothing (torchvision gives
    0). In RoI align, points more than one position outside count as 0, as in torchvision.

    Args:
        boxes: (R, 1 + 2 × axes): the image's number, one corner, the other; a corner's coordinates last axis first, as
            in torchvision (x, y). Or a list with one (R_i, 2 × axes) per image.
        size: cells of each box, one number or one per axis.
        scale: map positions per unit of the boxes' coordinates: 1 / stride of the network.
        sampling: points per cell and axis of RoI align; None: RoI pooling.
        half_pixel: RoI align: the centre of position 0 is at coordinate 0.5 (torchvision's `aligned=True`).
    """

    boxes: Tensor | Sequence[Tensor]
    size: PerAxis
    scale: float = 1.0
    sampling: int | None = None
    half_pixel: bool = True

    def __post_init__(self) -> None:
        settle(self, "size", "scale", "sampling", "half_pixel")
        check_whole_numbers("Boxes", 1, size=self.size)
        if self.sampling is not None:
            check_whole_numbers("Boxes", 1, sampling=self.sampling)
        if isinstance(self.sampling, tuple):
            raise ValueError(f"Boxes: sampling={self.sampling!r} must be one number: points per cell and axis.")
        if not isinstance(self.scale, int | float) or not 0 < self.scale < float("inf"):
            raise ValueError(f"Boxes: scale={self.scale!r} must be a positive number: 1 / stride of the network.")
        if symbolic(self.boxes) or (isinstance(self.boxes, list | tuple) and any(map(symbolic, self.boxes))):
            return
        tensors = (self.boxes,) if isinstance(self.boxes, Tensor) else tuple(self.boxes)
        if not tensors or not all(isinstance(t, Tensor) and t.dim() == 2 for t in tensors):
            raise ValueError(
                "Boxes: give a tensor (R, 5) of image, x1, y1, x2, y2, or a list with one (R, 4) tensor per image."
            )

    def place(self, shape: tuple[int, ...]) -> Place:
        axes = len(shape) - 2
        size = per_axis(self.size, axes, "Boxes size")
        for cells, length in zip(size, shape[2:], strict=True):
            check_extent("Boxes", cells * (self.sampling or 1), 1, length)
        images, first, last = self._corners(shape[0], axes)
        first, last = first * self.scale, last * self.scale
        if self.sampling is None:
            starts, stops = [], []
            for axis, (cells, length) in enumerate(zip(size, shape[2:], strict=True)):
                # round as C does, half away from zero: torchvision's boxes
                begin, end = (
                    torch.where(v < 0, -(0.5 - v).floor(), (v + 0.5).floor()).clamp(-LARGEST, LARGEST).long()
                    for v in (first[:, axis], last[:, axis])
                )
                extent = (end - begin + 1).clamp(min=1)[:, None]
                cell = torch.arange(cells, device=begin.device)
                starts.append((begin[:, None] + cell * extent // cells).clamp(0, length))
                stops.append(
                    (begin[:, None] - (-(cell + 1) * extent).div(cells, rounding_mode="floor")).clamp(0, length)
                )
            return Rectangles(images, tuple(starts), tuple(stops))
        points = []
        for axis, cells in enumerate(size):
            begin, extent = first[:, axis], last[:, axis] - first[:, axis]
            if self.half_pixel:
                begin = begin - 0.5
            else:
                extent = extent.clamp(min=1.0)
            at = (torch.arange(cells * self.sampling, device=begin.device, dtype=begin.dtype) + 0.5) / self.sampling
            points.append(begin[:, None] + at * (extent / cells)[:, None])
        n = self.sampling
        windows = tuple(Windows(cells, n, n, 0, 0, 1) for cells in size)
        return Sampled(images, tuple(points), Intervals(windows))

    def _corners(self, images: int, axes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image numbers (R,), first and last corner (R, axes) with the axes in the map's order."""
        if isinstance(self.boxes, Tensor):
            numbers, corners = self.boxes[:, 0], self.boxes[:, 1:]
            wanted, given = f"(R, {1 + 2 * axes})", tuple(self.boxes.shape)
        else:
            if len(self.boxes) != images:
                raise ValueError(f"Boxes: a list of {len(self.boxes)} tensors for {images} images: one per image.")
            counts = [len(b) for b in self.boxes]
            corners = torch.cat(list(self.boxes))
            numbers = torch.cat([torch.full((n,), i, device=corners.device) for i, n in enumerate(counts)])
            wanted, given = f"(R, {2 * axes})", tuple(self.boxes[0].shape)
        if corners.shape[1] != 2 * axes:
            raise ValueError(f"Boxes of shape {given} on a map with {axes} spatial axes: needs {wanted}.")
        if corners.is_complex() or corners.dtype == torch.bool:
            raise ValueError(f"Boxes of {corners.dtype}: give real numbers.")
        corners = corners.float() if not corners.is_floating_point() else corners
        numbers = self._checked(numbers, corners, images)
        return numbers, corners[:, :axes].flip(1), corners[:, axes:].flip(1)

    def _checked(self, numbers: Tensor, corners: Tensor, images: int) -> Tensor:
        """The image numbers as whole numbers; an error for a number that no image has, and for a box of no place."""
        right = (numbers >= 0) & (numbers < images) & corners.isfinite().all(1)
        if numbers.is_floating_point():
            right = right & (numbers == numbers.floor())
        # in a graph nobody can look: such a box is then refused as one of image -1, where it is pooled
        if seen(right.all()) is False:
            row = int((~right).nonzero()[0])
            number, box = numbers[row].item(), corners[row].tolist()
            if not 0 <= number < images or number != int(number):
                raise ValueError(
                    f"Boxes: box {row} is of image {number:g}, and there are {images} images, 0 to {images - 1}."
                )
            raise ValueError(f"Boxes: box {row} is {box}: its coordinates must be finite numbers.")
        return torch.where(right, numbers, -1).long()
