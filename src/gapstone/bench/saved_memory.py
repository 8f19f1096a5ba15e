"""The memory that a forward keeps for its backward: each storage that autograd saves, once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SavedMemory:
    beside: int
    """Bytes of their own, beside x and the answer."""
    x: bool
    """x is kept alive; often it is anyway, by the layer before."""
    answer: bool


def saved_memory_of(answer: Callable[[Tensor], Tensor], x: Tensor) -> SavedMemory:
    saved: dict[int, int] = {}

    def pack(part: Tensor) -> Tensor:
        saved[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return part

    x = x.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
        y = answer(x)
    has_x = saved.pop(x.untyped_storage().data_ptr(), None) is not None
    has_y = saved.pop(y.untyped_storage().data_ptr(), None) is not None
    return SavedMemory(sum(saved.values()), has_x, has_y)
