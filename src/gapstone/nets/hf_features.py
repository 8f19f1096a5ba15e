"""`hf:FOLDER`: the trunk of a network of transformers, with its class token, layers and pooler where asked."""

import hashlib
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.heads.reads import MAPS, BackboneOutput, Reads
from gapstone.nets.features import Features
from gapstone.nets.hf_folder import short_name
from gapstone.nets.hf_model import create_hf
from gapstone.nets.hf_survey import Asked, TokensOnGrid, channels_of, hooked, survey_hf, tokens_of


@final
class HfFeatures(Features):
    """A network of transformers up to its last hidden state, without what the maps do not need.

    >>> features = build("hf:dinov2-small", pretrained=True)
    >>> features(torch.rand(1, 3, 224, 224)).shape, features.prefix
    (torch.Size([1, 384, 16, 16]), ('embeddings.cls_token',))

    Tokens lie on their grid, without class token and registers. A network that resamples its position embeddings takes
    any size, others take one only: `fixed`. pooler: keep its own pooler (`pooler_output`), with its weights.
    """

    def __init__(
        self, in_channels: int, *, backbone: str, config: str, folder: Path | None = None, pooler: bool = False
    ) -> None:
        super().__init__()
        self.name, self.config = short_name(backbone), config
        facts = survey_hf(config, self.name)
        net = create_hf(config, self.name, folder)
        if in_channels != channels_of(net):
            raise ValueError(f"{self.name} takes images of {channels_of(net)} channels, and these have {in_channels}")
        self.in_channels, self.channels, self.stride = in_channels, facts.channels, facts.stride
        self.smallest, self.fixed = facts.smallest, facts.fixed
        self.last_stage, self.prefix, self.blocks, self.norm = facts.last_stage, facts.prefix, facts.blocks, facts.norm
        if pooler and facts.own_width is None:
            raise ValueError(f"own: {self.name} has no pooler that gives one vector of an image; take gap")
        self.own_width = facts.own_width if pooler else None
        self._check_missing(getattr(net, "missing", ()), facts.unused, facts.unused_by_own, pooler)
        self.net = net
        stride = facts.stride if facts.fixed is None else None
        self.as_map = TokensOnGrid(self.name, len(facts.prefix), stride, facts.fixed)
        for path in facts.unused_by_own if pooler else facts.unused:
            parent, _, last = path.rpartition(".")
            setattr(net.get_submodule(parent), last, nn.Identity())
        paths = tuple(f"net.{path}." for path in facts.unused)
        self.pooler = tuple(name for name in self.state_dict() if name.startswith(paths))
        self._ask = Asked(net)

    @property
    def identity(self) -> str:
        """Of the network without its weights: equal weights in another network are another function."""
        return hashlib.sha256(self.config.encode()).hexdigest()[:16]

    def last(self, between: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        *modules, as_map = self.last_modules()
        for module in modules:
            between = tokens_of(module(between))
        maps: Tensor = as_map(between, size)
        return maps

    def check_reads(self, reads: Reads) -> None:
        if reads.class_token and self.class_token is None:
            names = ", ".join(dict.fromkeys(self.prefix))
            why = f"what stands beside its patches is {names}" if names else "each of its cells is a patch of the image"
            raise ValueError(f"{self.name} has no class token: {why}; take gap or attention, or a network with one")
        if reads.layers > max(1, len(self.blocks)):
            why = (
                f"it has {len(self.blocks)}" if self.blocks else "they are no blocks of tokens alike, as a plain ViT's"
            )
            raise ValueError(
                f"layers={reads.layers}: {self.name} has not so many layers that can stand side by side: {why}"
            )
        if reads.own and self.own_width is None:
            raise ValueError(f"{self.name} was built without its own pooler: build(…, pooler=True)")

    def forward(self, x: Tensor, reads: Reads = MAPS) -> Tensor | BackboneOutput:  # type: ignore[override]
        """The maps, or what `reads` says."""
        self.check(x)
        size = (x.shape[2], x.shape[3])
        layers: list[Tensor] = []
        if reads.layers > 1:
            with hooked(
                list(self.blocks[-reads.layers :]), self.net, lambda _m, _a, out: layers.append(tokens_of(out))
            ):
                y, own = self._ask(x)
            y = torch.cat([self._normed(layer) for layer in layers], 2)
        else:
            y, own = self._ask(x)
        maps: Tensor = self.as_map(y, size)
        if reads.maps_alone:
            return maps
        token = y[:, self.prefix.index(self.class_token or "")] if reads.class_token else None
        return BackboneOutput(maps, token, own if reads.own else None)

    def _normed(self, layer: Tensor) -> Tensor:
        """Through the final norm, as the last layer."""
        if self.norm is None:
            return layer
        out: Tensor = self.net.get_submodule(self.norm)(layer)
        return out

    def _check_missing(
        self, missing: Any, unused: tuple[str, ...], unused_by_own: tuple[str, ...], pooler: bool
    ) -> None:
        """Raises ValueError where the folder lacks weights that are needed; transformers would draw them at random."""
        not_needed = tuple(f"{path}." for path in (unused_by_own if pooler else unused))
        lacks = [name for name in missing if not name.startswith(not_needed)]
        if not lacks:
            return
        if pooler and all(name.startswith(tuple(f"{path}." for path in unused)) for name in lacks):
            raise ValueError(
                f"own: the folder of {self.name} has no weights of its pooler ({lacks[0]}, …), as that of a classifier "
                f"that does not use it: take cls or gap"
            )
        raise ValueError(
            f"{self.name}: {len(lacks)} of its weights are missing in the folder ({', '.join(lacks[:3])}, …)"
        )
