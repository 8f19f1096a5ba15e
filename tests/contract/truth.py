"""What the contract checks against: formulas in float64, written from the papers, not from the code they check."""

import math

import torch

from gapstone.testing.pool_checks import pooled_by_formula
from gapstone.testing.region_cases import boxes, grid, regions, windows

__all__ = ["FORMULAS", "NEEDED", "ONE_OF_EACH", "boxes", "given", "grid", "pooled", "regions", "windows"]

# every formula pools the last axis


def norm(x, p):
    top = x.abs().amax(-1, keepdim=True)
    return top[..., 0] * ((x.abs() / torch.where(top > 0, top, 1.0)) ** p).sum(-1) ** (1 / p)


def gem(x, p=3.0):
    x = x.clamp(min=1e-6)
    top = x.amax(-1, keepdim=True)
    return top[..., 0] * ((x / top) ** p).mean(-1) ** (1 / p)


def attention(x, score):
    weight = torch.softmax(score, -1)
    return (x * weight).sum(-1)


FORMULAS = {
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
    "max": lambda x: x.max(-1).values,
    "min": lambda x: x.min(-1).values,
    "gem": gem,
    "l2": lambda x: norm(x, 2.0),
    "lp": lambda x, p=2.0: norm(x, p),
    "logsumexp": lambda x, r=5.0: (torch.logsumexp(r * x, -1) - math.log(x.shape[-1])) / r,
    "softmax": lambda x, r=1.0: (x * torch.softmax(r * x, -1)).sum(-1),
    "topk": lambda x, k: x.sort(dim=-1, descending=True, stable=True).values[..., :k].mean(-1),
    "variance": lambda x, correction=0.0: ((x - x.mean(-1, keepdim=True)) ** 2).sum(-1) / (x.shape[-1] - correction),
    "std": lambda x, correction=0.0: FORMULAS["variance"](x, correction).sqrt(),
    "attention": attention,
    "median": lambda x: torch.quantile(x, 0.5, -1),
    "quantile": lambda x, q: torch.quantile(x, q, -1),
}
ONE_OF_EACH = ("mean", "max", "gem", "topk", "attention", "median", "catavgmax", ("std", "max"))
"""A pool of each kind: a sum, a position, a parameter, a list, scores, one of the whole map alone, compositions."""
NEEDED = {"topk": {"k": 3}, "quantile": {"q": 0.3}}
"""What a call must give."""


def given(name, channels, dtype=torch.float64):
    """The parameters a call of this pool needs."""
    if name == "attention":
        return {"query": torch.linspace(-2, 2, channels, dtype=dtype)}
    return NEEDED.get(name, {})


def pooled(name, x, answers, **parameters):
    """The formula on each answer's positions: (N, C, answers) in float64; empty lists give NaN."""
    if name != "attention":
        return pooled_by_formula(FORMULAS[name], x, answers, parameters)
    query = parameters.pop("query").double()
    score = torch.einsum("ncp,c->np", x.double().flatten(2), query)[:, None] / math.sqrt(x.shape[1])
    return pooled_by_formula(FORMULAS[name], x, answers, parameters, score)
