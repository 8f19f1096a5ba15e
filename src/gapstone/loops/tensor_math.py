"""The maths that pools are written in, for tensors. Functions of a block take the last `spatial` axes as positions."""

from typing import Any

import torch
from torch import Tensor

from gapstone.runtime.torch_internals import exporting

NOWHERE = 2**62  # the position of no position

Number = Tensor | float


class TensorMath:
    """`m` in a pool's functions, where x is a tensor with every position at once."""

    exp = staticmethod(torch.exp)
    expm1 = staticmethod(torch.expm1)
    log = staticmethod(torch.log)
    log1p = staticmethod(torch.log1p)
    sqrt = staticmethod(torch.sqrt)
    abs = staticmethod(torch.abs)

    def __init__(self, spatial: int) -> None:
        self.positions = tuple(range(-spatial, 0))

    @staticmethod
    def pow(x: Tensor, p: Number) -> Tensor:
        return x.pow(p)

    @staticmethod
    def where(condition: Tensor, a: Number, b: Number) -> Tensor:
        return torch.where(condition, a, b)

    @staticmethod
    def maximum(x: Tensor, y: Number) -> Tensor:
        return torch.maximum(x, y) if isinstance(y, Tensor) else x.clamp(min=y)

    @staticmethod
    def ratio(x: Tensor, top: Tensor) -> Tensor:
        """x / top; 1 where they are equal, also 0 / 0 and inf / inf."""
        special = (top == 0) | top.isinf()
        return torch.where(special, (x == top).to(x.dtype), x / torch.where(special, 1.0, top))

    @staticmethod
    def below(x: Tensor, top: Tensor) -> Tensor:
        """x - top; 0 where they are equal, also inf - inf. Not -inf: of its exponential, 0, so are the derivatives."""
        return torch.where(top.isinf() & (x == top), 0.0, (x - top).clamp(min=-1e30))

    # lists: a part of the state with one more axis in front

    @staticmethod
    def list(first: Tensor, k: int, rest: float) -> Tensor:
        return torch.cat([first[None], first.new_full((k - 1, *first.shape), rest)])

    @staticmethod
    def merge_largest(v: Tensor, i: Tensor, v2: Tensor, i2: Tensor) -> tuple[Tensor, Tensor]:
        v, i = torch.cat([v, v2]), torch.cat([i, i2])
        i, order = i.sort(dim=0, stable=True)
        v, order = v.gather(0, order).sort(dim=0, descending=True, stable=True)  # NaN comes first
        k = len(v) // 2
        return v[:k], i.gather(0, order)[:k]

    @staticmethod
    def mean_of_list(v: Tensor, i: Tensor) -> Tensor:
        return torch.where(i < NOWHERE, v, 0.0).sum(0) / (i < NOWHERE).sum(0)

    @staticmethod
    def count_of_list(v: Tensor, i: Tensor) -> Tensor:
        return (i < NOWHERE).sum(0).to(v.dtype)

    @staticmethod
    def last_of_list(v: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        last = ((i < NOWHERE).sum(0, keepdim=True) - 1).clamp(min=0)
        return v.gather(0, last)[0], i.gather(0, last)[0]

    # over a whole block; the axes stay, with one position each

    def first_largest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._named(x.flatten(x.dim() - len(self.positions)).max(-1))  # torch names the first of equals

    def first_smallest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._named(x.flatten(x.dim() - len(self.positions)).min(-1))

    def largest(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        flat = x.flatten(x.dim() - len(self.positions))
        if exporting():  # ONNX has no stable sort; of equals, a forward pass asks for none in particular
            v, i = flat.topk(min(k, flat.shape[-1]), dim=-1)
        else:
            v, i = flat.sort(dim=-1, descending=True, stable=True)
        v, i = v[..., :k], i[..., :k]
        if (short := k - flat.shape[-1]) > 0:
            v = torch.cat([v, v.new_full((*v.shape[:-1], short), -torch.inf)], -1)
            i = torch.cat([i, i.new_full((*i.shape[:-1], short), NOWHERE)], -1)
        ones = (1,) * len(self.positions)
        return tuple(part.movedim(flat.dim() - 1, 0).reshape(k, *flat.shape[:-1], *ones) for part in (v, i))  # type: ignore[return-value]

    def _named(self, found: Any) -> tuple[Tensor, Tensor]:
        ones = (1,) * len(self.positions)
        return found.values.reshape(*found.values.shape, *ones), found.indices.reshape(*found.indices.shape, *ones)
