"""`timm:NAME`: the trunk of any timm model that makes feature maps, with its class token and pooler where asked."""

from typing import cast, final

import torch
from torch import Tensor, nn

from gapstone.heads.reads import MAPS, BackboneOutput, Reads
from gapstone.nets.features import Features
from gapstone.nets.timm_survey import AsMap, layer_count, survey, survey_pooler
from gapstone.nets.zoo import create_timm


@final
class TimmFeatures(Features):
    """A timm model up to its last map, without its head and the head's parameters.

    >>> build("timm:convnext_atto")(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 320, 2, 2])

    Maps that end in channels (Swin) come out as (N, C, h, w) in channels-last memory, tokens (ViT) on their grid
    without class token and registers: `prefix` names them, `read` gives the class token. A ViT whose position
    embeddings timm resamples takes any size; Swin and others take one only: `fixed`. For these, `stride` is that size
    over the map's.

    pooler: keep the model's own pooler, with its weights: what timm computes between the last layer and the classifier.
    """

    def __init__(self, in_channels: int = 3, *, name: str, pretrained: bool = False, pooler: bool = False) -> None:
        super().__init__()
        facts = survey(name, in_channels)
        self.name, self.in_channels = name, in_channels
        self.channels, self.stride = facts.channels, facts.stride
        self.smallest, self.fixed = facts.smallest, facts.fixed
        self.last_stage, self.prefix = facts.last_stage, facts.prefix
        own = survey_pooler(name, in_channels) if pooler else None
        self.own_width = own.width if own else None
        self.net = create_timm(name, in_channels, pretrained)
        self.as_map = AsMap(name, self.net, facts.fixed, len(facts.prefix))
        _drop(self.net, own.unused if own else facts.unused)
        paths = tuple(f"net.{path}." for path in facts.unused)
        self.pooler = tuple(name for name in self.state_dict() if name.startswith(paths))

    def last(self, between: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        *modules, as_map = self.last_modules()
        for module in modules:
            between = module(between)
        maps: Tensor = as_map(between, size)
        return maps

    def check_reads(self, reads: Reads) -> None:
        who = f"timm:{self.name}"
        if reads.class_token and self.class_token is None:
            names = ", ".join(dict.fromkeys(self.prefix))
            why = f"what stands beside its patches is {names}" if names else "each of its cells is a patch of the image"
            raise ValueError(
                f"{who} has no class token: {why}; take gap or attention, or a network with one, such as "
                f"timm:vit_small_patch14_dinov2"
            )
        most = layer_count(self.name, self.in_channels) if reads.layers > 1 else 1
        if reads.layers > most:
            why = f"it has {most}" if most > 1 else "they are no blocks of tokens alike, as those of a plain ViT are"
            raise ValueError(f"layers={reads.layers}: {who} has not so many layers that can stand side by side: {why}")
        if reads.own and self.own_width is None:
            raise ValueError(f"{who} was built without its own pooler: build(…, pooler=True)")

    def forward(self, x: Tensor, reads: Reads = MAPS) -> Tensor | BackboneOutput:  # type: ignore[override]
        """The maps, or what `reads` says."""
        self.check(x)
        size = (x.shape[2], x.shape[3])
        if reads.layers > 1:
            y, patches, before = self._last_layers(x, reads.layers)
            maps = self.as_map.on_grid(patches, size)
        else:
            before = y = self.net.forward_features(x)
            maps = cast(Tensor, self.as_map(y, size))
        if reads.maps_alone:
            return maps
        token = before[:, self.prefix.index(self.class_token or "")] if reads.class_token else None
        own = self.net.forward_head(y, pre_logits=True) if reads.own else None
        return BackboneOutput(maps, token, own)

    def _last_layers(self, x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `forward_features` gives; and of the last layers, after the final norm as in DINOv2's linear evaluation
        (arXiv 2304.07193), the patches (N, cells, count · C) and the other tokens (N, P, count · C).
        """
        y, found = self.net.forward_intermediates(
            x, indices=count, return_prefix_tokens=True, norm=True, output_fmt="NLC"
        )
        layers = [layer if isinstance(layer, tuple) else (layer, layer[:, :0]) for layer in found]
        return y, torch.cat([patches for patches, _ in layers], 2), torch.cat([before for _, before in layers], 2)


def _drop(net: nn.Module, paths: tuple[str, ...]) -> None:
    for path in paths:
        parent, _, last = path.rpartition(".")
        setattr(net.get_submodule(parent), last, nn.Identity())
