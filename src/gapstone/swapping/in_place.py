"""Puts the head into the network, if a module takes the map and the rest passes the logits on unchanged."""

from collections.abc import Sequence

from torch import Tensor, nn

from gapstone.cutting.adapters import Passed, TokenGrid
from gapstone.cutting.exchange import Surgery
from gapstone.cutting.last_map import LocatedMap
from gapstone.cutting.probe import Probe, passes_logits_on

SHAPES = ((), (-1, -1), (1, 1))
"""Axes that are added to logits (N, K): none, (N, K, 1, 1), (N, 1, 1, K)."""


def swap_in_place(
    surgery: Surgery, located: LocatedMap, removed: Sequence[nn.Module], head: nn.Module, images: Tensor, classes: int
) -> nn.Module | None:
    """Replace the module that takes the map by the head, and return the model.

    Returns None if the rest of the network changes the logits, or if the map is made of tokens: only a module around
    the network sees the proportions of the images, and so the grid.
    """
    if any(isinstance(layer, TokenGrid) for layer in located.arrange):
        return None
    for module in located.consumers_among(removed):
        for axes in SHAPES:
            surgery.remove(other for other in removed if other is not module)
            probe = Probe(classes)
            surgery.replace(_with_adapters(located, probe, axes), module)
            if passes_logits_on(surgery.model, images, located.features, probe, located.output_class):
                surgery.replace(_with_adapters(located, head, axes), module)
                return surgery.model
            surgery.undo()
    return None


def _with_adapters(located: LocatedMap, head: nn.Module, axes: tuple[int, ...]) -> nn.Module:
    layers = [*located.arrange, head, *([Passed(axes)] if axes else [])]
    return nn.Sequential(*layers) if len(layers) > 1 else head
