"""Values read between positions, linearly along each axis: what RoI align pools."""

from itertools import product

import torch
from torch import Tensor

from gapstone.regions.places import Sampled, spread


def resample(x: Tensor, place: Sampled) -> Tensor:
    """(N, C, *spatial) → (R, C, *points). More than one position outside the map is 0, as in torchvision."""
    axes = len(place.points)

    images = place.images.view(-1, 1, *(1,) * axes)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, *(1,) * axes)
    sides = []
    near = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, (points, length) in enumerate(zip(place.points, x.shape[2:], strict=True)):
        at = points.clamp(0, length - 1)
        low = at.floor().clamp(max=max(length - 2, 0))
        part = (at - low).to(x.dtype)
        near = near & spread((points >= -1) & (points <= length), axis, axes)
        high = (low + 1).clamp(max=length - 1)
        ends = (low.long(), 1 - part), (high.long(), part)
        sides.append([(spread(at, axis, axes), spread(share, axis, axes)) for at, share in ends])
    total = x.new_zeros(())
    for corner in product(*sides):
        weight = x.new_ones(())
        for _, part in corner:
            weight = weight * part
        total = total + x[(images, channels, *(at for at, _ in corner))] * weight
    return torch.where(near, total, 0.0)
