"""The memory that a forward pass saves for its backward pass; each storage counts once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SavedMemory:
    """What autograd saves in a forward pass."""

    beside: int
    """Bytes of storages other than those of x and the output."""
    x: bool
    """Whether x is saved; often the previous layer saves it anyway."""
    answer: bool
    """Whether the output is saved."""


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
