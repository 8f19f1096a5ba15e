"""Who makes class activation maps, each set to be as fast as its own documentation shows, and what its map should be.

A contender makes ready what is not measured (hooks, extractors) and gives one call, from images to maps. It raises
NotImplementedError where it has no such map, ImportError where it is not installed. What it answers is then compared
with its own definition (`definition`), by autograd through the whole model, in float64.

Each is used as its documentation uses it, with parameters that require gradients as those of a loaded model do; frozen:
after `model.requires_grad_(False)`, which spares torch the record of the backbone (torchcam's and pytorch-grad-cam's
Grad-CAM then have no gradients).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.maps.explain import explain


@dataclass(frozen=True)
class Case:
    """A torchvision model, and the module whose output is its last map."""

    model: str
    layer: str
    batch: int
    mean: bool = True
    """Its head begins with the mean: gradient × activation and Grad-CAM's averaged gradients are then the same map."""
    fc: str | None = None
    """Its one linear layer, right after the mean: what a plain CAM needs."""

    @property
    def title(self) -> str:
        return f"{self.model}, {self.batch}"

    def build(self) -> tuple[nn.Module, Tensor]:
        import torchvision

        torch.manual_seed(0)
        model: nn.Module = torchvision.models.get_model(self.model, weights=None)
        return model.eval(), torch.randn(self.batch, 3, 224, 224)


CASES = [
    Case("resnet50", "layer4", 1, fc="fc"),
    Case("resnet50", "layer4", 16, fc="fc"),
    Case("resnet18", "layer4", 1, fc="fc"),
    Case("vgg16", "features", 1, mean=False),
    Case("convnext_tiny", "features", 1),
    Case("swin_t", "permute", 1, fc="head"),
]

Run = Callable[[], Any]
Contender = Callable[[Case, nn.Module, Tensor, list[int]], Run]


# ---- definitions


def definition(case: Case, model: nn.Module, x: Tensor, classes: list[int], averaged: bool) -> Tensor:
    """(N, h, w): sum over channels of gradient × activation; averaged: the gradients over the positions (Grad-CAM)."""
    kept: list[Tensor] = []
    model = model.double()
    hook = model.get_submodule(case.layer).register_forward_hook(lambda _m, _i, out: kept.append(out))
    try:
        with torch.enable_grad():
            logits = model(x.double().requires_grad_())
            (gradient,) = torch.autograd.grad(logits.gather(1, torch.tensor(classes)[:, None]).sum(), kept[0])
    finally:
        hook.remove()
        model.float()
    if averaged:
        gradient = gradient.mean((2, 3), keepdim=True)
    return (gradient * kept[0].detach()).sum(1)


def as_grad_cam_draws(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """pytorch-grad-cam's last steps: negative parts cut off, from 0 to 1, resized to the image, from 0 to 1 again."""
    import cv2

    def stretched(maps: Tensor) -> Tensor:
        maps = maps - maps.amin((1, 2), keepdim=True)
        return maps / (1e-7 + maps.amax((1, 2), keepdim=True))

    small = stretched(raw.clamp(min=0)).float().numpy()
    return stretched(torch.stack([torch.from_numpy(cv2.resize(one, size[::-1])) for one in small]))


# ---- contenders


def plain(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    def run() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(x)
        return logits

    return run


def gapstone_all(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    return lambda: explain(model, x)


def gapstone_top(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    return lambda: explain(model, x, top_k=1)


def by_hand(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    """The lines one writes for one known model: a hook, and all classes' maps."""
    if case.fc is None:
        raise NotImplementedError("no linear layer right after a mean")
    weight = model.get_submodule(case.fc).weight
    kept: list[Tensor] = []
    model.get_submodule(case.layer).register_forward_hook(lambda _m, _i, out: kept.append(out))

    def run() -> Tensor:
        with torch.no_grad():
            model(x)
            last = kept.pop()
            maps: Tensor = F.conv2d(last, weight[:, :, None, None]) / last[0, 0].numel()
        return maps

    return run


def captum_grad_cam(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    from captum.attr import LayerGradCam

    method = LayerGradCam(model, model.get_submodule(case.layer))

    def run() -> Tensor:
        with torch.no_grad():
            top = model(x).argmax(1)  # it takes the class before it runs: a forward of its own
        maps: Tensor = method.attribute(x, target=top)
        return maps.detach()[:, 0]

    return run


def captum_given(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    """The same where the class is known before."""
    from captum.attr import LayerGradCam

    method, target = LayerGradCam(model, model.get_submodule(case.layer)), torch.tensor(classes)
    return lambda: method.attribute(x, target=target).detach()[:, 0]


def torchcam_cam(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    from torchcam.methods import CAM

    if case.fc is None:
        raise NotImplementedError("no linear layer right after a mean")
    method = CAM(model, case.layer, case.fc)

    def run() -> Tensor:
        with torch.no_grad():
            logits = model(x)
        maps: Tensor = method(logits.argmax(1).tolist(), logits, normalized=False)[0]
        return maps

    return run


def torchcam_grad_cam(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    from torchcam.methods import GradCAM

    method = GradCAM(model, case.layer)

    def run() -> Tensor:
        logits = model(x)
        maps: Tensor = method(logits.argmax(1).tolist(), logits, normalized=False)[0]
        return maps

    return run


def grad_cam(case: Case, model: nn.Module, x: Tensor, classes: list[int]) -> Run:
    from pytorch_grad_cam import GradCAM

    method = GradCAM(model=model, target_layers=[model.get_submodule(case.layer)])
    return lambda: method(input_tensor=x, targets=None)


def frozen(contender: Contender) -> Contender:
    return lambda case, model, x, classes: contender(case, model.requires_grad_(False), x, classes)


PLAIN, ALL, TOP = "plain forward", "gapstone, all 1000 classes", "gapstone, top class"

CONTENDERS: dict[str, Contender] = {
    PLAIN: plain,
    ALL: gapstone_all,
    TOP: gapstone_top,
    "by hand: hook and 1×1 convolution, all 1000": by_hand,
    "torchcam CAM, top class": torchcam_cam,
    "torchcam GradCAM, top class": torchcam_grad_cam,
    "captum LayerGradCam, top class": captum_grad_cam,
    "captum LayerGradCam, given class": captum_given,
    "captum LayerGradCam, given class, frozen": frozen(captum_given),
    "pytorch-grad-cam GradCAM, top class": grad_cam,
}


# ---- what each must answer


def error(name: str, found: Any, case: Case, raw: Tensor, averaged: Tensor, logits: Tensor) -> float:
    """Its largest difference from its own definition, over the largest number of it.

    raw, averaged: `definition` of the top classes; logits: of the plain forward.
    """
    top = logits.argmax(1)
    if name == PLAIN:
        return _off(found, logits)
    if name == ALL:
        mine = found.maps[torch.arange(len(top)), top]
        sums = found.maps.sum((2, 3)) + found.bias
        return max(_off(mine, raw), _off(sums, logits) if found.additive else 0.0)
    if name == TOP:
        return _off(found.maps[:, 0], raw)
    if name.startswith("by hand"):
        return _off(found[torch.arange(len(top)), top], raw)
    if name.startswith("torchcam CAM"):
        return _off(found, (averaged * averaged[0].numel()))  # weights, not divided by the positions; it keeps the sign
    if name.startswith("torchcam"):
        return _off(found, averaged.clamp(min=0))
    if name.startswith("captum"):
        return _off(found, averaged)
    # stretched to 0…1, float32's rounding grows as the map's range shrinks against its values: undo that
    positive = averaged.clamp(min=0).flatten(1)
    stretch = (positive.amax(1) - positive.amin(1)) / positive.amax(1).clamp(min=1e-30)
    drawn = as_grad_cam_draws(averaged, (224, 224))
    return float(((torch.from_numpy(found) - drawn).abs().amax((1, 2)) * stretch).max())


def _off(found: Tensor, right: Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())
