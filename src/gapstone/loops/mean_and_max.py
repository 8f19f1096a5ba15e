"""The mean and the maximum over the whole map in one read, for `avgmax`, `catavgmax` and `("mean", "max")`."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import background
from gapstone.loops.choose_loop import TINY
from gapstone.loops.direct import alone
from gapstone.loops.kernels_ready import missing
from gapstone.loops.memory_format import is_channels_last
from gapstone.loops.tuned.window_support import FLOATS
from gapstone.regions import Whole


def fits_both(x: Tensor, over: object) -> bool:
    """Whether the mean and the maximum of a call are made in one read."""
    return (
        type(over) is Whole
        and alone(x)
        and x.is_cpu
        and x.dtype in FLOATS
        and 3 <= x.dim() <= 5
        and x.numel() * x.element_size() >= TINY
    )


def both_ready(x: Tensor) -> bool:
    """Whether the kernels are compiled; see `kernels_ready`."""
    from gapstone.loops.tuned import launch_whole

    if background.must_wait():
        return True
    keep = torch.is_grad_enabled() and x.requires_grad
    like = "avgmax", x.dtype, x.shape, is_channels_last(x), False, None
    requests = [lambda: launch_whole.plan(False, *like, keep)]
    return not missing([*requests, lambda: launch_whole.plan(True, *like, False)] if keep else requests)


def mean_and_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over the whole map, in one read; None of x's layout is copied."""
    from gapstone.loops.tuned import launch_whole

    if torch.is_grad_enabled() and x.requires_grad:
        both: tuple[Tensor, Tensor] = _MeanAndMax.apply(x)
        return both
    return launch_whole.avgmax(x)


class _MeanAndMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        from gapstone.loops.tuned import launch_whole

        mean, largest, position = launch_whole.avgmax_kept(x)
        ctx.save_for_backward(position)
        ctx.call = tuple(x.shape), is_channels_last(x)
        return mean, largest

    @staticmethod
    def backward(ctx: Any, mean_grad: Tensor, max_grad: Tensor) -> Tensor:
        from gapstone.loops.tuned import launch_whole

        (position,), (shape, last) = ctx.saved_tensors, ctx.call
        if torch.is_grad_enabled() or not alone(mean_grad):  # somebody differentiates the gradient, or looks on
            length = prod(shape[2:])
            means = (mean_grad / length)[..., None].expand(-1, -1, length)
            dx: Tensor = means.scatter_add(2, position.long()[..., None], max_grad[..., None])
            return dx.reshape(shape)
        return launch_whole.avgmax_backward(mean_grad, max_grad, position, shape, last)
