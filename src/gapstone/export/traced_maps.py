"""(logits, maps) of a foreign network: its own forward pass, traced during the export.

`locate_head` determines once which call starts the head, and the weights of each class; both become constants. The
exported graph is the network with a 1×1 convolution of its last map per pool.
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
    """Logits and maps of a foreign network.

    Raises:
        ValueError: If its maps do not add up to the logits: hidden layers or a norm after the pool need gradients,
            which other runtimes do not have.
        SplitError: If it has no last map. A ValueError.
    """

    def __init__(self, image_model: ImageModel) -> None:
        super().__init__()
        self.features = foreign_features(image_model)
        preprocessing = image_model.preprocessing
        example = torch.zeros(2, preprocessing.channels, *preprocessing.size, device=image_model.device)
        traced, _ = locate_head(self.features, example)
        pools: list[Pooled] = []
        weights: list[Tensor] = []
        if traced.linear and traced.additive and all(map(_is_exportable, traced.poolings or ())):
            for pooling, weight in zip(traced.poolings or (), traced.weights(None), strict=True):
                pools.append(whole(pooling.name, {key: float(v) for key, v in pooling.parameters.items()}))
                weights.append(weight * pooling.scale)
        if not pools:
            raise ValueError(
                f"export {image_model.name}: its head is more than a pool of the whole map and a linear layer, so its "
                f"maps need gradients, which other runtimes do not have; --no-maps exports the logits."
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


def _is_exportable(pooling: Pooling) -> bool:
    """Tell whether a pool can be exported: it pools the whole map, and its parameters are numbers."""
    numbers = all(not isinstance(value, Tensor) or value.numel() == 1 for value in pooling.parameters.values())
    return pooling.grid is None and pooling.name != "flat" and numbers


def foreign_features(image_model: ImageModel) -> nn.Module:
    """Return a copy of the whole network that can be exported for any size and runtime."""
    return contiguous(without_operators(copy.deepcopy(image_model.model)))
