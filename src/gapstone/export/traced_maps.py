"""(logits, maps) of a network that is not gapstone's: its own forward pass, traced while it is exported.

`locate_head` finds once which call begins the head, and what each class weighs; both are written down. The
exported graph is the network, and one 1×1 convolution of its last map per pool.
"""

import copy
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.export.torch_pools import Pooled, contiguous, whole, without_operators
from gapstone.maps.open_model import ImageModel
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.tape import SplitError
from gapstone.tracing.trace import TapeRecorder
from gapstone.tracing.traced_head import Pooling


@final
class TracedMaps(nn.Module):
    """A foreign network's two outputs.

    Raises: ValueError where its maps do not add up to the logits: hidden layers or a norm after the pool need
        gradients, which other runtimes do not have; SplitError (a ValueError) where it has no last map.
    """

    def __init__(self, opened: ImageModel) -> None:
        super().__init__()
        self.features = foreign_features(opened)
        p = opened.preprocessing
        example = torch.zeros(2, p.channels, *p.size, device=opened.device)
        traced, _ = locate_head(self.features, example)
        pools: list[Pooled] = []
        weights: list[Tensor] = []
        if traced.linear and traced.additive and all(map(_written, traced.poolings or ())):
            for pooling, weight in zip(traced.poolings or (), traced.weights(None), strict=True):
                pools.append(whole(pooling.name, {key: float(v) for key, v in pooling.parameters.items()}))
                weights.append(weight * pooling.scale)
        if not pools:
            raise ValueError(
                f"export {opened.name}: its head is more than a pool of the whole map and a linear layer, so its maps "
                f"need gradients, which other runtimes do not have; --no-maps exports the logits."
            )
        self.pools = pools
        self.weights = nn.ParameterList(weights)
        self.order = traced.order
        self.start = traced.tape.start

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with TapeRecorder(self.start) as recorder:
            logits = self.features(images)
        if recorder.tape is None:
            raise SplitError("the network took another way than when its last map was found")
        x = recorder.tape.map.permute(self.order)
        parts = [pool(x)[1] for pool in self.pools]
        maps = [F.conv2d(part, weight[:, :, None, None]) for part, weight in zip(parts, self.weights, strict=True)]
        return logits, maps[0] if len(maps) == 1 else torch.stack(maps).sum(0)


def _written(pooling: Pooling) -> bool:
    """Whether a graph can have the pool: over the whole map, its parameters numbers."""
    numbers = all(not isinstance(value, Tensor) or value.numel() == 1 for value in pooling.parameters.values())
    return pooling.grid is None and pooling.name != "flat" and numbers


def foreign_features(opened: ImageModel) -> nn.Module:
    """A copy of the network that any size and any runtime can have (with its head: it gives logits)."""
    return contiguous(without_operators(copy.deepcopy(opened.model)))
