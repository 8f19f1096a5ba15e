"""Batch norm between a head's pool and its layers: `gap:norm=batch`."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@final
class FeatureNorm(nn.BatchNorm1d):
    """Vectors (N, D) to the same with mean 0 and variance 1 in each number, without weights of its own.

    >>> norm = FeatureNorm(2)
    >>> norm.fix(torch.tensor([2.0, 5.0]), torch.tensor([1.0, 4.0]))
    >>> norm(torch.tensor([[3.0, 9.0]])).round(decimals=3)
    tensor([[1., 2.]])

    While a network is trained the numbers are those of each batch, as in every batch norm (MAE's linear probe,
    arXiv 2111.06377). On a frozen backbone they are those of all training images, and `fix`ed.
    """

    fixed = False

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6, affine=False)

    @torch.no_grad()
    def fix(self, mean: Tensor, variance: Tensor) -> None:
        """Take these numbers, also in training."""
        self.get_buffer("running_mean").copy_(mean)
        self.get_buffer("running_var").copy_(variance)
        self.fixed = True

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed:
            return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(x)

    def into(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The weight (…, D) and bias (K,) of a linear layer behind it, for what it reads itself: as in eval mode."""
        scale = (self.get_buffer("running_var") + self.eps).rsqrt().to(weight.dtype)
        folded = weight * scale
        return folded, bias - folded @ self.get_buffer("running_mean").to(weight.dtype)


def norm_of(layers: nn.Sequential | None) -> FeatureNorm | None:
    """The norm that a head's layers begin with."""
    first = layers[0] if layers is not None and len(layers) else None
    return first if isinstance(first, FeatureNorm) else None
