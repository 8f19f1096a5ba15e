"""What a pool with one learned number says of kept maps at any value of that number, from its answers at a few.

gem's p and logsumexp's r are one number for all channels, and what an image's channel is pooled to is a smooth function
of its logarithm. So the pool is asked at values a fixed ratio apart, as training comes near them, and the polynomial
through the eight nearest answers stands between them. A step then reads vectors instead of maps.

The errors are those of float32: see docs/decisions/0047-heads-that-read-maps.md.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.pooling import Pool, pool
from gapstone.pools import BUILT_IN

RATIO = 1.15
"""Of a value in the table to the one before."""
NEAREST = 8
"""Answers that a polynomial goes through."""
USUAL = 30
"""Values that the candidates of a comparison come near (gem and logsumexp, 4,309 photos)."""


class PoolTable:
    """The answers of pools that differ in their learned number alone, for images that are read from maps.

        >>> maps = torch.rand(9, 512, 7, 7)
        >>> table = PoolTable(gs.Pool("gem", learn=True), lambda name, ask: ask(maps))
        >>> pooled = table(torch.tensor([0, 5, 7]), [gs.Pool("gem", p=p, learn=True) for p in (2.9, 3.1)])
        >>> len(pooled), pooled[0].shape  # images 0, 5 and 7, by each pool
        (2, torch.Size([3, 512]))

    `read` is given a name of the answers, and a function to call with the maps of all images, in their order, part by
    part; it puts the answers together. The gradient is that of the polynomial.
    """

    def __init__(self, like: nn.Module, read: Callable[[str, Callable[[Tensor], Tensor]], Tensor]) -> None:
        """`like`: a pool that `learns_one_number`."""
        assert isinstance(like, Pool)
        self.name: Any = like.name
        (self.key,) = like.learns
        self.begin = float(like.started[self.key])
        self.read = read
        self.answers: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, pools: Iterable[nn.Module]) -> Sequence[Tensor]:
        """What each pool says of these images, (N, C)."""
        values = torch.stack([_value(each, self.key) for each in pools])
        places = (values.double() / self.begin).log() / math.log(RATIO)
        # a candidate whose numbers overflowed has no place: its weights are NaN, and so is what it gets
        first = places.detach().nan_to_num(0.0).floor().long() - (NEAREST // 2 - 1)
        known = first[:, None] + torch.arange(NEAREST, device=first.device)
        asked, column = torch.unique(known, return_inverse=True)
        weights = places.new_zeros(len(places), len(asked)).scatter(1, column, _lagrange(places - first))
        answers = torch.stack([self._at(place).index_select(0, images) for place in asked.tolist()])
        pooled = weights.to(answers.dtype) @ answers.flatten(1)
        return pooled.view(len(places), *answers.shape[1:]).unbind(0)

    @torch.no_grad()
    def _at(self, place: int) -> Tensor:
        if place not in self.answers:
            given: dict[str, Any] = {self.key: self.begin * RATIO**place}
            name = f"{self.name}-{self.begin:g}-{place}"
            self.answers[place] = self.read(name, lambda maps: pool(maps, self.name, **given))
        return self.answers[place]


def _value(one: nn.Module, key: str) -> Tensor:
    assert isinstance(one, Pool)
    value = one.parameters_of_pool()[key]
    assert isinstance(value, Tensor)
    return value.reshape(())


def _lagrange(t: Tensor) -> Tensor:
    """(M, NEAREST): what the answers at 0, 1, 2, … count for at each t (M), float64."""
    at = torch.arange(NEAREST, dtype=t.dtype, device=t.device)
    apart = at[:, None] - at
    others = torch.eye(NEAREST, dtype=torch.bool, device=t.device)
    above = (t[:, None, None] - at).masked_fill(others, 1.0).prod(2)
    return above / apart.masked_fill(others, 1.0).prod(1)


def learns_one_number(pools: Sequence[nn.Module]) -> bool:
    """Whether there is one pool, of gapstone's own, that learns one number."""
    if len(pools) != 1 or not isinstance(one := pools[0], Pool) or one.name not in BUILT_IN:
        return False
    learned = list(one.parameters())
    return len(one.learns) == len(one.names) == 1 and len(learned) == 1 and learned[0].numel() == 1
