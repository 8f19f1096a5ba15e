"""Attention of several heads to the same maps is that of each."""

import pytest
import torch

from gapstone.comparing import attend_together
from gapstone.heads.attention_queries import AttentionQueries


@pytest.mark.parametrize("shape", [(7, 5, 3, 2), (9, 5, 11), (1, 5, 1, 1)])  # maps, tokens
def test_answers_and_gradients_are_each_ones_own(shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    attentions = [AttentionQueries(5, queries) for queries in (1, 3, 1)]
    for query in (query for one in attentions for query in one.queries):
        query.data.mul_(100)  # else attention is nearly the mean, and its slope nearly none
    mine = attend_together.attend_together(x, attentions)
    theirs = [one(x) for one in attentions]
    seeds = [torch.randn_like(answer) for answer in theirs]
    parameters = [query for one in attentions for query in one.queries]
    slopes = [
        torch.autograd.grad(sum((a * s).sum() for a, s in zip(answers, seeds, strict=True)), parameters)
        for answers in (mine, theirs)
    ]
    torch.testing.assert_close(list(mine), theirs)
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-4)
    assert shape[-1] == 1 or all(slope.abs().max() > 0.01 for slope in slopes[0])


def test_all_images_at_once_elsewhere():
    assert attend_together._parts(torch.empty(9, 1, 1, device="meta")) == [slice(0, 9)]
    assert len(attend_together._parts(torch.empty(9, 1, 1))) == 3
