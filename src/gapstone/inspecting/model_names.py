"""Makes the network of a name for `inspect`, without weights (except from a file, which has them)."""

import difflib
import warnings
from pathlib import Path

from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.models.classifier import load
from gapstone.nets import NAMES, build, map_size
from gapstone.nets.checkpoints import published_head
from gapstone.nets.hf_folder import PREFIX, folder_of, short_name
from gapstone.nets.hf_model import classifier_or_network
from gapstone.nets.on_meta import on_meta
from gapstone.nets.zoo import create_timm

CLASSES = 1000
"""Classes of ImageNet, for networks without labels."""
SIZE = (224, 224)


def model_named(name: str, channels: int | None = None, size: tuple[int, int] | None = None) -> nn.Module:
    """Return the network of a name.

    >>> model_named("torchvision:resnet50")  # no download: on the meta device, where weights are shapes

    A name is a file (`photos.safetensors`), a network of gapstone's with its published head (`vgg16`), `timm:NAME`,
    `hf:FOLDER` or `torchvision:NAME`. `channels` and `size` (H, W) are those of the images, for networks that are
    built.

    Raises:
        ValueError: If the name is unknown; the message has similar names.
        ImportError: If timm, transformers or torchvision is needed and missing.
        ModelFileError: If the file is not a model. A ValueError.
    """
    if name.startswith("timm:"):
        with on_meta():
            model: nn.Module = create_timm(
                name.removeprefix("timm:"), channels or 3, pretrained=False, num_classes=None
            )
        return model
    if name.startswith(PREFIX):
        with on_meta():
            return classifier_or_network(folder_of(name), short_name(name))
    if name.startswith("torchvision:"):
        return _of_torchvision(name.removeprefix("torchvision:"), channels)
    if Path(name).is_file() or "/" in name or name.endswith(".safetensors"):
        return load(name)
    if name in NAMES:
        return Published(name, channels or 3, size or SIZE)
    close = difflib.get_close_matches(name.lower(), NAMES, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(NAMES)}"
    raise ValueError(
        f"{name}: neither a file nor a network of gapstone's; {hint}; others are written timm:NAME, hf:FOLDER, "
        f"torchvision:NAME."
    )


class Published(nn.Module):
    """A network of gapstone's with its published head and the 1,000 classes of ImageNet, on the meta device."""

    def __init__(self, name: str, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        with on_meta():
            self.features = build(name, channels)
            cells = map_size(self.features, channels, size)
            self.head = Head(published_head(name), self.features.channels, CLASSES, cells)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def _of_torchvision(name: str, channels: int | None) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"torchvision:{name} needs torchvision: pip install 'gapstone[zoo]' (here: {error})"
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=4)
        hint = (
            f"did you mean {', '.join(f'torchvision:{c}' for c in close)}?"
            if close
            else f"there are {', '.join(known)}"
        )
        raise ValueError(f"torchvision has no classifier {name!r}: {hint}")
    if channels not in (None, 3):
        raise ValueError(f"torchvision:{name} takes images of 3 channels, not {channels}; timm's take any number")
    with on_meta(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet and Inception: their initialisation may change
        model: nn.Module = models.get_model(name, weights=None)
    return model
