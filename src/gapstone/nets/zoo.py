"""timm's models: made by name, with their own heads, and what their weights expect (`pip install gapstone[zoo]`)."""

import difflib
import importlib
import math
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import published
from gapstone.nets.hf_folder import PREFIX, folder_of
from gapstone.nets.hf_preprocessing import hf_input
from gapstone.nets.hub import check_pretrained
from gapstone.nets.on_meta import on_meta
from gapstone.nets.packaged_weights import package_of, renamed
from gapstone.nets.state_dicts import check_same, read_state
from gapstone.storage.paths import sentence


def pretrained_input(name: str) -> Preprocessing:
    """How images are prepared for the weights that timm publishes for `timm:NAME`, or of the folder of `hf:FOLDER`.

    >>> pretrained_input("timm:tf_efficientnet_lite0").stored
    (256, 256)
    """
    if name.startswith(PREFIX):
        return hf_input(folder_of(name))
    name = name.removeprefix("timm:")
    with on_meta():
        return preprocessing_of(create_timm(name, 3, pretrained=False).default_cfg)


def preprocessing_of(described: dict[str, Any]) -> Preprocessing:
    """From timm's description of weights; Raises ValueError for a filter that is not known."""
    size, mean, std = (tuple(described[key]) for key in ("input_size", "mean", "std"))
    resizing = published(described["interpolation"], described.get("crop_mode", "center"))
    stored = stored_size(size[1:], described["crop_pct"])
    return Preprocessing(len(mean), size[1:], stored, mean, std, resizing=resizing)


def stored_size(size: tuple[int, int], crop: float) -> tuple[int, int]:
    """The size of the picture of which the network sees the share `crop`."""
    return math.floor(size[0] / crop), math.floor(size[1] / crop)


@dataclass(frozen=True)
class ZooModel:
    """A timm model with its own head, and what its weights expect."""

    model: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    """Of one channel where the weights are for grey images."""


def classifier_of(name: str) -> str:
    """The name of the classifier in timm's model `name`.

    >>> classifier_of("resnet18"), classifier_of("convnext_tiny")
    ('fc', 'head.fc')
    """
    with on_meta():
        layer = create_timm(name, 3, pretrained=False).default_cfg.get("classifier")
    return str(layer[0] if isinstance(layer, tuple | list) else layer)


def tensors_of(name: str) -> set[str]:
    """The names of all tensors of timm's model `name`, its classifier among them."""
    with on_meta():
        return set(create_timm(name, 3, pretrained=False, num_classes=None).state_dict())


def with_head(name: str, weights: Path | None = None, given: dict[str, Tensor] | None = None) -> ZooModel:
    """timm's `name` as a classifier, with weights from timm's hub or from a file of its state_dict.

    `given`: what was read of the file.
    Labels: those of ImageNet where the logits are its, else "class 0", "class 1", …
    Raises: as `build`; ValueError for a file that is not this model's weights.
    """
    channels = 3
    if weights is None:
        model = create_timm(name, 3, pretrained=True, num_classes=None)
    else:
        state = read_state(weights) if given is None else given
        with on_meta():
            described = create_timm(name, 3, pretrained=False).default_cfg
        classes, channels = _classes(name, described, state), _channels(name, described, state)
        model = create_timm(name, channels, pretrained=False, num_classes=classes)
        check_same(f"{weights}: not the weights of timm:{name}", model.state_dict(), state)
        model.load_state_dict(state)
    data: Any = importlib.import_module("timm.data")
    facts: dict[str, Any] = data.resolve_model_data_config(model)
    if channels == 1:  # as timm makes them from those of three: of a grey picture
        facts |= {key: (sum(facts[key]) / len(facts[key]),) for key in ("mean", "std")}
    return ZooModel(
        model.eval(),
        class_names(int(model.num_classes), data.infer_imagenet_subset(model)),
        preprocessing_of(facts),
    )


def class_names(count: int, subset: str | None) -> tuple[str, ...]:
    """Names of `count` classes: of a `subset` of ImageNet as timm knows it ("imagenet-1k"), or "class 0", "class 1", …

    Raises ImportError for a subset without timm.
    """
    try:
        info: Any = importlib.import_module("timm.data").ImageNetInfo(subset) if subset else None
    except ImportError as error:
        raise ImportError(
            f"the names of {count:,} classes of ImageNet need timm: pip install 'gapstone[zoo]' (here: {error})"
        ) from error
    labels = [info.index_to_description(k) if info else f"class {k}" for k in range(count)]
    # "crane" is a bird and a machine: names that stand twice get their number
    return tuple(label if labels.count(label) == 1 else f"{label} ({k})" for k, label in enumerate(labels))


def _channels(name: str, described: dict[str, Any], state: dict[str, Tensor]) -> int:
    """Of the images that the weights were trained on: 3, or 1."""
    layer = described.get("first_conv")
    layer = layer[0] if isinstance(layer, tuple | list) else layer
    weight = state.get(f"{layer}.weight")
    if weight is None or weight.ndim != 4 or weight.shape[1] == 3:
        return 3
    if weight.shape[1] != 1:
        raise ValueError(
            f"the weights of timm:{name} are for images of {weight.shape[1]} channels ({layer}.weight is "
            f"{tuple(weight.shape)}), and gapstone reads images of 3 (colour) or 1 (grey)"
        )
    return 1


def _classes(name: str, described: dict[str, Any], state: dict[str, Tensor]) -> int:
    layer = described.get("classifier")
    layer = layer[0] if isinstance(layer, tuple | list) else layer
    weight = state.get(f"{layer}.weight")
    if weight is None:
        some = ", ".join(list(state)[:3])
        raise ValueError(f"not the weights of timm:{name}: there is no {layer}.weight in it (there is {some}, …)")
    return int(weight.shape[0])


def create_timm(name: str, in_channels: int, pretrained: bool, num_classes: int | None = 0) -> Any:
    """timm's model of that name; num_classes 0: without its classifier, None: with its own.

    Where timm can, it resamples its position embeddings for images of other sizes (`resamples_positions`).

    Raises ImportError without timm, ValueError for a name timm does not know, OSError where weights cannot be had.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"timm:{name} needs timm: pip install 'gapstone[zoo]' (here: {error}); gapstone's own networks need no more"
        ) from error
    # Names with a source (hf-hub:, local-dir:) would fetch a description of the model, even from a saved file's word.
    if ":" in name or "/" in name or not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"did you mean {', '.join(f'timm:{c}' for c in close)}?" if close else "see timm.list_models()"
        raise ValueError(f"timm (version {timm.__version__}) has no model {name!r}: {hint}")
    sizes: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if resamples_positions(name) else {}
    create = partial(timm.create_model, name, in_chans=in_channels, num_classes=num_classes, **sizes)
    if not pretrained:
        try:
            return create()
        except RuntimeError:  # "Cannot copy out of meta tensor": up to timm 1.0.27 some read numbers off tensors
            if torch.get_default_device().type != "meta":
                raise
            with torch.device("cpu"):
                return create().to("meta")
    if package := package_of(name):
        with on_meta():
            published = timm.create_model(name).state_dict()
        # timm fits the first layer and the classifier to these images and classes, as it does with weights of its hub
        net: Any = create(
            pretrained=True, pretrained_cfg_overlay={"state_dict": renamed(package.read(), published, package)}
        )
        del net.pretrained_cfg["state_dict"]
        return net
    check_pretrained(name)
    try:
        return create(pretrained=True)
    except Exception as error:  # the hub's client has its own errors, and they change
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno is not None:
            why = sentence(error)
        raise OSError(
            f"timm:{name}: its pretrained weights could not be had ({why}); check the "
            f"connection, or give a file of them with --weights FILE"
        ) from error


@cache
def resamples_positions(name: str) -> bool:
    """Whether timm's `name` can be made for images of any size: position embeddings resampled, images padded to whole
    patches. At its own size its numbers are the same, to the bit.
    """
    import timm

    def has_option(network: type) -> bool:
        return issubclass(network, nn.Module) and "dynamic_img_pad" in signature(network).parameters

    family = vars(importlib.import_module(timm.model_entrypoint(name).__module__)).values()
    if not any(has_option(network) for network in family if isinstance(network, type)):
        return False  # most; others have to be made to be asked
    with on_meta():
        return any(has_option(network) for network in type(timm.create_model(name)).__mro__)
