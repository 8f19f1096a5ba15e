"""Pools that cannot merge: they need all positions of a region at once, and refuse tiles. One file, one line each."""

from gapstone.pools.whole_only import median, quantile
from gapstone.pools.whole_only.rank_definition import WholeOnly, define

WHOLE_ONLY: dict[str, WholeOnly] = {pool.name: pool for pool in map(define, (median, quantile))}

__all__ = ["WHOLE_ONLY", "WholeOnly"]
