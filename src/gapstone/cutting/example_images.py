"""Images of noise that a network takes, to run it once; and what is no network whose head can be removed."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.runtime.eval_mode import eval_mode

SIDES = (224, 32, 28, 64, 128, 256, 299, 384)
"""Sides of ImageNet, CIFAR, MNIST, …: some networks take one size only."""


def check_model(model: Any, what: str = "swap_head") -> None:
    """Raise TypeError or ValueError if `model` is no network whose head can be removed; `what` is what was called."""
    if not isinstance(model, nn.Module):
        hint = "Give the model, not its class." if isinstance(model, type) else "Give the nn.Module itself."
        raise TypeError(f"{what}({type(model).__name__}): needs an nn.Module. {hint}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise TypeError(
            f"{what}({type(model).__name__}): a scripted or compiled model cannot be changed; give it as it was, and "
            f"compile afterwards"
        )
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            f"{what}({type(model).__name__}): its parameters are on the device 'meta', which holds no numbers: "
            f"make it on another device, or load its weights first"
        )


def example_images(model: nn.Module, what: str = "swap_head") -> Tensor:
    """Return two noise images that the model takes, (2, C, H, W), on its device and of its type."""
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
            f"{what} does not know what images {type(model).__name__} takes: it has no Conv2d, and names no size. "
            f"Give images=, a tensor (N, C, H, W), normalised"
        )
    detail = f" ({type(reason).__name__}: {str(reason)[:200]})" if reason else ""
    raise ValueError(
        f"{what} calls {type(model).__name__}(images) with nothing else; it gave noise of {', '.join(tried)}, and "
        f"none was taken{detail}: give images= that it takes, a tensor (N, C, H, W), normalised"
    ) from reason


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    prepared = getattr(model, "preprocessing", None)
    if isinstance(prepared, Preprocessing):  # a Classifier's
        yield (prepared.channels, *prepared.size)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(config, dict) and len(config.get("input_size") or ()) == 3:  # timm's
        yield tuple(config["input_size"])
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            for side in SIDES:
                yield module.in_channels, side, side
            return
