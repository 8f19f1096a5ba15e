"""Gradients of logits, class by class: a vector-Jacobian product for each."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gapstone.heads.contributions import MEAN
from gapstone.tracing.tape import SplitError

NO_GRADIENT = SplitError(
    "no gradient flows from the logits to the last map (something on the way is detached, rounded or quantised), and a "
    "head with hidden layers needs one for its maps"
)

CHUNK = 64
"""Classes whose gradients are taken at a time."""


def jacobian(logits: Tensor, of: list[Tensor], classes: Tensor | None, images: int | None) -> Iterator[list[Tensor]]:
    """Gradients of each class's logit, (n, k, …) for every tensor in `of`, in pieces of k ≤ CHUNK classes."""
    n, count = logits.shape
    if classes is None:
        classes = torch.arange(count, device=logits.device)[None]
    classes = classes.expand(n, -1)
    for chunk in torch.split(classes, CHUNK, 1):
        chosen = torch.zeros(chunk.shape[1], n, count, dtype=logits.dtype, device=logits.device)
        chosen.scatter_(2, chunk.t()[:, :, None].clamp(min=0), 1.0)
        chosen[chunk.t() == MEAN] = 1 / count
        yield [g.transpose(0, 1)[:images].detach() for g in _vjp(logits, of, chosen)]


def _vjp(logits: Tensor, of: list[Tensor], chosen: Tensor) -> list[Tensor]:
    if not logits.requires_grad:
        raise NO_GRADIENT
    with torch.inference_mode(False):
        gradients: Sequence[Tensor | None]
        try:
            gradients = torch.autograd.grad(logits, of, chosen, True, is_grads_batched=True, allow_unused=True)
        except RuntimeError:  # an operator that vmap does not know: one class at a time
            rows = [torch.autograd.grad(logits, of, row, True, allow_unused=True) for row in chosen]
            gradients = [None if None in column else torch.stack(column) for column in zip(*rows, strict=True)]
        if all(g is None for g in gradients):
            raise NO_GRADIENT
        # a branch that does not reach the logits
        return [x.new_zeros(len(chosen), *x.shape) if g is None else g for g, x in zip(gradients, of, strict=True)]
