"""What a head reads of a backbone: the last map, unless it says more."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Reads:
    """What a head is made for.

    >>> gs.Head("cls+gap:layers=4", channels=384, classes=10).reads
    Reads(maps=True, class_token=True, own=False, layers=4)
    """

    maps: bool = True
    """The map (N, layers · C, h, w)."""
    class_token: bool = False
    """(N, layers · C)."""
    own: bool = False
    """The vector (N, D) of the backbone's own pooler."""
    layers: int = 1
    """How many of the backbone's last layers are side by side in maps and class token, the last one last."""

    @property
    def maps_alone(self) -> bool:
        return not (self.class_token or self.own)

    def __or__(self, other: "Reads") -> "Reads":
        """What both read."""
        return Reads(
            self.maps or other.maps,
            self.class_token or other.class_token,
            self.own or other.own,
            max(self.layers, other.layers),
        )

    @property
    def beyond(self) -> str:
        """What it reads beyond the last map, in words; "" where nothing."""
        return self.what or (f"{self.layers} layers" if self.layers > 1 else "")

    @property
    def what(self) -> str:
        """What it reads besides maps, in words; "" where nothing."""
        return "the class token" if self.class_token else "the backbone's own pooler" if self.own else ""


MAPS = Reads()
"""The last map alone, as most heads read."""


def read_backbone(features: nn.Module, images: Tensor, reads: Reads) -> "Tensor | BackboneOutput":
    """As `nets.Features.read`, of features that may be wrapped (torch.compile, LoRA), or any module that makes maps."""
    output: Tensor | BackboneOutput = features(images) if reads == MAPS else features(images, reads)
    return output


@dataclass(frozen=True)
class BackboneOutput:
    """What a backbone hands to a head that reads more than maps.

    >>> output = model.features.read(images, model.head.reads)  # a Classifier with head cls+gap
    >>> output.maps.shape, output.class_token.shape
    (torch.Size([2, 64, 10, 10]), torch.Size([2, 64]))
    """

    maps: Tensor
    class_token: Tensor | None = None
    own: Tensor | None = None

    @staticmethod
    def cat(pieces: "Sequence[Tensor | BackboneOutput]") -> "BackboneOutput":
        """Of all images of several batches; maps alone may be tensors."""
        outputs = [BackboneOutput(piece) if isinstance(piece, Tensor) else piece for piece in pieces]
        maps, token, own = (
            torch.cat([x for x in parts if x is not None]) if parts[0] is not None else None
            for parts in zip(*(output.values for output in outputs), strict=True)
        )
        assert maps is not None
        return BackboneOutput(maps, token, own)

    @property
    def values(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.maps, self.class_token, self.own

    @property
    def tokens(self) -> Tensor:
        """(N, layers · C, 1 + cells): the class token before the cells."""
        assert self.class_token is not None
        return torch.cat([self.class_token[:, :, None], self.maps.flatten(2)], 2)

    def part(self, reads: Reads, channels: int) -> "Tensor | BackboneOutput":
        """What one head reads of it; `channels` are those of a layer."""
        depth = reads.layers * channels
        maps = self.maps[:, -depth:]
        if reads.maps_alone:
            return maps
        return BackboneOutput(maps, None if self.class_token is None else self.class_token[:, -depth:], self.own)

    def float(self) -> "BackboneOutput":
        token, own = (None if x is None else x.float() for x in (self.class_token, self.own))
        return BackboneOutput(self.maps.float(), token, own)
