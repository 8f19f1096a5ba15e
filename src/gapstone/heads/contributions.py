"""Each position's part in a weighted sum of pooled numbers: part[k, position] = sum over c of w[k, c] share[c] x[c].

Weights are (K, …), the same for all images, or (N, K, …), each image's own.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.loops import reference
from gapstone.pooling import pool, share
from gapstone.pools import POOLS
from gapstone.regions import Grid

MEAN = -1
"""Stands among classes for the mean of all logits."""
ATTENTION = "the weights of attention"
"""What is held where positions are listened to, in words."""


def first_tokens(count: int) -> str:
    """What is held where so many tokens are of no position, in words."""
    return "what the first token brings" if count == 1 else f"what the first {count} tokens bring"


def of_classes(rows: Tensor, classes: Tensor) -> Tensor:
    """The rows (C, …) of the classes (N, K), of which some may be `MEAN`: (N, K, …).

    >>> of_classes(torch.tensor([1.0, 3.0]), torch.tensor([[1, MEAN]]))
    tensor([[3., 2.]])
    """
    found = rows[classes.clamp(min=0)]
    if bool((means := classes == MEAN).any()):
        found[means] = rows.mean(0)
    return found


def pooled(x: Tensor, weight: Tensor, name: Any, **parameters: Any) -> Tensor:
    """Of pools over the whole map: x (N, C, *cells), weight (K, C) or (N, K, C) → (N, K, *cells).

    They add up to `weight @ pool(x)` where the pool adds up. Of attention, `score` (N, 1, *cells) is held.
    """
    if name == "mean":  # its share is the same everywhere: nothing of the size of x or of the weights is made
        return _sum(weight, x).div_(x[0, 0].numel())
    if "score" in parameters:  # of each position, as a network made it: `share` takes the query it was made with
        return _sum(weight, x * reference.share(POOLS[name], x, (parameters["score"],)))
    return _sum(weight, x * share(x, name, **parameters))


def in_place(x: Tensor, weight: Tensor, grid: bool) -> Tensor:
    """Of numbers that keep their place: weight (…, C, *cells), cells those of x, or of a `grid` of means over it."""
    if grid:
        # the mean over grid cells is linear: its matrix along one axis is the pooled identity
        for axis, (n, cells) in enumerate(zip(x.shape[2:], weight.shape[-(x.dim() - 2) :], strict=True)):
            eye = torch.eye(n, dtype=x.dtype, device=x.device)[None]
            matrix = pool(eye, "mean", Grid(cells))[0]  # (n, cells)
            dim = weight.dim() - (x.dim() - 2) + axis
            weight = torch.tensordot(weight, matrix, ([dim], [1])).movedim(-1, dim)
    if weight.dim() == x.dim():
        return torch.einsum("kc...,nc...->nk...", weight, x)
    return torch.einsum("nkc...,nc...->nk...", weight, x)


def _sum(weight: Tensor, x: Tensor) -> Tensor:
    if weight.dim() == 3:
        return torch.einsum("nkc,nc...->nk...", weight, x)
    # as a linear layer over the cells: of 7×7 cells and 1,000 classes a fifth faster than einsum
    rows = F.linear(x.flatten(2).transpose(1, 2), weight)
    return rows.transpose(1, 2).reshape(x.shape[0], weight.shape[0], *x.shape[2:])
