"""What an explanation holds: all pictures of a batch (Explanation), or one class in one picture (Evidence)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gapstone.maps.placement import Placement


@dataclass(frozen=True)
class Explanation:
    """Signed contributions in logit units: N pictures, K maps of each, C classes in all."""

    maps: Tensor
    """(N, K, *cells)"""
    classes: Tensor
    """(N, K): the class that each map stands for."""
    bias: Tensor
    """(C,): what no position adds. Where maps are not additive: the head's answer to empty maps. (N, C) where each image
    has its own: a norm after the pool, which is held, takes more than the map gives."""
    logits: Tensor
    """(N, C)"""
    additive: bool
    """The maps add up by the form of the head, with what is `held`. False: gradient × activation at the last feature
    map."""
    placement: Placement
    """Of the cells, in the images as the network saw them."""
    labels: tuple[str, ...] | None = None
    held: tuple[str, ...] = ()
    """What counts as a number of the image, not as something that its cells decide: the weights of attention, the
    standard deviation of a norm after the pool."""
    end: str | None = None
    """What the model does to its logits at its end ("softmax", "log_softmax", "sigmoid", …): it was left out here, and
    the maps and `logits` are those before it."""

    @property
    def probabilities(self) -> Tensor:
        """(N, C): each class by itself where the model ends in a sigmoid; else they sum to 1."""
        return self.logits.sigmoid() if self.end and "sigmoid" in self.end else self.logits.softmax(1)

    @property
    def completeness(self) -> Tensor:
        """(N, K): |sum(map) + bias − logit|. Rounding where `additive`; what the maps leave unexplained where not."""
        bias, logits = (x.expand_as(self.logits).gather(1, self.classes) for x in (self.bias, self.logits))
        return (self.maps.flatten(2).sum(2, dtype=logits.dtype) + bias - logits).abs()

    def evidence(self, image: int, size: Sequence[int], placement: Placement | None = None) -> list["Evidence"]:
        """One image's maps, in a picture of `size` (H, W) in which its cells lie as `placement` says."""
        probabilities, errors = self.probabilities[image], self.completeness[image]
        bias = self.bias.expand_as(self.logits)[image]
        return [
            Evidence(
                index=k,
                label=self.labels[k] if self.labels else str(k),
                logit=float(self.logits[image, k]),
                probability=float(probabilities[k]),
                bias=float(bias[k]),
                map=self.maps[image, place].float().cpu().numpy(),
                placement=placement or self.placement,
                size=(size[0], size[1]),
                additive=self.additive,
                completeness=float(errors[place]),
                held=self.held,
            )
            for place, k in enumerate(self.classes[image].tolist())
        ]


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against one class in one picture."""

    index: int
    label: str
    logit: float
    probability: float
    bias: float
    map: NDArray[np.float32]
    """(h, w): each cell's part of the logit."""
    placement: Placement
    """Of the cells in the picture."""
    size: tuple[int, int]
    """(H, W) of the picture, in pixels."""
    additive: bool
    completeness: float
    held: tuple[str, ...] = ()
    """As in `Explanation`."""

    @property
    def positive(self) -> float:
        """Sum of the positive contributions: 0 means that nothing in the picture speaks for the class."""
        return float(self.map.clip(0).sum())
