"""Selects the modules that the map does not need, and replaces modules in a way that can be undone."""

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from gapstone.cutting.last_map import LocatedMap
from gapstone.cutting.probe import training
from gapstone.cutting.trunk import Trunk
from gapstone.tracing.provenance import ProvenanceTracer

HOLDERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Containers that are not called: their children are replaced, not the containers."""


def removable_modules(model: nn.Module, located: LocatedMap, images: Tensor) -> list[nn.Module]:
    """Return the outermost modules that run after the map, or whose weights it does not depend on.

    Dependence counts in both modes: noise or a learned augmentation may run in training only. Modules that run before
    the map stay, even if the map does not depend on them: the network calls them.
    """
    tracer, made = located.tracer, located.made
    removed: list[nn.Module] = []
    provenance = made.of | training_provenance(model, images, *entry_points(located))

    def needed(module: nn.Module) -> bool:
        early = any(start < made.count for part in module.modules() for start in tracer.begun.get(part, ()))
        return early or bool(tracer.bits_of(list(module.parameters())) & provenance)

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, Trunk) and child is module.then:
                continue  # layers of an earlier swap belong to the map, including those that do nothing in eval mode
            if needed(child) or isinstance(child, HOLDERS):
                visit(child)
            elif not isinstance(child, nn.Identity) and (
                child in tracer.begun or any(True for _ in child.parameters())
            ):
                removed.append(child)

    visit(model)
    return list(dict.fromkeys(removed))


def entry_points(located: LocatedMap) -> tuple[nn.Module | None, nn.Module | None]:
    """Return (module that takes the map, None), or (None, last module that returns it or what it is computed from).

    It locates the map in another forward pass.
    """
    if located.consumers:
        return located.consumers[0], None
    for x, made, until in located.origins():
        producers = [v.module for v in located.tracer.givers.get(x, ()) if made.count <= v.count <= until]
        if producers:
            return None, producers[-1]
    return None, None


@torch.no_grad()
def training_provenance(model: nn.Module, images: Tensor, into: nn.Module | None, out_of: nn.Module | None) -> int:
    """Return the provenance bits of a module's input, or of a module's output, in training mode."""
    more = torch.cat([images, images[:1]])
    tracer = ProvenanceTracer(model, more, into, out_of)
    # in training, code after the map may need labels; whether the code before it runs is checked later
    with training(model) as state, suppress(Exception), tracer.followed():
        torch.func.functional_call(model, state, (more,))
    tape = tracer.tape
    return 0 if tape is None or tracer.map is None else tracer.making(tracer.map, tape.begin - 1).of


def module_names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return all names of each module; a shared module has several."""
    result: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        result.setdefault(module, []).append(name)
    return result


class Surgery:
    """Replaces modules of a model, and can restore them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names = module_names(model)
        self._old: list[tuple[str, nn.Module]] = []
        self._parameters: list[tuple[nn.Module, str, nn.Parameter]] = []

    def replace(self, new: nn.Module, module: nn.Module) -> None:
        """Put `new` in all places of `module`, also if it was replaced before."""
        new.train(module.training)
        for name in self._names[module]:
            self._old.append((name, module))
            self.model.set_submodule(name, new)

    def remove(self, removed: Iterable[nn.Module]) -> None:
        """Replace modules by nn.Identity."""
        for module in removed:
            self.replace(nn.Identity(), module)

    def current(self, module: nn.Module) -> nn.Module:
        """Return the module that is now in the place of `module`."""
        return self.model.get_submodule(self._names[module][0])

    @property
    def removed_parameters(self) -> list[tuple[nn.Module, str]]:
        """(module, name) of the parameters that were set to None."""
        return [(holder, name) for holder, name, _ in self._parameters]

    def remove_parameter(self, holder: nn.Module, name: str) -> None:
        """Set a parameter to None."""
        parameter = getattr(holder, name)
        self._parameters.append((holder, name, parameter))
        setattr(holder, name, None)

    def undo(self) -> None:
        """Restore all modules and parameters."""
        while self._old:
            self.model.set_submodule(*self._old.pop())
        while self._parameters:
            holder, name, parameter = self._parameters.pop()
            setattr(holder, name, parameter)
