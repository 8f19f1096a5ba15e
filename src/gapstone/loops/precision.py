"""The types that maps are pooled in and that answers have."""

import torch
from torch import Tensor

from gapstone.pools import Definition, WholeOnly

UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64}


def answer_type(pool: Definition, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the answer on a map of `dtype`."""
    return torch.int64 if pool.integers == "int64" and not dtype.is_floating_point else dtype


def wide(pool: Definition | WholeOnly, x: Tensor) -> Tensor:
    """x in the type that the state is kept in."""
    if x.dtype in UNSIGNED:  # torch copies them, and has no operator of them
        x = x.to(UNSIGNED[x.dtype])
    if not x.is_floating_point():
        return x if isinstance(pool, Definition) and pool.integers == "same" else x.long()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
