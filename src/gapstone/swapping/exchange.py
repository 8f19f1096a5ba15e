"""Which modules the map does not need, and their exchange for others, which can be undone."""

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from gapstone.swapping.last_map import LocatedMap
from gapstone.swapping.probe import training
from gapstone.swapping.trunk import Trunk
from gapstone.tracing.provenance import ProvenanceTracer

HOLDERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""They are not called, but gone through: what they hold is exchanged, not they."""


def dropped(model: nn.Module, found: LocatedMap, images: Tensor) -> list[nn.Module]:
    """The outermost modules that have nothing to do with the map: all that run after it, all whose weights it lacks.

    In both modes: a layer of noise, or a learned augmentation, runs in training only.

    What ran before the map stays, even where nothing came of it: the network calls it.
    """
    tracer, made = found.tracer, found.made
    gone: list[nn.Module] = []
    of = made.of | of_in_training(model, images, *entry_points(found))

    def needed(module: nn.Module) -> bool:
        early = any(start < made.count for part in module.modules() for start in tracer.begun.get(part, ()))
        return early or bool(tracer.bits_of(list(module.parameters())) & of)

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, Trunk) and child is module.then:
                continue  # of an earlier swap: it belongs to the map, also what does nothing in eval mode
            if needed(child) or isinstance(child, HOLDERS):
                visit(child)
            elif not isinstance(child, nn.Identity) and (
                child in tracer.begun or any(True for _ in child.parameters())
            ):
                gone.append(child)

    visit(model)
    return list(dict.fromkeys(gone))


def entry_points(found: LocatedMap) -> tuple[nn.Module | None, nn.Module | None]:
    """(a module that takes the map, None), or (None, the last that gives it, or what it is made of by mere calls).

    By it the map of another pass is known.
    """
    tracer, x, made, until = found.tracer, found.map, found.made, found.until
    takes = [v.module for v in tracer.takers.get(x, ()) if made.count <= v.count <= until]
    if takes:
        return takes[0], None
    while True:
        gives = [v.module for v in tracer.givers.get(x, ()) if made.count <= v.count <= until]
        if gives or made.call is None:
            return None, gives[-1] if gives else None
        until = made.count - 1
        x, made = made.call.taken, made.call.was


@torch.no_grad()
def of_in_training(model: nn.Module, images: Tensor, into: nn.Module | None, out_of: nn.Module | None) -> int:
    """Bits of what goes into a module, or comes out of one, in training mode."""
    more = torch.cat([images, images[:1]])
    tracer = ProvenanceTracer(model, more, into, out_of)
    # what comes after the map may want labels in training; whether the map's own part runs is tried later
    with training(model) as state, suppress(Exception), tracer.followed():
        torch.func.functional_call(model, state, (more,))
    tape = tracer.tape
    return 0 if tape is None or tracer.map is None else tracer.making(tracer.map, tape.begin - 1).of


def names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All names of each module: one may stand in several places."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(module, []).append(name)
    return found


class Surgery:
    """Exchanges modules of a model, and puts the old ones back."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names = names(model)
        self._old: list[tuple[nn.Module, str, nn.Module]] = []
        self._parameters: list[tuple[nn.Module, str, nn.Parameter]] = []

    def put(self, new: nn.Module, module: nn.Module) -> None:
        """`new` in all places of `module`."""
        new.train(module.training)
        for name in self._names[module]:
            parent, _, last = name.rpartition(".")
            holder = self.model.get_submodule(parent)
            self._old.append((holder, last, module))
            setattr(holder, last, new)

    def put_instead(self, new: nn.Module, module: nn.Module) -> None:
        """`new` in all places of `module`, in which something else was put before."""
        new.train(module.training)
        for name in self._names[module]:
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, new)

    def without(self, gone: Iterable[nn.Module]) -> None:
        for module in gone:
            self.put(nn.Identity(), module)

    def new(self, module: nn.Module) -> nn.Module:
        """What stands in its place."""
        return self.model.get_submodule(self._names[module][0])

    def lose(self, holder: nn.Module, name: str) -> None:
        parameter = getattr(holder, name)
        self._parameters.append((holder, name, parameter))
        setattr(holder, name, None)

    def undo(self) -> None:
        while self._old:
            holder, name, module = self._old.pop()
            setattr(holder, name, module)
        while self._parameters:
            holder, name, parameter = self._parameters.pop()
            setattr(holder, name, parameter)
