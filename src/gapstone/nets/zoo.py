"""`timm:NAME`: the trunk of any timm model that makes feature maps (`pip install gapstone[zoo]`)."""

import difflib
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import published
from gapstone.nets.features import Features
from gapstone.nets.hub import check_pretrained
from gapstone.nets.last_stage import last_stage
from gapstone.nets.on_meta import on_meta
from gapstone.nets.packaged_weights import package_of, renamed
from gapstone.nets.state_dicts import check_same, read_state
from gapstone.storage.paths import sentence


@final
class TimmFeatures(Features):
    """A timm model up to its last map, without its head and the head's parameters.

    >>> build("timm:convnext_atto")(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 320, 2, 2])

    Maps that end in channels (Swin) come out as (N, C, h, w) in channels-last memory, tokens (ViT) on their grid
    without the class token. ViT and Swin take one size only: `fixed`. For these, `stride` is that size over the map's.
    """

    def __init__(self, in_channels: int = 3, *, name: str, pretrained: bool = False) -> None:
        super().__init__()
        facts = survey(name, in_channels)
        self.name, self.in_channels = name, in_channels
        self.channels, self.stride = facts.channels, facts.stride
        self.smallest, self.fixed = facts.smallest, facts.fixed
        self.last_stage = facts.last_stage
        self.net = create_timm(name, in_channels, pretrained)
        self.as_map = AsMap(name, self.net, facts.fixed)
        _drop(self.net, facts.unused)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        maps: Tensor = self.as_map(self.net.forward_features(x), (x.shape[2], x.shape[3]))
        return maps


@final
class AsMap(nn.Module):
    """What timm's `forward_features` gave, as (N, C, h, w): channels second, tokens on their grid, no class token.

    `size` is that of the images, (H, W): tokens have a grid of its proportions. Raises ValueError for what is no map.
    """

    def __init__(self, name: str, net: Any, fixed: tuple[int, int] | None) -> None:
        super().__init__()
        self.name, self.channels, self.fixed = name, int(net.num_features), fixed
        self.ends_in_channels = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        self.prefix = int(getattr(net, "num_prefix_tokens", 0))

    def forward(self, y: Any, size: tuple[int, int] | None = None) -> Tensor:
        size = size or self.fixed
        if isinstance(y, Tensor) and y.ndim == 4:
            if self.ends_in_channels or y.shape[1] != self.channels == y.shape[3]:
                y = y.permute(0, 3, 1, 2)
            if y.shape[1] == self.channels:
                return cast(Tensor, y)
        elif isinstance(y, Tensor) and y.ndim == 3 and y.shape[2] == self.channels and size is not None:
            y = y[:, self.prefix :].transpose(1, 2)
            cells = int(y.shape[2])
            h = round(math.sqrt(cells * size[0] / size[1]))
            if h > 0 and h * (cells // h) == cells:
                return cast(Tensor, y.reshape(y.shape[0], self.channels, h, cells // h))
        what = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        images = f"images of {size[0]}×{size[1]} px" if size else "images of an unknown size"
        raise ValueError(
            f"timm:{self.name} makes no feature map: from {images} came {what}, not (N, {self.channels}, h, w) nor one "
            f"token per cell; take another model (convolutional ones always work)"
        )


def pretrained_input(name: str) -> Preprocessing:
    """How images are prepared for the pretrained weights of timm's `name`.

    >>> pretrained_input("tf_efficientnet_lite0").stored
    (256, 256)
    """
    with on_meta():
        return _preprocessing(create_timm(name, 3, pretrained=False).default_cfg)


def _preprocessing(described: dict[str, Any]) -> Preprocessing:
    """From timm's description of weights; Raises ValueError for a filter that is not known."""
    size, mean, std = (tuple(described[key]) for key in ("input_size", "mean", "std"))
    resizing = published(described["interpolation"], described.get("crop_mode", "center"))
    stored = stored_size(size[1:], described["crop_pct"])
    return Preprocessing(len(mean), size[1:], stored, mean, std, resizing=resizing)


def stored_size(size: tuple[int, int], crop: float) -> tuple[int, int]:
    """The size of the picture of which the network sees the share `crop`."""
    return math.floor(size[0] / crop), math.floor(size[1] / crop)


@dataclass(frozen=True)
class Survey:
    """What a dry run tells about a timm model."""

    channels: int
    stride: int
    smallest: int
    fixed: tuple[int, int] | None
    unused: tuple[str, ...]
    """Modules the maps do not need: the head."""
    last_stage: tuple[str, ...]
    """As `Features.last_stage`; () where the model cannot be cut."""


@cache
@torch.inference_mode(False)  # whoever asks: what the maps depend on is found through autograd
def survey(name: str, in_channels: int) -> Survey:
    """Run the model on shapes alone (the meta device: no memory, no arithmetic) and note what comes out.

    Raises ValueError where it makes no map, or knows no such model; ImportError without timm.
    """
    with on_meta():
        net = create_timm(name, in_channels, pretrained=False).eval()
    side, width = net.default_cfg["input_size"][1:]
    as_map = AsMap(name, net, None)

    def cells(h: int, w: int) -> tuple[int, int]:
        maps = as_map(net.forward_features(torch.empty(1, in_channels, h, w, device="meta")), (h, w))
        return int(maps.shape[2]), int(maps.shape[3])

    default = cells(side, width)
    if default == (1, 1):
        raise ValueError(
            f"timm:{name} makes no feature map: {side}×{width} px become a single cell (a class token); "
            f"take another model (convolutional ones always work)"
        )
    fixed: tuple[int, int] | None = None
    smallest = side
    try:
        # Cells gained per pixel added: right even where unpadded convolutions eat the border (Inception).
        # 448 is a multiple of all strides in use (7, 14, 16, 32, 64).
        stride = round(448 / (cells(side + 448, width + 448)[0] - default[0]))
        smallest = _smallest(cells, side, stride)
    except Exception:  # whatever a network raises at a size that is not its own
        fixed, stride = (side, width), round(side / default[0])
    images = torch.empty(1, in_channels, side, width, device="meta")
    return Survey(
        as_map.channels, stride, smallest, fixed, _unused(net, as_map, images), _last_stage(net, images, fixed)
    )


def _last_stage(net: Any, images: Tensor, fixed: tuple[int, int] | None) -> tuple[str, ...]:
    levels = getattr(net, "feature_info", [])
    levels = levels if isinstance(levels, list) else levels.info
    y = net.forward_features(images)
    if y.ndim == 3 and fixed is None:  # tokens of an image of any size: alone, they do not say what grid they lie on
        return ()
    stage = last_stage(net, lambda: net.forward_features(images), [str(level["module"]) for level in levels])
    return (*(f"net.{path}" for path in stage), "as_map") if stage else ()


def _smallest(cells: Callable[[int, int], tuple[int, int]], side: int, stride: int) -> int:
    def works(n: int) -> bool:
        try:
            return min(cells(n, n)) >= 1
        except Exception:  # as above: each network has its own way to refuse
            return False

    if works(1):  # most do, padded as they are; a dry run costs 0.1 s
        return 1
    # First over whole strides, then within one: some networks (DLA, HRNet) take nothing else.
    good, bad = side, 0
    for step in (stride, 1):
        while good - bad > step:
            middle = bad + max((good - bad) // (2 * step), 1) * step
            good, bad = (middle, bad) if works(middle) else (good, middle)
    return good


def _unused(net: Any, as_map: AsMap, images: Tensor) -> tuple[str, ...]:
    # timm's heads hide under fc, classifier, head, head_dist, conv_head, pre_logits, fc_norm, …: rather than a list of
    # names, ask autograd which parameters the maps depend on.
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        maps = as_map(net.forward_features(images), (images.shape[2], images.shape[3]))
        maps.backward(torch.ones_like(maps))
    unused: list[str] = []
    for path, module in net.named_modules():
        parameters = list(module.parameters())
        inside = any(path.startswith(f"{outer}.") for outer in unused)
        if path and parameters and not inside and all(p.grad is None for p in parameters):
            unused.append(path)
    return tuple(unused)


def _drop(net: nn.Module, paths: tuple[str, ...]) -> None:
    for path in paths:
        parent, _, last = path.rpartition(".")
        setattr(net.get_submodule(parent), last, nn.Identity())


@dataclass(frozen=True)
class ZooModel:
    """A timm model with its own head, and what its weights expect."""

    model: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    """Of one channel where the weights are for grey images."""


def with_head(name: str, weights: Path | None = None) -> ZooModel:
    """timm's `name` as a classifier, with weights from timm's hub or from a safetensors file of its state_dict.

    Labels: those of ImageNet where the logits are its, else "class 0", "class 1", …
    Raises: as `build`; ValueError for a file that is not this model's weights.
    """
    channels = 3
    if weights is None:
        model = create_timm(name, 3, pretrained=True, num_classes=None)
    else:
        state = read_state(weights)
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
        _preprocessing(facts),
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
    create = partial(timm.create_model, name, in_chans=in_channels, num_classes=num_classes)
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
