"""The front door to the pools: `pool`, `partial`, `share`, and `Pool`, the layer. May import loops, pools, regions."""

from gapstone.pooling.partial_state import Partial, Partials, partial
from gapstone.pooling.pool_function import listening, pool, share
from gapstone.pooling.pool_layer import Pool, pools_in

__all__ = ["Partial", "Partials", "Pool", "listening", "partial", "pool", "pools_in", "share"]
