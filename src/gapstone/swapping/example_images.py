"""Noise images for a network, of its number of channels and the first size that it takes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gapstone.models.classifier import Classifier
from gapstone.runtime.eval_mode import eval_mode

SIDES = (224, 32, 28, 64, 128, 256, 299, 384)
"""Sides of ImageNet, CIFAR, MNIST, …: some networks take one size only."""


def example_images(model: nn.Module) -> Tensor:
    """Return two noise images that the model takes, (2, C, H, W), on its device and of its type.

    Raises:
        ValueError: If it takes none of the sizes that are tried.
    """
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    tried: list[str] = []
    reason: Exception | None = None
    for shape in dict.fromkeys(_shapes(model)):
        images = torch.randn(2, *shape, generator=generator).to(weight)
        try:
            with eval_mode(model), torch.no_grad():
                out = model(images)
            logits = getattr(out, "logits", out)
            if not isinstance(logits, Tensor) or len(logits) == 2:
                return images
        except Exception as error:  # networks refuse sizes with different errors
            reason = error
        tried.append("×".join(map(str, shape)))
    if not tried:
        raise ValueError(
            f"swap_head does not know what images {type(model).__name__} takes: it has no Conv2d, and names no size. "
            f"Give images=, a tensor (N, C, H, W), normalised"
        )
    detail = f" ({type(reason).__name__}: {str(reason)[:200]})" if reason else ""
    raise ValueError(
        f"swap_head calls {type(model).__name__}(images) with nothing else; it gave noise of {', '.join(tried)}, and "
        f"none was taken{detail}: give images= that it takes, a tensor (N, C, H, W), normalised"
    ) from reason


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    if isinstance(model, Classifier):
        yield (model.preprocessing.channels, *model.preprocessing.size)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(config, dict) and len(config.get("input_size") or ()) == 3:  # timm's
        yield tuple(config["input_size"])
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            for side in SIDES:
                yield module.in_channels, side, side
            return
