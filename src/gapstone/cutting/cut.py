"""`cut_head`: a network up to its last map, for heads that stand behind it; and the same cut of another instance."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gapstone.cutting.example_images import check_model, example_images
from gapstone.cutting.exchange import Surgery, module_names, removable_modules
from gapstone.cutting.last_map import find_last_map
from gapstone.cutting.trunk import Tap, Trunk
from gapstone.cutting.wrap import check_runs, find_hook_point, remove_own_parameters
from gapstone.runtime.eval_mode import eval_mode


@dataclass(frozen=True)
class HeadCut:
    """Where a network is cut, by the names of its modules: finding the place takes seconds, cutting there does not."""

    removed: tuple[str, ...]
    """Modules after the map."""
    parameters: tuple[tuple[str, str], ...]
    """(module, name) of parameters that modules around the map use after it."""
    hooked: str
    """The module that returns the map or what it is computed from, or takes it."""
    before: bool
    """Whether it takes it."""
    then: nn.Sequential
    """What makes the map (N, C, h, w) of what the module returns or takes."""

    def apply(self, model: nn.Module) -> Trunk:
        """Cut a network of the same class, which is changed itself.

        Raises:
            ValueError: If it has other modules.
        """
        tap = Tap()
        try:
            for name in self.removed:
                model.set_submodule(name, nn.Identity().train(model.get_submodule(name).training))
            for holder, name in self.parameters:
                setattr(model.get_submodule(holder), name, None)
            module = model.get_submodule(self.hooked)
        except AttributeError as error:
            raise ValueError(
                f"{type(model).__name__} has other modules than the one that was cut first ({error}): a function that "
                f"builds a network must build the same one at each call"
            ) from None
        if self.before:
            module.register_forward_pre_hook(tap)
        else:
            module.register_forward_hook(tap)
        trunk = Trunk(model, tap, copy.deepcopy(self.then))
        trunk.training = trunk.then.training = model.training
        return trunk


@torch.inference_mode(False)  # tensors of inference mode can never be trained
def cut_head(
    model: nn.Module, at: str | None = None, images: Tensor | None = None, what: str = "cut_head"
) -> tuple[nn.Module, HeadCut | None, Tensor]:
    """Remove the head of a network, which is changed itself, and return it up to its last map.

    trunk, cut, images = cut_head(torchvision.models.resnet18())
    trunk(images).shape
    torch.Size([2, 512, 7, 7])
    another = cut.apply(torchvision.models.resnet18())

    A network that returns maps (N, C, h, w) has no head: it is returned as it is, and there is no cut. torch's random
    generator is not advanced.

    Args:
        model: The network.
        at: The name of the module whose output is the map; None: it is located.
        images: Normalised images that it takes; None: noise of its usual size.
        what: What was called, for messages.

    Raises:
        SplitError: If no map is found; the message lists the candidates. A ValueError.
        ValueError: If it takes no images that it is given.
        TypeError: If it is not an nn.Module.
    """
    check_model(model, what)
    with torch.random.fork_rng(devices=[]):
        images = example_images(model, what) if images is None else images
        if at is None:
            with eval_mode(model), torch.no_grad():
                out = model(images)
            if isinstance(out, Tensor) and out.dim() == 4:
                return model, None, images
        located = find_last_map(model, images, at)
        names, surgery = module_names(model), Surgery(model)
        removed = removable_modules(model, located, images)
        hook_point = find_hook_point(surgery, located, removed, images)
        remove_own_parameters(surgery, located)
        cut = HeadCut(
            tuple(name for module in removed for name in names[module]),
            tuple((names[holder][0], name) for holder, name in surgery.removed_parameters),
            names[hook_point.module][0],
            hook_point.before,
            nn.Sequential(*hook_point.calls, *located.arrange),
        )
        trunk = cut.apply(model)
        check_runs(trunk, images, located)
    return trunk, cut, images
