"""Values read between positions, linearly along each axis: what RoI align pools."""

from itertools import product

import torch
from torch import Tensor

from gapstone.regions.places import Sampled


def resample(x: Tensor, place: Sampled) -> Tensor:
    """(N, C, *spatial) → (R, C, *points). More than one position outside the map is 0, as in torchvision."""
    axes = len(place.points)

    def spread(t: Tensor, axis: int) -> Tensor:
        return t.view(len(t), 1, *(t.shape[1] if a == axis else 1 for a in range(axes)))

    images = place.images.view(-1, 1, *(1,) * axes)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, *(1,) * axes)
    sides = []
    near = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, (points, length) in enumerate(zip(place.points, x.shape[2:], strict=True)):
        at = points.clamp(0, length - 1)
        low = at.floor().clamp(max=max(length - 2, 0))
        part = (at - low).to(x.dtype)
        near = near & spread((points >= -1) & (points <= length), axis)
        high = (low + 1).clamp(max=length - 1)
        sides.append(
            [(spread(low.long(), axis), spread(1 - part, axis)), (spread(high.long(), axis), spread(part, axis))]
        )
    total = x.new_zeros(())
    for corner in product(*sides):
        weight = x.new_ones(())
        for _, part in corner:
            weight = weight * part
        total = total + x[(images, channels, *(at for at, _ in corner))] * weight
    return torch.where(near, total, 0.0)
