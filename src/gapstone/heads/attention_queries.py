"""Attention pooling with several learned queries at a time: what `gs.pool(x, "attention", query=q)` is for each.

By matrix products over all queries: with 8 queries a training step takes a hundredth of 8 pools' time.
"""

import math
from typing import final

import torch
from torch import Tensor, nn

QUERY_SPREAD = 0.02
"""Standard deviation of a new query: attention begins close to the mean."""


@final
class AttentionQueries(nn.Module):
    """Positions (N, C, …) to the queries' answers side by side, (N, queries · C).

    As in Psomas et al., arXiv 2506.10178, but each query answers for all channels: what their value projection can say,
    the linear layer behind can say, too.
    """

    def __init__(self, channels: int, queries: int = 1) -> None:
        super().__init__()
        new = (torch.empty(channels) for _ in range(queries))
        # a vector each: as all that a pool learns, without weight decay, which would pull attention to the mean
        self.queries = nn.ParameterList(nn.Parameter(nn.init.normal_(query, std=QUERY_SPREAD)) for query in new)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nqp,ncp->nqc", self.weights(x), x.flatten(2)).flatten(1)

    def weights(self, x: Tensor) -> Tensor:
        """How much each query listens to each position, (N, queries, positions), 1 in all."""
        queries = torch.stack(list(self.queries)) / math.sqrt(x.shape[1])
        return torch.einsum("qc,ncp->nqp", queries, x.flatten(2)).softmax(2)

    def parts(self, x: Tensor, weight: Tensor) -> Tensor:
        """What each position adds to `weight` (K, queries · C) or (N, K, queries · C) times the answers: (N, K, …)."""
        shape = *weight.shape[:-1], len(self.queries), x.shape[1]
        said = "kqc,ncp,nqp->nkp" if weight.dim() == 2 else "nkqc,ncp,nqp->nkp"
        parts = torch.einsum(said, weight.view(shape), x.flatten(2), self.weights(x))
        return parts.view(*parts.shape[:2], *x.shape[2:])

    def of_first(self, x: Tensor) -> Tensor:
        """What the first position brings to the answers, (N, queries · C)."""
        return torch.einsum("nq,nc->nqc", self.weights(x)[:, :, 0], x.flatten(2)[:, :, 0]).flatten(1)

    def extra_repr(self) -> str:
        return f"queries={len(self.queries)}"
