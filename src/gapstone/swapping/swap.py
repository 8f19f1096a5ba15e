"""`swap_head`: find the last map, cut what follows it, put a head there, and run the whole before saying done."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.heads.spec import parse
from gapstone.models.classifier import Classifier
from gapstone.swapping.class_attributes import set_class_attributes
from gapstone.swapping.custom_head import custom_head
from gapstone.swapping.example_images import example_images
from gapstone.swapping.exchange import Surgery, dropped, names
from gapstone.swapping.in_place import swap_in_place
from gapstone.swapping.last_map import LocatedMap, find_last_map
from gapstone.swapping.output_objects import answered
from gapstone.swapping.swap_report import KEPT, Cut, Swapped, count
from gapstone.swapping.wrap import wrapped
from gapstone.tracing.tape import SplitError


@torch.inference_mode(False)  # weights and maps of that mode can never train
def swap_head(
    model: nn.Module,
    head: str | nn.Module,
    num_classes: int | None = None,
    *,
    at: str | None = None,
    images: Tensor | None = None,
    inplace: bool = False,
) -> nn.Module:
    """The same network with another head: everything after its last map is cut off, and `head` put there.

    Examples:
        >>> model = gs.swap_head(torchvision.models.resnet18(), "gap", 10)
        >>> model(torch.rand(1, 3, 160, 120)).shape
        torch.Size([1, 10])
        >>> print(gs.swapped(model))  # what was cut, what stands there now
        >>> model = gs.swap_head(model, "gem:p=learned", 10, at="layer3")  # a map of your choice
        >>> own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
        >>> gs.swap_head(torchvision.models.resnet18(), own).num_classes
        10

    The last map is found by watching a forward pass, whatever the modules are called. What it depends on stays; what
    it does not is cut: classifiers, norms and hidden layers after the pool, auxiliary heads. Where the calls that
    remain pass the logits on as they are, the head stands in the network, which keeps its class and all its names.
    Elsewhere (DenseNet's ReLU, a class token, GoogLeNet's auxiliary outputs) a small module holds the network, as
    `features.net`, and the `head`. Which of the two is told by running it in both modes. A vision transformer's map is
    its tokens without the class token, on their grid.

    Args:
        model: any nn.Module from images to logits; its device, type, modes and the weights before the map stay.
        head: a spec of `gapstone.heads`: `gap`, `gmp`, `fc:512:dropout=0.5`, … Its weights are drawn from torch's
            generator (`torch.manual_seed`). Or any nn.Module that takes the map (N, C, h, w), channels first whatever
            the network does, and gives logits (N, classes): it is put there itself, not a copy, on the model's device,
            of its type and in its mode.
        num_classes: None: as many as before, or as a head of your own gives.
        at: the module whose output is the map, where it cannot be found or another is wanted.
        images: one or more that the model takes, normalised; by default noise of its usual size, or of the first size
            it takes. `fc` without `grid` is made for the map of these images.
        inplace: change the model that is given, and use what is returned; else a deep copy.

    Returns:
        The model with its new head, (N, num_classes) logits in both modes; where the model gave an object that
        holds them (`.logits`), it still does. Its `num_classes` tells the truth, and so do `num_labels` and the
        config of Hugging Face's models, which keep `pixel_values=`, `labels=`, their loss and their output class.
        timm's `get_classifier` and `reset_classifier` go on working, with the new head.

    Raises:
        SplitError: no map is found; lists those that were seen. A ValueError.
        ValueError: arguments that cannot be.
        TypeError: what is no nn.Module; a model that cannot be copied.
    """
    _check(model, head, num_classes)
    if not inplace:
        model = _copied(model)
    images = example_images(model) if images is None else _given(model, images)
    found = find_last_map(model, images, at)
    before, kind, net = count(model), type(model).__name__, model
    if isinstance(head, nn.Module):
        classes, new, spec = custom_head(head, found, num_classes), head.train(model.training), type(head).__name__
    else:
        classes = num_classes if num_classes is not None else _classes(model, found)
        new = _head(model, head, classes, found)
        spec = str(new.spec)
    surgery = Surgery(model)
    gone = dropped(model, found, images)
    path, cells = names(model), tuple(found.features.shape[2:])
    cut = tuple(Cut(path[m][0], type(m).__name__, count(m)) for m in gone)
    try:
        whole = swap_in_place(surgery, found, gone, new, images, classes)
        if whole is None and found.gives is not None:
            whole = answered(surgery, found, gone, new, images, classes)
        whole = whole or wrapped(surgery, found, gone, new, images)
        at = next(name for name, module in whole.named_modules() if module is new)
        channels = int(found.features.shape[1])
        whole.__dict__[KEPT] = Swapped(
            kind, spec, at, classes, channels, cells, found.size, cut, before, count(whole), whole is not model
        )
        set_class_attributes(whole, net, classes, channels)
    except BaseException:
        surgery.undo()
        raise
    return whole


def _check(model: Any, head: Any, num_classes: int | None) -> None:
    if not isinstance(model, nn.Module):
        hint = "Give the model, not its class." if isinstance(model, type) else "Give the nn.Module itself."
        raise TypeError(f"swap_head({type(model).__name__}): needs an nn.Module. {hint}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise TypeError(
            f"swap_head({type(model).__name__}): a scripted or compiled model cannot be changed; swap, then compile"
        )
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            f"swap_head({type(model).__name__}): its parameters are on the device 'meta', which holds no numbers: "
            f"make it on another device, or load its weights first"
        )
    if isinstance(head, type) and issubclass(head, nn.Module):
        raise TypeError(f"swap_head(head={head.__name__}): give the module, not its class: {head.__name__}(…)")
    if not isinstance(head, str | nn.Module):
        raise TypeError(
            f"swap_head(head={head!r}): a head is the text of one ('gap', 'fc:512:dropout=0.5', …) or an nn.Module "
            f"that takes the map (N, C, h, w) and gives logits (N, classes)"
        )
    if isinstance(head, nn.Module) and isinstance(model, Classifier) and not isinstance(head, Head):
        raise TypeError(
            "swap_head: a Classifier keeps one of gapstone's heads, which its file can name; for a module of your own "
            "take model.features and put it behind them: nn.Sequential(model.features, head)"
        )
    if isinstance(head, str):
        parse(head)
    if num_classes is not None and (not isinstance(num_classes, int) or isinstance(num_classes, bool)):
        raise ValueError(f"swap_head: num_classes={num_classes!r} must be a whole number, at least 1")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"swap_head: num_classes={num_classes} must be at least 1")
    if isinstance(model, Classifier) and num_classes not in (None, len(model.labels)):
        raise ValueError(
            f"swap_head: this Classifier has {len(model.labels)} labels, one for each logit, so it keeps as many: "
            f"leave out num_classes={num_classes}, or make a new one, gs.Classifier(backbone, head, labels, …)"
        )


def _given(model: nn.Module, images: Any) -> Tensor:
    if not isinstance(images, Tensor) or images.dim() < 3 or not len(images):
        what = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"swap_head: images={what}: give at least one image, as a tensor (N, C, H, W), normalised")
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    # (N, C, L) is a batch of sounds, which a Conv2d may see as spectrograms
    if first is not None and images.dim() == 3 and len(images) == first.in_channels < images.shape[1]:
        raise ValueError(f"swap_head: images={tuple(images.shape)} is a single image: give a batch of it, image[None]")
    return images[:2].detach().clone()  # a clone can train, also of what was made in inference mode


def _classes(model: nn.Module, found: LocatedMap) -> int:
    if found.logits is None:
        raise SplitError(
            f"{type(model).__name__} gives no logits (N, classes), so how many there were is not known: "
            f"give num_classes"
        )
    return int(found.logits.shape[1])


def _head(model: nn.Module, head: str, classes: int, found: LocatedMap) -> Head:
    features = found.features
    new = Head(head, features.shape[1], classes, tuple(features.shape[2:]))
    return new.to(features.device, features.dtype).train(model.training)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise TypeError(
            f"swap_head({type(model).__name__}): the model cannot be copied ({error}); "
            f"change it itself with inplace=True."
        ) from error
