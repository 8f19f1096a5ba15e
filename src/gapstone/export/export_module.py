"""The exported modules: (logits, maps) from images, with torch's own operators only."""

import copy
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.export.torch_pools import (
    GridMean,
    Pooled,
    contiguous,
    grid_matrix,
    numbers,
    pair,
    whole,
    without_operators,
)
from gapstone.heads import Head
from gapstone.heads.attention_queries import AttentionQueries
from gapstone.heads.feature_norm import FeatureNorm, norm_of
from gapstone.heads.reads import read_backbone
from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier
from gapstone.nets.timm_features import TimmFeatures
from gapstone.pooling import Pool
from gapstone.regions import Grid
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.tape import SplitError
from gapstone.tracing.trace import TapeRecorder
from gapstone.tracing.traced_head import Pooling


def logits_and_maps(image_model: ImageModel) -> nn.Module:
    """Return a module from normalised images (N, C, H, W) to logits (N, K) and maps (N, K, h, w).

    The maps are those of `gapstone.maps.explain`: with an additive head they and the bias add up to the logits;
    otherwise they are gradient × activation. The weights are copies.

        >>> logits, maps = logits_and_maps(open_model("photos.safetensors"))(images)

    Raises:
        ValueError: If the model or one of its pools cannot be written with torch's operators.
    """
    model = image_model.model
    both = LogitsAndMaps(model) if isinstance(model, Classifier) else TracedMaps(image_model)
    return both.eval().requires_grad_(False)


def logits_alone(image_model: ImageModel) -> nn.Module:
    """Return a module from normalised images to logits only."""
    model = image_model.model
    if isinstance(model, Classifier) and _has_parts(model.head):
        return LogitsAlone(logits_and_maps(image_model))
    return foreign_features(image_model).eval().requires_grad_(False)


@final
class LogitsAndMaps(nn.Module):
    """Logits and maps of a gapstone classifier."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        if not _has_parts(model.head):
            raise ValueError(
                f"export: the maps of head {model.head.spec!r} are not written for other runtimes (it reads more than "
                f"maps, or attends before hidden layers); --no-maps exports the logits."
            )
        self.reads = model.head.reads
        self.features = without_operators(copy.deepcopy(model.features))
        if isinstance(self.features, TimmFeatures):
            contiguous(self.features)
        self.head = _head(copy.deepcopy(model.head))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, maps = self.head(read_backbone(self.features, images, self.reads))
        return logits, maps


@final
class LogitsAlone(nn.Module):
    """The logits of a module with two outputs; what only the maps need is left out of the file."""

    def __init__(self, both: nn.Module) -> None:
        super().__init__()
        self.both = both

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.both(images)[0]
        return logits


@final
class TracedMaps(nn.Module):
    """Logits and maps of a foreign network: its own forward pass, traced during the export.

    `locate_head` determines once which call starts the head, and the weights of each class; both become constants. The
    exported graph is the network with a 1×1 convolution of its last map per pool.

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
        if traced.linear and traced.additive and all(map(_is_exportable, traced.poolings)):
            for pooling, weight in zip(traced.poolings, traced.weights(None), strict=True):
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


def _has_parts(head: Head) -> bool:
    """Whether the head's maps can be written with torch's operators."""
    hidden = head.recipe.pools == ("attention",) and not head.additive
    return head.reads.maps_alone and not hidden


def _head(head: Head) -> nn.Module:
    if head.maps is not None:
        return ClassMaps(head.maps)
    assert head.classifier is not None
    layers = Layers(head.classifier)
    if not head.recipe.pools:
        return Flattened(layers, _grid(head))
    if isinstance(attention := next(iter(head.pools)), AttentionQueries):
        return AttentionParts(layers, attention)
    pools = [layer for layer in head.pools if isinstance(layer, Pool)]
    return PooledParts(layers, pools, head.recipe.join)


def _grid(head: Head) -> tuple[int, int] | None:
    if head.size is not None:
        return None
    layer = head.pools[0]
    assert isinstance(layer, Pool)
    assert isinstance(layer.over, Grid)
    return pair(layer.over.size)


@torch.no_grad()
def _behind(norm: FeatureNorm, layer: nn.Linear) -> nn.Linear:
    """The layer for what its norm reads."""
    folded = copy.deepcopy(layer)
    weight, bias = norm.into(layer.weight, layer.bias)
    folded.weight.copy_(weight)
    folded.bias.copy_(bias)
    return folded


@final
class Layers(nn.Module):
    """Linear, ReLU, linear, …: vectors (N, D) → logits (N, K) and d logit / d vector.

    The derivative is (K, D) for a single layer, and (N, K, D) with ReLUs, which depend on the image.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if (norm := norm_of(layers)) is not None:
            linear[0] = _behind(norm, linear[0])
        self.linear = nn.ModuleList(linear)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *hidden, last = self.linear
        masks: list[Tensor] = []
        for layer in hidden:
            x = F.relu(layer(x))
            masks.append((x > 0).to(x.dtype))
        logits: Tensor = last(x)
        slope = last.weight
        assert isinstance(slope, Tensor)
        for layer, mask in zip(reversed(hidden), reversed(masks), strict=True):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            slope = torch.matmul(slope * mask[:, None], weight)
        return logits, slope


@final
class PooledParts(nn.Module):
    """Pools over the whole map, then layers; maps are d logit / d vector × each position's part of the vector."""

    def __init__(self, layers: Layers, pools: list[Pool], join: str) -> None:
        super().__init__()
        self.layers, self.join = layers, join
        self.pools: list[Pooled] = [whole(str(p.name), numbers(p)) for p in pools]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        answers, parts = zip(*(pool(x) for pool in self.pools), strict=True)
        logits, slope = self.layers(self._joined(answers))
        part = self._joined(parts)
        if slope.dim() == 2:
            # a 1×1 convolution: with an einsum, torch.export would record that this size is never 1
            return logits, F.conv2d(part, slope[:, :, None, None])
        maps = torch.bmm(slope, part.flatten(2))
        return logits, maps.reshape(x.shape[0], slope.shape[1], x.shape[2], x.shape[3])

    def _joined(self, tensors: tuple[Tensor, ...]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        return torch.cat(tensors, 1) if self.join == "cat" else torch.stack(tensors).mean(0)


@final
class AttentionParts(nn.Module):
    """Attention over the whole map, then a linear layer; the weights of the positions are held."""

    def __init__(self, layers: Layers, attention: AttentionQueries) -> None:
        super().__init__()
        self.layers, self.attention = layers, attention

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, slope = self.layers(self.attention(x))
        return logits, self.attention.parts(x, slope)


@final
class Flattened(nn.Module):
    """A head with weights per position of the map, or with a grid per cell of the grid."""

    def __init__(self, layers: Layers, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.layers, self.grid = layers, grid

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channels, h, w = x.shape[1:]
        if self.grid is None:
            logits, slope = self.layers(x.flatten(1))
            weights = slope.reshape(*slope.shape[:-1], channels, h * w)
        else:
            logits, slope = self.layers(GridMean(self.grid)(x).flatten(1))
            cells = slope.reshape(*slope.shape[:-1], channels, self.grid[0] * self.grid[1])
            weights = cells @ grid_matrix(self.grid, x)
        flat = x.flatten(2)
        if weights.dim() == 4:  # weights per image
            maps = (weights * flat[:, None]).sum(2)
        else:
            # a product (N, C) × (C, K) per position: no tensor of the size N·K·C·h·w
            maps = torch.bmm(flat.permute(2, 0, 1), weights.permute(2, 1, 0)).permute(1, 2, 0)
        return logits, maps.reshape(x.shape[0], maps.shape[1], h, w)


@final
class ClassMaps(nn.Module):
    """A head with one map per class; the logits are their means."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Dropout)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.layers(x)
        return maps.mean((2, 3)), maps / (x.shape[2] * x.shape[3])
