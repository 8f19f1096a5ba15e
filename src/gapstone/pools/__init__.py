"""WHAT is kept: one pool per file, five short functions each. To add one: one file here, one line below."""

from gapstone.pools import attention, gem, l2, logsumexp, lp, max, mean, min, softmax, std, sum, topk, variance
from gapstone.pools.compositions import COMPOSITIONS, Composition
from gapstone.pools.definition import Definition, Parameter, define
from gapstone.pools.whole_only import WHOLE_ONLY, WholeOnly

FILES = mean, sum, max, min, gem, l2, lp, logsumexp, softmax, topk, variance, std, attention
POOLS: dict[str, Definition] = {pool.name: pool for pool in map(define, FILES)}
"""By name; `gs.register_pool` adds to them."""
BUILT_IN = frozenset(POOLS)

__all__ = [
    "BUILT_IN", "COMPOSITIONS", "POOLS", "WHOLE_ONLY", "Composition", "Definition", "Parameter", "WholeOnly", "define",
]  # fmt: skip
