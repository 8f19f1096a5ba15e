"""The pools as a user writes them in torch; in float64 they are the reference for every contender."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.bench.cases import Case

MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
INTO: dict[str, Callable[..., Any]] = {
    "max": torch.ops.aten.max_pool2d_with_indices.out,
    "mean": torch.ops.aten.avg_pool2d.out,
}


def formula(case: Case, mask: Tensor | None = None) -> Callable[..., Tensor]:
    """Return the pool of a case as a function of x and, if it is learned, of the parameter."""
    spatial = len(case.shape) - 2
    dims = tuple(range(2, len(case.shape)))
    if case.window:
        size, stride, padding = case.window
        if case.pool == "max":
            return lambda x: MAX[spatial](x, size, stride, padding)
        return lambda x: MEAN[spatial](x, size, stride, padding, count_include_pad=False)
    if mask is not None:
        weights = mask[:, None]
        return lambda x: (x * weights).sum(dims) / weights.sum(dims)
    return _whole(case, dims)


def _whole(case: Case, dims: tuple[int, ...]) -> Callable[..., Tensor]:
    parameter, places = case.parameter, math.prod(case.shape[2:])
    match case.pool:
        case "mean":
            return lambda x: x.mean(dims)
        case "max":
            return lambda x: x.amax(dims)  # adaptive_max_pool and max(-1) take up to ten times as long
        case "gem":
            return lambda x, p=parameter: x.clamp(min=1e-6).pow(p).mean(dims).pow(1 / p)
        case "logsumexp":
            return lambda x, r=parameter: torch.logsumexp(r * x, dims) / r - math.log(places) / r
        case "avgmax":
            return lambda x: 0.5 * (x.mean(dims) + x.amax(dims))
        case _:
            raise ValueError(f"bench has no torch formula for {case.pool}")


def forward(case: Case, x: Tensor, mask: Tensor | None, learned: Tensor | None) -> Callable[[], Tensor]:
    """Return the forward pass as a call without arguments."""
    pool = formula(case, mask)
    if case.into:
        return _into(case, x, pool)
    if case.keep:
        size, stride, padding = case.window or (0, 0, 0)
        max_pool = MAX[len(case.shape) - 2]
        return lambda: max_pool(x, size, stride, padding, return_indices=True)[0]
    if learned is not None:
        return lambda: pool(x, learned)
    return lambda: pool(x)


def _into(case: Case, x: Tensor, pool: Callable[..., Tensor]) -> Callable[[], Tensor]:
    assert case.window
    size, stride, padding = case.window
    out = pool(x)
    if case.pool == "max":
        indices = torch.empty_like(out, dtype=torch.int64)
        return lambda: INTO["max"](x, [size] * 2, [stride] * 2, [padding] * 2, out=out, indices=indices)[0]
    return lambda: INTO["mean"](x, [size] * 2, [stride] * 2, [padding] * 2, False, False, out=out)
