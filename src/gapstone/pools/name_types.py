"""The pools' names as types, for who is checked by mypy; `tests/contract/test_layer.py` holds them to the tables."""

from collections.abc import Sequence
from typing import Literal, NewType

OwnPool = NewType("OwnPool", str)
"""The name of a pool of your own, as `gs.register_pool` returns it."""

BuiltIn = Literal[
    "mean", "sum", "max", "min", "gem", "l2", "lp", "logsumexp", "softmax", "topk", "variance", "std", "attention"
]
Merging = BuiltIn | OwnPool
NeedsAll = Literal["median", "quantile"]
Composed = Literal["avgmax", "catavgmax"]
One = Merging | NeedsAll
Name = One | Composed | tuple[One, ...] | list[One]
"""A pool, a composition, or pools side by side."""

AnyName = str | Sequence[str]
"""As it is given by who is not checked."""
