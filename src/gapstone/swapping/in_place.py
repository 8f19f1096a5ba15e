"""The head in the network itself: where a module takes the map, and the logits pass unchanged through what remains."""

from collections.abc import Sequence

from torch import Tensor, nn

from gapstone.swapping.adapters import Passed, TokenGrid
from gapstone.swapping.exchange import Surgery
from gapstone.swapping.last_map import LocatedMap
from gapstone.swapping.probe import Probe, runs

SHAPES = ((), (-1, -1), (1, 1))
"""Axes that are given to logits (N, K): none, (N, K, 1, 1), (N, 1, 1, K)."""


def swap_in_place(
    surgery: Surgery, found: LocatedMap, gone: Sequence[nn.Module], head: nn.Module, images: Tensor, classes: int
) -> nn.Module | None:
    """The model, its head in place of the module that takes the map; None where its answer is changed after it.

    Also for tokens: only what stands around the network sees the images' proportions, and so the grid.
    """
    if any(isinstance(layer, TokenGrid) for layer in found.arrange):
        return None
    for module in consumers(found, gone):
        for axes in SHAPES:
            surgery.without(one for one in gone if one is not module)
            probe = Probe(classes)
            surgery.put(_placed(found, probe, axes), module)
            if runs(surgery.model, images, found.features, probe, found.gives):
                surgery.undo()
                surgery.without(one for one in gone if one is not module)
                surgery.put(_placed(found, head, axes), module)
                return surgery.model
            surgery.undo()
    return None


def consumers(found: LocatedMap, gone: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules that will be dropped, and take the map as it is, once; the outermost first."""
    visits = found.tracer.takers.get(found.map, ())
    right = [v.module for v in visits if found.made.count <= v.count <= found.until and found.tracer.once(v.module)]
    return [module for module in right if any(module is one for one in gone)]


def _placed(found: LocatedMap, head: nn.Module, axes: tuple[int, ...]) -> nn.Module:
    layers = [*found.arrange, head, *([Passed(axes)] if axes else [])]
    return nn.Sequential(*layers) if len(layers) > 1 else head
