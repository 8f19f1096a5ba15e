"""sum(map_k) + bias_k == logit_k where the head allows it; gradient × activation through the head alone elsewhere."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gapstone.heads import Head


@dataclass(frozen=True)
class Explanation:
    """Signed contributions in logit units, for every class."""

    maps: Tensor
    """(N, K, h, w)"""
    bias: Tensor
    """(N, K): what no position adds; for maps that are not additive, the part of the logit they leave out."""
    logits: Tensor
    """(N, K)"""
    additive: bool
    gap: float
    """Largest |sum(map) + bias − logit|; for maps that are not additive, with the head's own bias of zero input."""


def explain_maps(head: Head, features: Tensor) -> Explanation:
    """The part of every position of the feature maps in every class's logit, from one look at the head.

        >>> explained = explain_maps(model.head, model.features(images))
        >>> explained.maps.sum((2, 3)) + explained.bias                 # the logits, if explained.additive

    Args: features (N, C, h, w). Returns maps (N, K, h, w). The backbone is never differentiated and `head` is left as
    it was. Heads with hidden layers, and log-sum-exp, have no parts that add up: for them the maps are
    gradient × activation at the feature map, the bias is the head's answer to empty maps, and `gap` says how far the
    sum is from the logit.
    """
    was_training = head.training
    head.eval()
    try:
        if head.additive:
            with torch.no_grad():
                exact = head.contributions(features)
                logits = head(features)
                maps, bias = exact.maps, exact.bias.detach().expand_as(logits)
        else:
            maps, bias, logits = _gradient_times_activation(head, features)
    finally:
        head.train(was_training)
    gap = (maps.flatten(2).sum(2) + bias - logits).abs().max().item() if len(logits) else 0.0
    return Explanation(maps, bias, logits, head.additive, gap)


def _gradient_times_activation(head: Head, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        # a copy that torch may differentiate, also where the features were made in inference mode
        x = features.detach().clone().requires_grad_()
        logits = head(x)
        maps = [
            (torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] * x).sum(1).detach()
            for k in range(logits.shape[1])
        ]
    with torch.no_grad():
        bias = head(torch.zeros_like(x[:1])).expand_as(logits)
    return torch.stack(maps, 1), bias, logits.detach()
