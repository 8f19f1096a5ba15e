"""A network that answers with more than logits (Hugging Face's outputs) keeps its whole forward pass.

Its `pixel_values=`, `labels=`, its loss and its output class are in what it does after its map. So all of that runs as
it is written; a hook keeps the map, and where the module stood that gave the logits, the head gives others, of the map.
"""

from collections.abc import Sequence
from threading import get_ident
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.swapping.adapters import TokenGrid
from gapstone.swapping.exchange import Surgery
from gapstone.swapping.last_map import LocatedMap
from gapstone.swapping.probe import Probe, runs
from gapstone.swapping.trunk import check_not_checkpointed
from gapstone.swapping.wrap import stands


@final
class MapHook:
    """A hook that keeps the map of this forward pass, for each thread its own (DataParallel's replicas share it)."""

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor | None = None) -> None:
        check_not_checkpointed()
        self.maps[_thread()] = args[0] if out is None else out


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else get_ident()


@final
class FromMap(nn.Module):
    """Logits from the map, whatever the network hands over: in the place of its classifier."""

    def __init__(self, kept: MapHook, then: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.kept, self.then, self.head = kept, then, head

    def forward(self, *_: Any, **__: Any) -> Tensor:
        x = self.kept.maps.pop(_thread(), None)
        if x is None:
            raise RuntimeError(
                "the map that the new head stands on was not made in this forward pass: the network's way through its "
                "modules is not the one it went when the head was swapped"
            )
        logits: Tensor = self.head(self.then(x))
        return logits


@final
class Proportions:
    """Before a forward pass: tokens are a grid of the proportions that they were found in, or refused."""

    def __init__(self, grid: TokenGrid) -> None:
        self.grid = grid

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for x in (*args, *kwargs.values()):
            if isinstance(x, Tensor) and x.dim() == len(self.grid.size) + 2:
                self.grid.checked(x)
                return


def answered(surgery: Surgery, found: LocatedMap, gone: Sequence[nn.Module], head: nn.Module, images: Tensor,
             classes: int) -> nn.Module | None:  # fmt: skip
    """The model itself; None where no module gives its logits, or what is left of it does not run."""
    tracer, model = found.tracer, surgery.model
    givers = [v.module for v in tracer.givers.get(found.logits, ()) if tracer.once(v.module)]
    place = next((one for one in reversed(givers) if any(one is other for other in gone)), None)
    if place is None:
        return None
    kept = MapHook()
    handles: list[Any] = []
    try:
        where = stands(surgery, found, gone, images)
        surgery.without(one for one in gone if one is not place)
        handles.append(where.attached(surgery, kept))
        then = nn.Sequential(*where.calls, *found.arrange)
        probe = Probe(classes)
        surgery.put(FromMap(kept, then, probe), place)
        if runs(model, images, found.features, probe, found.gives):
            surgery.put_instead(FromMap(kept, then, head), place)
            for layer in then:
                if isinstance(layer, TokenGrid):
                    model.register_forward_pre_hook(Proportions(layer), with_kwargs=True)
            return model
    except ValueError:  # the map is made outside of all modules
        pass
    for hook in handles:
        hook.remove()
    surgery.undo()
    return None
