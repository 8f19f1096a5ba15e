"""Swaps the head of a network that returns an object with logits (Hugging Face), and keeps its whole forward pass.

`pixel_values=`, `labels=`, the loss and the output class are handled after the map, so that code still runs. A hook
stores the map, and the module that computed the logits is replaced by one that applies the head to the stored map.
"""

from collections.abc import Sequence
from threading import get_ident
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.cutting.adapters import TokenGrid
from gapstone.cutting.exchange import Surgery
from gapstone.cutting.last_map import LocatedMap
from gapstone.cutting.probe import Probe, passes_logits_on
from gapstone.cutting.trunk import check_not_checkpointed
from gapstone.cutting.wrap import find_hook_point


@final
class MapHook:
    """A hook that stores the map of a forward pass, one per thread (the replicas of DataParallel share the hook)."""

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor | None = None) -> None:
        check_not_checkpointed()
        self.maps[_thread()] = args[0] if out is None else out


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else get_ident()


@final
class FromMap(nn.Module):
    """Replaces the classifier: returns the head's logits of the stored map, whatever its input is."""

    def __init__(self, hook: MapHook, then: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.hook, self.then, self.head = hook, then, head

    def forward(self, *_: Any, **__: Any) -> Tensor:
        x = self.hook.maps.pop(_thread(), None)
        if x is None:
            raise RuntimeError(
                "the map that the new head stands on was not made in this forward pass: the network's way through its "
                "modules is not the one it went when the head was swapped"
            )
        logits: Tensor = self.head(self.then(x))
        return logits


@final
class Proportions:
    """A pre-hook that refuses images whose proportions do not fit the grid of tokens."""

    def __init__(self, grid: TokenGrid) -> None:
        self.grid = grid

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for x in (*args, *kwargs.values()):
            if isinstance(x, Tensor) and x.dim() == len(self.grid.size) + 2:
                self.grid.checked(x)
                return


def swap_logits_module(
    surgery: Surgery, located: LocatedMap, removed: Sequence[nn.Module], head: nn.Module, images: Tensor, classes: int
) -> nn.Module | None:
    """Replace the module that returns the logits, and return the model; None if there is none, or it does not run."""
    tracer, model = located.tracer, surgery.model
    producers = [v.module for v in tracer.givers.get(located.logits, ()) if tracer.once(v.module)]
    logits_module = next((m for m in reversed(producers) if m in removed), None)
    if logits_module is None:
        return None
    hook = MapHook()
    handles: list[Any] = []
    try:
        hook_point = find_hook_point(surgery, located, removed, images)
        surgery.remove(other for other in removed if other is not logits_module)
        handles.append(hook_point.add_hook(surgery, hook))
        then = nn.Sequential(*hook_point.calls, *located.arrange)
        probe = Probe(classes)
        surgery.replace(FromMap(hook, then, probe), logits_module)
        if passes_logits_on(model, images, located.features, probe, located.output_class):
            surgery.replace(FromMap(hook, then, head), logits_module)
            for layer in then:
                if isinstance(layer, TokenGrid):
                    model.register_forward_pre_hook(Proportions(layer), with_kwargs=True)
            return model
    except ValueError:  # no module returns or takes the map
        pass
    for hook in handles:
        hook.remove()
    surgery.undo()
    return None
