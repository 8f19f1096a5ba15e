"""The networks by name: `build`. To add one: a page of its own, and one line in this table."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gapstone.console.formatting import display
from gapstone.heads.reads import Reads
from gapstone.nets.features import Features
from gapstone.nets.googlenet import GoogLeNet
from gapstone.nets.hf_features import HfFeatures
from gapstone.nets.hf_folder import PREFIX, config_text, folder_of
from gapstone.nets.inception_resnet_v1 import InceptionResNetV1
from gapstone.nets.inception_v4 import InceptionV4
from gapstone.nets.nin import Nin, NinImageNet, NinPaper
from gapstone.nets.own_features import OWN_NETWORK, OwnFeatures
from gapstone.nets.resnet import ResNet
from gapstone.nets.timm_features import TimmFeatures
from gapstone.nets.vgg import Vgg


@dataclass(frozen=True)
class Net:
    make: Callable[[int], Features]
    description: str
    """One line, for the command line's help and the docs."""
    pretrained: str
    """The nearest thing with weights from ImageNet."""


NETS = {
    "nin": Net(Nin, "Network in Network, small: 29k parameters, stride 4; for small images", "timm:resnet18"),
    "nin:paper": Net(NinPaper, "Network in Network as published: 0.97M parameters, stride 4", "timm:resnet18"),
    "nin:imagenet": Net(NinImageNet, "Network in Network for ImageNet: 6.6M parameters, stride 32", "timm:resnet18"),
    "vgg11": Net(partial(Vgg, depth=11, norm=False), "VGG-11: 9.2M parameters, stride 32", "timm:vgg11"),
    "vgg11_bn": Net(partial(Vgg, depth=11, norm=True), "VGG-11 with batch norm", "timm:vgg11_bn"),
    "vgg13": Net(partial(Vgg, depth=13, norm=False), "VGG-13: 9.4M parameters, stride 32", "timm:vgg13"),
    "vgg13_bn": Net(partial(Vgg, depth=13, norm=True), "VGG-13 with batch norm", "timm:vgg13_bn"),
    "vgg16": Net(partial(Vgg, depth=16, norm=False), "VGG-16: 14.7M parameters, stride 32", "timm:vgg16"),
    "vgg16_bn": Net(partial(Vgg, depth=16, norm=True), "VGG-16 with batch norm", "timm:vgg16_bn"),
    "vgg19": Net(partial(Vgg, depth=19, norm=False), "VGG-19: 20.0M parameters, stride 32", "timm:vgg19"),
    "vgg19_bn": Net(partial(Vgg, depth=19, norm=True), "VGG-19 with batch norm", "timm:vgg19_bn"),
    "googlenet": Net(GoogLeNet, "GoogLeNet (Inception v1): 5.6M parameters, stride 32", "timm:inception_v3"),
    "inception_v4": Net(InceptionV4, "Inception v4: 41.1M parameters, stride 32", "timm:inception_v4"),
    "inception_resnet_v1": Net(
        InceptionResNetV1, "Inception-ResNet v1: 22.6M parameters, stride 32", "timm:inception_resnet_v2"
    ),
    "resnet18": Net(partial(ResNet, depth=18), "ResNet-18: 11.2M parameters, stride 32", "timm:resnet18"),
    "resnet18:small": Net(
        partial(ResNet, depth=18, small=True), "ResNet-18 for small images: stem of stride 1, stride 8", "timm:resnet18"
    ),
    "resnet34": Net(partial(ResNet, depth=34), "ResNet-34: 21.3M parameters, stride 32", "timm:resnet34"),
    "resnet50": Net(partial(ResNet, depth=50), "ResNet-50: 23.5M parameters, stride 32", "timm:resnet50"),
    "resnet50:small": Net(
        partial(ResNet, depth=50, small=True), "ResNet-50 for small images: stem of stride 1, stride 8", "timm:resnet50"
    ),
    "resnet101": Net(partial(ResNet, depth=101), "ResNet-101: 42.5M parameters, stride 32", "timm:resnet101"),
}

NAMES: dict[str, str] = {name: net.description for name, net in NETS.items()}
"""Name → one line about it, for every network of gapstone's own."""

TIMM = "timm:NAME"
"""How a network of timm is named: any of `timm.list_models()` that makes feature maps."""


HF = "hf:FOLDER"
"""How a network of transformers is named: a folder with config.json and model.safetensors."""


def build(
    name: str, in_channels: int = 3, pretrained: bool = False, pooler: bool = False, config: str | None = None
) -> Features:
    """The network of that name without its head, its weights drawn at random.

    Examples:
        >>> build("resnet18:small", in_channels=1)(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 512, 4, 4])

    Args:
        name: one of `NAMES`, `timm:` and a name of timm's, or `hf:` and a folder that Hugging Face's libraries write.
        in_channels: channels of the images: 1 grey, 3 colour, any other number.
        pretrained: timm's weights, downloaded once, or those of the folder.
        pooler: keep the network's own pooler, which the head `own` reads: networks of timm and of a folder only.
        config: of a network of a folder that is not at hand, as `HfFeatures.config` is; None: the folder's.

    Returns:
        The network; it maps images (N, in_channels, H, W) to feature maps.

    Raises:
        ValueError: an unknown name, a network that makes no map, `pretrained` or `pooler` of gapstone's own.
        ImportError: `timm:` without timm, `hf:` without transformers.
        OSError: the weights cannot be downloaded.
    """
    if in_channels < 1:
        raise ValueError(f"{display(name)} for images of {in_channels} channels: an image has at least one.")
    if name.startswith("timm:"):
        return TimmFeatures(in_channels, name=name.removeprefix("timm:"), pretrained=pretrained, pooler=pooler)
    if name.startswith(PREFIX):
        text = config_text(name) if config is None else config
        folder = folder_of(name) if pretrained else None
        return HfFeatures(in_channels, backbone=name, config=text, folder=folder, pooler=pooler)
    if name.startswith(OWN_NETWORK):
        return OwnFeatures(name, in_channels)
    if name not in NETS:
        close = difflib.get_close_matches(name, NETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(NETS)}"
        raise ValueError(
            f"there is no network {display(name)!r}; {hint} Networks of timm are written {TIMM}, those of "
            f"transformers {HF}."
        )
    if pretrained:
        raise ValueError(
            f"gapstone's own {name} starts from random weights; {NETS[name].pretrained} has weights from ImageNet."
        )
    features = NETS[name].make(in_channels)
    if pooler:
        features.check_reads(Reads(own=True))
    return features
