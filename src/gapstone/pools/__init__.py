"""WHAT is kept: one pool per file, five short functions each. To add one: one file here, one line below."""

from gapstone.pools import gem, logsumexp, max, mean, sum
from gapstone.pools.definition import Definition, define

POOLS: dict[str, Definition] = {pool.name: pool for pool in map(define, (mean, sum, max, gem, logsumexp))}

__all__ = ["POOLS", "Definition"]
