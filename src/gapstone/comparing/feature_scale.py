"""One scale for learning rates: what a head's first layer reads is centred, and divided by one number.

    x' = (x − mean) / r,   r² = mean |x − mean|²   over the training images

A linear layer on x' has a curvature of about ½ at most, whatever the network, pool and number of channels, so that one
grid of learning rates suits all heads. The layer that is kept reads x: W x' + b = (W / r) x + (b − W mean / r).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.heads import Head

Affine = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class FeatureScale:
    """>>> scale = FeatureScale.of([torch.tensor([[1.0, 5.0], [3.0, 5.0]])])
    >>> scale(torch.tensor([[3.0, 5.0]]))
    tensor([[1., 0.]])
    """

    mean: Tensor
    """(D,)"""
    factor: float
    """1 / r; 0 if all images read the same."""

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> "FeatureScale":
        """The scale of rows (N, D) that come in batches."""
        mean, each = mean_and_variance(batches)
        variance = float(each.sum())
        return cls(mean.float(), variance**-0.5 if variance > 1e-12 * float(mean.square().sum()) else 0.0)

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean).mul_(self.factor)

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The weight (K, D) and bias of the same layer on what is not scaled."""
        weight = weight.double() * self.factor
        return weight.float(), (bias.double() - weight @ self.mean.double()).float()


def mean_and_variance(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each number of rows (N, D) that come in batches, (D,) float64."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    shift: Tensor | None = None
    for rows in batches:
        if shift is None:  # sums of differences from it lose no digits where the mean is far from 0
            shift = rows.mean(0)
        rows = rows - shift
        count += len(rows)
        total, squares = total + rows.sum(0, dtype=torch.float64), squares + rows.square().sum(0, dtype=torch.float64)
    assert shift is not None
    mean = total / count
    return shift.double() + mean, (squares / count - mean.square()).clamp_min(0)


def layers_of(head: Head) -> nn.Sequential:
    """The layers of a head that are not pools."""
    layers = head.classifier if head.maps is None else head.maps
    assert layers is not None
    return layers


class ScaledLayer(nn.Module):
    """A layer trained as if what it reads were scaled to a variance of 1 per number, as its random weights expect.

    Its own weights are those for what is scaled; it reads what is not.
    """

    def __init__(self, layer: Affine, scale: FeatureScale) -> None:
        super().__init__()
        self.layer = layer
        self.scale = FeatureScale(scale.mean, scale.factor * len(scale.mean) ** 0.5)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Weight and bias for what is not scaled."""
        assert self.layer.bias is not None
        weight = self.layer.weight * self.scale.factor
        return weight, self.layer.bias - weight.flatten(1) @ self.scale.mean

    @torch.no_grad()
    def plain(self) -> Affine:
        """The same as a layer of torch's."""
        weight, bias = self.affine()
        assert self.layer.bias is not None
        self.layer.weight.copy_(weight)
        self.layer.bias.copy_(bias)
        return self.layer

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.affine()
        return F.linear(x, weight, bias) if weight.dim() == 2 else F.conv2d(x, weight, bias)
