"""`swap_head`: locates the last map, removes what follows it, adds the new head and checks the result by running it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.cutting.example_images import check_model, example_images
from gapstone.cutting.exchange import Surgery, module_names, removable_modules
from gapstone.cutting.last_map import LocatedMap, find_last_map
from gapstone.cutting.wrap import swap_beside
from gapstone.heads import Head
from gapstone.heads.reads import MAPS
from gapstone.heads.spec import parse
from gapstone.models.class_probabilities import check_multi_label
from gapstone.models.classifier import Classifier
from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.class_attributes import set_class_attributes
from gapstone.swapping.in_place import swap_in_place
from gapstone.swapping.output_objects import swap_logits_module
from gapstone.swapping.swap_report import REPORT_ATTRIBUTE, Cut, Swapped, count
from gapstone.tracing.tape import SplitError


@torch.inference_mode(False)  # tensors of inference mode can never be trained
def swap_head(
    model: nn.Module,
    head: str | nn.Module,
    num_classes: int | None = None,
    *,
    at: str | None = None,
    images: Tensor | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Replace the head of a network: everything after its last map is removed, and `head` is added there.

    Examples:
        >>> model = gs.swap_head(torchvision.models.resnet18(), "gap", 10)
        >>> model(torch.rand(1, 3, 160, 120)).shape
        torch.Size([1, 10])
        >>> print(gs.swapped(model))  # what was removed and added
        >>> model = gs.swap_head(model, "gem:p=learned", 10, at="layer3")  # a map of your choice
        >>> own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
        >>> gs.swap_head(torchvision.models.resnet18(), own).num_classes
        10

    The last map is located by tracing a forward pass; the names of modules do not matter. Modules that the map depends
    on stay; the others are removed: classifiers, norms and hidden layers after the pool, auxiliary heads. If the
    remaining calls pass the logits on unchanged, the head is put into the network, which keeps its class and all its
    names. Otherwise (DenseNet's ReLU, a class token, GoogLeNet's auxiliary outputs) a `TrunkAndHead` holds the network,
    as `features.net`, and the `head`. Runs in training and in eval mode decide which of the two applies. The map of a
    vision transformer is the grid of its tokens without the class token.

    Args:
        model: Any nn.Module from images to logits; its device, type, modes and the weights before the map are kept.
        head: A spec of `gapstone.heads`: `gap`, `gmp`, `fc:512:dropout=0.5`, … Its weights are drawn from torch's
            generator (`torch.manual_seed`). Or any nn.Module that takes the map (N, C, h, w), always channels first,
            and returns logits (N, classes): it is used itself, not a copy, and moved to the model's device, type and
            mode.
        num_classes: The number of classes; None: as many as before, or as your own head returns.
        at: The name of the module whose output is the map, if it cannot be located or another map is wanted.
        images: One or more normalised images that the model takes; by default noise of its usual size, or of the first
            size that it takes. `fc` without `grid` is made for the size of the map of these images.
        inplace: Change `model` itself instead of a deep copy; use the returned module in both cases.

    Returns:
        The model with its new head; it returns (N, num_classes) logits in both modes, or, as before, an object that
        holds them (`.logits`). `num_classes` is updated, and so are `num_labels` and the config of Hugging Face's
        models, which keep `pixel_values=`, `labels=`, their loss and their output class. timm's `get_classifier` and
        `reset_classifier` work with the new head.

    Raises:
        SplitError: If no map is found; the message lists the candidates. A ValueError.
        ValueError: If an argument is invalid.
        TypeError: If `model` is not an nn.Module, or cannot be copied.
    """
    _check(model, head, num_classes)
    if not inplace:
        model = _copy(model)
    images = example_images(model) if images is None else _check_images(model, images)
    located = find_last_map(model, images, at)
    before, kind, net = count(model), type(model).__name__, model
    if isinstance(head, nn.Module):
        classes, new, spec = (
            _check_custom_head(head, located, num_classes),
            head.train(model.training),
            type(head).__name__,
        )
    else:
        classes = num_classes if num_classes is not None else _classes(model, located)
        new = _head(model, head, classes, located)
        spec = str(new.spec)
    surgery = Surgery(model)
    removed = removable_modules(model, located, images)
    names, cells = module_names(model), tuple(located.features.shape[2:])
    cut = tuple(Cut(names[m][0], type(m).__name__, count(m)) for m in removed)
    try:
        result = swap_in_place(surgery, located, removed, new, images, classes)
        if result is None and located.output_class is not None:
            result = swap_logits_module(surgery, located, removed, new, images, classes)
        result = result or swap_beside(surgery, located, removed, new, images)
        at = next(name for name, module in result.named_modules() if module is new)
        channels = int(located.features.shape[1])
        result.__dict__[REPORT_ATTRIBUTE] = Swapped(
            kind, spec, at, classes, channels, cells, located.size, cut, before, count(result), result is not model
        )
        set_class_attributes(result, net, classes, channels)
    except BaseException:
        surgery.undo()
        raise
    return result


def _check(model: Any, head: Any, num_classes: int | None) -> None:
    check_model(model)
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
    if isinstance(head, str) and (reads := parse(head).reads) != MAPS:
        raise ValueError(
            f"swap_head: head {head!r} reads {reads.beyond}, and here a head is given the last map alone: build a "
            f"gs.Classifier with it, or take gap or attention"
        )
    if isinstance(head, str) and isinstance(model, Classifier) and model.multi_label:
        check_multi_label(head)
    if num_classes is not None and (not isinstance(num_classes, int) or isinstance(num_classes, bool)):
        raise ValueError(f"swap_head: num_classes={num_classes!r} must be a whole number, at least 1")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"swap_head: num_classes={num_classes} must be at least 1")
    if isinstance(model, Classifier) and num_classes not in (None, len(model.labels)):
        raise ValueError(
            f"swap_head: this Classifier has {len(model.labels)} labels, one for each logit, so it keeps as many: "
            f"leave out num_classes={num_classes}, or make a new one, gs.Classifier(backbone, head, labels, …)"
        )


def _check_images(model: nn.Module, images: Any) -> Tensor:
    if not isinstance(images, Tensor) or images.dim() < 3 or not len(images):
        received = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"swap_head: images={received}: give at least one image, as a tensor (N, C, H, W), normalised")
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    # (N, C, L) is a batch of sounds, which a network may turn into spectrograms for a Conv2d
    if first is not None and images.dim() == 3 and len(images) == first.in_channels < images.shape[1]:
        raise ValueError(f"swap_head: images={tuple(images.shape)} is a single image: give a batch of it, image[None]")
    return images[:2].detach().clone()  # a clone can be trained even if the images were made in inference mode


def _classes(model: nn.Module, located: LocatedMap) -> int:
    if located.logits is None:
        raise SplitError(
            f"{type(model).__name__} gives no logits (N, classes), so how many there were is not known: "
            f"give num_classes"
        )
    return int(located.logits.shape[1])


def _head(model: nn.Module, head: str, classes: int, located: LocatedMap) -> Head:
    features = located.features
    new = Head(head, features.shape[1], classes, tuple(features.shape[2:]))
    return new.to(features.device, features.dtype).train(model.training)


def _check_custom_head(head: nn.Module, located: LocatedMap, classes: int | None) -> int:
    """Move a user's head to the device and type of the map, run it once, and return its number of classes."""
    features = located.features
    head.to(features.device, features.dtype)
    failure = f"swap_head: the head {type(head).__name__}, given the map {tuple(features.shape)},"
    expectation = (
        f"a head takes the map (N, C, h, w) and gives logits (N, classes), such as "
        f"nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({features.shape[1]}, {classes or 10}))"
    )
    try:
        with eval_mode(head), torch.no_grad():
            logits = head(features)
    except Exception as error:  # a user's module may raise anything
        raise ValueError(f"{failure} failed ({type(error).__name__}: {error}); {expectation}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(features):
        received = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{failure} gave {received}; {expectation}")
    if classes is not None and logits.shape[1] != classes:
        raise ValueError(f"{failure} gave {logits.shape[1]} logits, and num_classes={classes}: leave num_classes out")
    return int(logits.shape[1])


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise TypeError(
            f"swap_head({type(model).__name__}): the model cannot be copied ({error}); "
            f"change it itself with inplace=True."
        ) from error
