"""Open a model by the name a person gives: a file that gapstone wrote, or `timm:NAME`. Then ask it about pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gapstone.classifier import load
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain
from gapstone.maps.explanation import Evidence, Explanation
from gapstone.nets import NAMES
from gapstone.nets.zoo import with_head


@dataclass(frozen=True)
class Opened:
    """A network that can be asked about pictures.

    >>> opened = open_model("photos.safetensors")
    >>> for evidence in opened.look([pixels], top_k=3)[0]:
    ...     print(evidence.label, evidence.probability, evidence.map.shape)
    """

    name: str
    """As given."""
    model: nn.Module
    """In eval mode."""
    labels: tuple[str, ...]
    preprocessing: Preprocessing

    def look(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        classes: Sequence[int] | None = None,
        top_k: int | None = None,
    ) -> list[list[Evidence]]:
        """Per picture what speaks for and against each class asked for (all of them by default), most probable first
        unless `classes` says an order; each map placed in the picture as it was given.

        pictures: (H, W, C) uint8, upright (`gapstone.images.load`), of any sizes. All go through the network in one
        batch: give as many as fit into memory.
        """
        explained = self.explain(pictures, classes, top_k)
        found = [self.evidence(explained, number, pixels.shape[:2]) for number, pixels in enumerate(pictures)]
        if classes is None:
            for evidence in found:
                evidence.sort(key=lambda e: (-e.logit, e.index))
        return found

    def explain(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        classes: Sequence[int] | None = None,
        top_k: int | None = None,
    ) -> Explanation:
        """The maps as the network saw the pictures."""
        seen = torch.from_numpy(np.stack([self.preprocessing.fit(pixels) for pixels in pictures]))
        images = self.preprocessing.normalise(self.preprocessing.centre(seen).to(self.device))
        return explain(self.model, images, classes, top_k=top_k, labels=self.labels)

    def evidence(self, explained: Explanation, number: int, size: Sequence[int]) -> list[Evidence]:
        """The classes explained of one image, placed in the picture of `size` (H, W) that it was made of."""
        scale, origin = self.preprocessing.seen(size[0], size[1])
        return explained.evidence(number, size, explained.placement.within(origin, (scale, scale)))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def open_model(name: str, weights: Path | None = None, device: str = "cpu") -> Opened:
    """`name`: a file that `gapstone train` wrote, or `timm:NAME` with weights from timm's hub or from `weights`.

        >>> open_model("photos.safetensors").labels
        ('cat', 'dog')
        >>> open_model("timm:resnet50")                              # downloads its weights once
        >>> open_model("timm:resnet50", Path("resnet50.safetensors"))

    Raises: ModelFileError (a ValueError) for a file that is no model; FileNotFoundError; ImportError without timm;
        OSError where the weights cannot be had.
    """
    if name.startswith("timm:"):
        return _of_timm(name, weights, device)
    if weights is not None:
        raise ValueError(f"--weights goes with timm:NAME; {name} brings its own")
    if not Path(name).exists() and name in NAMES:
        raise ValueError(
            f"{name} is a network without weights; give a file that `gapstone train` wrote, or timm:{name}"
        )
    classifier = load(name)
    return Opened(name, classifier.to(device), classifier.labels, classifier.preprocessing)


def _of_timm(name: str, weights: Path | None, device: str) -> Opened:
    zoo = with_head(name.removeprefix("timm:"), weights)
    stored = tuple(math.floor(side / zoo.crop) for side in zoo.size)
    preprocessing = Preprocessing(3, zoo.size, (stored[0], stored[1]), zoo.mean, zoo.std)
    return Opened(name, zoo.model.to(device), zoo.labels, preprocessing)
